"""CounterFact: EasyEdit's flat form, ROME's own with all paraphrases and neighbours, and a flat form with several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...easyedit import parts
from .record import Probe, Record, kinds


def read_counterfact(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """EasyEdit's `counterfact-edit.json`: one paraphrase and one neighbour a record."""
    for i, r in enumerate(parts.read_dataset("CounterFactDataset", path)):
        yield Record(
            case_id=r.get("case_id", i),
            prompt=r["prompt"],
            subject=r["subject"],
            target_new=r["target_new"],
            ground_truth=r["ground_truth"],
            rephrases=(r["rephrase_prompt"],),
            localities={"neighborhood": (Probe(r["locality_prompt"], (r["locality_ground_truth"],)),)},
        )


def read_multi_counterfact(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """ROME's `counterfact.json` and `multi_counterfact.json`; a neighbour's answer is the old one of the record."""
    for r in raw:
        edit = r["requested_rewrite"]
        true = edit["target_true"]["str"]
        yield Record(
            case_id=r["case_id"],
            prompt=edit["prompt"].format(edit["subject"]),
            subject=edit["subject"],
            target_new=edit["target_new"]["str"],
            ground_truth=true,
            rephrases=tuple(r["paraphrase_prompts"]),
            localities=kinds(neighborhood=tuple(Probe(p, (true,)) for p in r["neighborhood_prompts"])),
        )


def read_neighbourhood(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """A flat record with `rephrase_prompts` and `neighborhood_prompts`."""
    for r in raw:
        true = r["ground_truth"]
        yield Record(
            case_id=r["case_id"],
            prompt=r["prompt"],
            subject=r["subject"],
            target_new=r["target_new"],
            ground_truth=true,
            rephrases=tuple(r["rephrase_prompts"]),
            localities=kinds(neighborhood=tuple(Probe(p, (true,)) for p in r["neighborhood_prompts"])),
        )
