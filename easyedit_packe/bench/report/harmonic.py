"""H, the number that cannot be bought: the harmonic mean of efficacy, generality, locality and same-subject kept.

An editor that gains one of the four by giving up another gains nothing: the harmonic mean is near its smallest part.
It is taken of the means over records, as a single record's parts are often 0, and its error, and that of the
difference of two editors, by drawing records with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

PARTS = (("easyedit", "efficacy"), ("easyedit", "generality"), ("easyedit", "locality"), ("subject", "kept"))


class Mean(NamedTuple):
    """A mean over n records; its standard error, which one record does not have, is NaN then."""

    mean: float
    error: float
    n: int


DRAWS = 2000
"""Samples of the records; from a seed of their own, so that a report is always the same."""

Parts = dict[Any, tuple[float, ...]]
"""By record, its four parts."""


def parts(cases: Sequence[Mapping[str, Any]]) -> Parts:
    """Of records that have all four; the mean over seeds, which are no new records."""
    found: dict[Any, list[tuple[float, ...]]] = {}
    for case in cases:
        if all(metric in case.get(family, {}) for family, metric in PARTS):
            found.setdefault(case["case_id"], []).append(tuple(case[f][m] for f, m in PARTS))
    ordered = sorted(found.items(), key=lambda item: str(item[0]))
    return {i: tuple(np.mean(rows, axis=0).tolist()) for i, rows in ordered}


def harmonic(values: Sequence[float]) -> float:
    """Harmonic mean; 0 where one of them is."""
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / v for v in values)


def h(records: Parts) -> Mean:
    """H of one editor, with its standard error over records."""
    values = np.array(list(records.values()))
    drawn = [harmonic(values[rows].mean(0)) for rows in _draws(len(values))]
    return Mean(harmonic(values.mean(0)), float(np.std(drawn, ddof=1)) if len(values) > 1 else np.nan, len(values))


def difference(ours: Parts, theirs: Parts) -> Mean:
    """H of one editor less H of another, over the records that both have; paired: both see the same draws."""
    common = [i for i in ours if i in theirs]
    a, b = (np.array([of[i] for i in common]) for of in (ours, theirs))
    drawn = [harmonic(a[rows].mean(0)) - harmonic(b[rows].mean(0)) for rows in _draws(len(common))]
    found = harmonic(a.mean(0)) - harmonic(b.mean(0))
    return Mean(found, float(np.std(drawn, ddof=1)) if len(common) > 1 else np.nan, len(common))


def _draws(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, n, (DRAWS, n))
