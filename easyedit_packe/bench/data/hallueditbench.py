"""HalluEditBench's CSV files: one question in several forms, and chains of questions that follow from it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .record import Probe, Record, kinds

_NEEDED = ("subject", "object", "question")


def read_hallueditbench(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """The question and its answer are edited; `paraphrased_question` is the paraphrase, `locality_question` must stay,
    and `question_2hop` to `question_6hop` follow. Its yes, no, choice and reversed questions are kept as portability
    by these names."""
    for i, r in enumerate(raw):
        chains = {f"{k}hop": (r.get(f"question_{k}hop"), r.get(f"answer_{k}hop")) for k in range(2, 7)}
        asked = {
            "yes": (r.get("yes_question"), "Yes"),
            "no": (r.get("no_question"), "No"),
            "multiple_choice": (r.get("multiple_choice_with_letters"), r.get("multiple_choice_labels")),
            "reversed": (r.get("reversed_relation_question"), r["subject"]),
        }
        kept = r.get("locality_question")
        yield Record(
            case_id=i,
            prompt=r["question"],
            subject=r["subject"],
            target_new=r["object"],
            ground_truth="",
            rephrases=tuple(p for p in (r.get("paraphrased_question"),) if p),
            localities=kinds(locality=(Probe(kept, ()),) if kept else ()),
            portability={name: (Probe(q, (a,)),) for name, (q, a) in (asked | chains).items() if q and a},
        )


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The CSV's rows that hold a fact; cells without text are left out, and what is behind the last column."""
    with path.open(encoding="utf-8-sig", newline="") as f:
        rows = [{k: v for k, v in row.items() if k and v and _is_text(k, v)} for row in csv.DictReader(f)]
    for field in _NEEDED:
        if not any(field in row for row in rows):
            raise KeyError(field)
    return [row for row in rows if all(field in row for field in _NEEDED)]


def _is_text(column: str, cell: str) -> bool:
    """Not how programs write that there is none; of a fact it may be the name, Nan is a province."""
    return bool(cell.strip()) and (column in _NEEDED or cell.strip() not in ("nan", "None"))
