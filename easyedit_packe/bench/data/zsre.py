"""ZsRE, in EasyEdit's form: `zsre_mend_eval.json`, and the one with a one-hop question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...easyedit import parts
from .record import Probe, Record


def read_zsre(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """As EasyEdit's class reads it, which skips records with an empty target; with all paraphrases (`rephrase`, then
    `similar_prompts`) and, where there is one, the question that follows from the new fact."""
    for r in parts.read_dataset("ZsreDataset", path):
        more = raw[r["case_id"]]
        hop = more.get("portability") or {}
        asked = hop.get("New Question")
        yield Record(
            case_id=r["case_id"],
            prompt=r["prompt"],
            subject=more.get("subject"),
            target_new=r["target_new"],
            ground_truth=r["ground_truth"],
            rephrases=tuple(dict.fromkeys([r["rephrase_prompt"], *more.get("similar_prompts", [])])),
            localities={"neighborhood": (Probe(r["locality_prompt"], (r["locality_ground_truth"],)),)},
            portability={"one_hop": (Probe(asked, (hop["New Answer"],)),)} if asked else {},
        )
