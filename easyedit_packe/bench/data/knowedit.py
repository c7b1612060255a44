"""KnowEdit: wiki_recent, ZsRE, wiki_counterfact and WikiBio, in the form that EasyEdit's `KnowEditDataset` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .record import Probe, Probes, Record


def read_knowedit(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """Records of `prompt` or `text`, `target_new` or `labels`, `subject` or `concept`; portability and locality by the
    data set's own names. An item may have several answers, and answers several spellings: all of them are kept."""
    for i, r in enumerate(raw):
        truth = r.get("ground_truth")
        yield Record(
            case_id=r.get("case_id", i),
            prompt=r["prompt"] if "prompt" in r else r["text"],
            subject=r["subject"] if "subject" in r else r["concept"],
            target_new=r["target_new"] if "target_new" in r else r["labels"],
            ground_truth=_flat(truth)[0] if truth else "",
            rephrases=tuple(p for p in (r.get("rephrase") or r.get("rephrase_prompt"),) if p),
            localities=_probes(r["locality"]),
            portability=_probes(r.get("portability") or {}),
        )


def _probes(kinds: dict[str, Any]) -> dict[str, Probes]:
    """Items without an answer are left out, as EasyEdit's example does."""
    found = {}
    for name, items in kinds.items():
        probes = [Probe(_flat(item["prompt"])[0], tuple(_flat(item["ground_truth"]))) for item in items or []]
        kept = tuple(probe for probe in probes if probe.answers)
        if kept:
            found[name] = kept
    return found


def _flat(value: Any) -> list[str]:
    """The texts of nested lists, in order, without empty ones."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    return [text for part in value or [] for text in _flat(part)]
