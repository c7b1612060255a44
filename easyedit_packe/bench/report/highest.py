"""Whose score and H are the highest, and who ties with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..archive import Row
from . import harmonic
from .harmonic import Mean
from .means import HARMONIC, ORIGINAL, by_record, comparable, difference, editors_cases, mean, shared_records, verdict
from .runs import Run

TIES = "Tied: the difference is less than twice the standard error of the paired differences."


class Highest(NamedTuple):
    """Of a data set the editor with the highest mean, and those whose difference from it is no more than chance."""

    data: str
    metric: str
    best: str
    ties: tuple[str, ...]


def highest(runs: Sequence[Run], family: str) -> list[Highest]:
    """Of each column that is compared as a whole: the score, and in EasyEdit's family H.

    Args:
        runs: of one model and setting. A data set with nobody to compare has none.
    """
    return [*_score(runs, family), *(_h(runs) if family == "easyedit" else ())]


def in_words(found: Sequence[Highest]) -> str:
    """A sentence for each column; empty without any."""
    sentences = []
    for metric in dict.fromkeys(h.metric for h in found):
        parts = [
            f"{h.data} {h.best}" + (f", tied with {', '.join(h.ties)}" if h.ties else "")
            for h in found
            if h.metric == metric
        ]
        sentences.append(f"Highest {metric}: {'; '.join(parts)}.")
    return " ".join(sentences)


def _score(runs: Sequence[Run], family: str) -> Iterator[Highest]:
    for data, cases in _cases(runs):
        records = {name: by_record(rows, family) for name, rows in cases.items()}
        scored = {name: of for name, of in records.items() if of and all("score" in r for r in of.values())}
        scores = {name: mean([r["score"] for r in of.values()]).mean for name, of in scored.items()}
        yield from _best(data, "score", scores, scored, partial(difference, metric="score"))


def _h(runs: Sequence[Run]) -> Iterator[Highest]:
    """Its differences are drawn together, record by record."""
    for data, cases in _cases(runs):
        parts = {name: harmonic.parts(rows) for name, rows in cases.items()}
        values = {name: harmonic.h(of).mean for name, of in parts.items() if of}
        yield from _best(data, HARMONIC, values, parts, harmonic.difference)


def _cases(runs: Sequence[Run]) -> Iterator[tuple[str, dict[str, list[Row]]]]:
    """By data set, the rows of each editor's records that all have measured."""
    for (_, _, data), members in sorted(comparable(runs).items(), reverse=True):
        cases = editors_cases(members, shared_records(members))
        yield data, {name: rows for name, rows in cases.items() if name != ORIGINAL}


def _best(
    data: str, metric: str, values: Mapping[str, float], records: Mapping[str, Any], less: Callable[[Any, Any], Mean]
) -> Iterator[Highest]:
    """Nobody where there is nobody to compare.

    Args:
        values: by editor, what the tables show.
        records: by editor, what it is the mean of.
        less: the paired difference of two editors' records.
    """
    if len(values) > 1:
        best = max(values, key=lambda name: round(values[name], 4))  # the first of equals, as the tables have them
        ties = (name for name in values if name != best and verdict(less(records[best], records[name])) == "tie")
        yield Highest(data, metric, best, tuple(ties))
