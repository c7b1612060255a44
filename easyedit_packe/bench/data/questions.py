"""Sets of questions: QAEdit, and WikiBigEdit in both of its forms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .record import Probe, Record, kinds


def read_qaedit(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """QAEdit (arXiv 2502.11177): one rephrased question and several unrelated ones."""
    for r in raw:
        kept = tuple(Probe(probe["loc"], _answers(probe["loc_ans"])) for probe in r["locality"])
        yield Record(
            case_id=r["id"],
            prompt=r["prompt"],
            subject=r["subject"],
            target_new=r["target"],
            ground_truth="",
            rephrases=(r["rephrase"],),
            localities=kinds(locality=kept),
        )


def read_wikibigedit(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """WikiBigEdit: the keys of its authors (`update`, `ans`, with personas and a hop), or those of EasyEdit's
    CounterFact."""
    for i, r in enumerate(raw):
        yield _authors(i, r) if "update" in r else _flat(i, r)


def _authors(i: int, r: dict[str, Any]) -> Record:
    personas, hop, kept = (
        (Probe(r[asked], _answers(r[answer])),) if r.get(asked) and r.get(answer) else ()
        for asked, answer in (("personas", "ans"), ("mhop", "mhop_ans"), ("loc", "loc_ans"))
    )
    return Record(
        case_id=i,
        prompt=r["update"],
        subject=r["subject"],
        target_new=r["ans"],
        ground_truth=r.get("ground_truth") or "",
        rephrases=(r["rephrase"],),
        localities=kinds(locality=kept),
        portability=kinds(personas=personas, hop=hop),
    )


def _flat(i: int, r: dict[str, Any]) -> Record:
    return Record(
        case_id=r.get("case_id", i),
        prompt=r["prompt"],
        subject=r["subject"],
        target_new=r["target_new"],
        ground_truth=r.get("ground_truth") or "",
        rephrases=(r["rephrase_prompt"],),
        localities={"locality": (Probe(r["locality_prompt"], _answers(r["locality_ground_truth"])),)},
    )


def _answers(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
