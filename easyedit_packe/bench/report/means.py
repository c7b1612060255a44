"""Means over records, their standard errors, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import needs
from ..archive import Row
from . import harmonic
from .harmonic import Mean
from .runs import Run, editor_place

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = {
    "easyedit": "EasyEdit's metrics: token accuracy under teacher forcing; for locality, agreement with the unedited "
    "model",
    "rome": "ROME's and AlphaEdit's metrics: CounterFact compares probabilities, P(new) > P(old) and, for locality, "
    "P(true) > P(new); ZsRE is token accuracy, for locality against the true answer",
    "subject": "Other questions about the edited subject: how often the first answer token stays the unedited model's "
    "(kept), how often it becomes the new target's (drawn), and how far the answers move (kl, in nats, not in percent)",
    "free": "Free generation: greedy, up to a full stop, a line's end or 50 tokens; the answer is the target, exactly",
    "distracting": "Neighbours behind the edited statement (CounterFact): agreement with the unedited model",
    "portability": "Portability, what follows from the new fact: token accuracy, by kind of question",
    "generation": "Greedy generation of version 0.1: the answer up to its natural stop is the target, exactly",
}
METRICS = ("efficacy", "locality", "generality")
COLUMNS = (*METRICS, "score")
HARMONIC = "H"
JUDGED = ("efficacy_judged", "generality_judged")
COLUMNS_OF: dict[str, tuple[str, ...]] = {
    "easyedit": (*COLUMNS, HARMONIC),
    "subject": ("kept", "drawn", "kl"),
    "free": ("efficacy", "generality", *JUDGED),
    "distracting": ("locality",),
}
"""The columns of a family's table, of those that rows have; `COLUMNS` where it is not here; portability's are what the
data set asks."""
PORTABILITY = "portability_"
MEAN = "mean"
"""Portability over a record's kinds of questions, of whatever kinds it has; no column where the data set has one."""
ORIGINAL = "Original model"

Group = tuple[str, str, str]
"""Model, setting, data: what must be equal for two runs to be compared."""


def score(values: Mapping[str, float]) -> float:
    """The paper's: the mean of efficacy, generality and locality, of those that exist."""
    present = [values[m] for m in METRICS if m in values]
    return sum(present) / len(present)


def by_record(cases: Iterable[Row], family: str) -> dict[Any, dict[str, float]]:
    """Each record's metrics and score, in the records' order; the mean over seeds, which are no new records."""
    found: dict[Any, list[Mapping[str, float]]] = {}
    for case in sorted(cases, key=lambda c: (str(type(c["case_id"])), c["case_id"])):
        figures = _figures(case, family)
        if figures:
            found.setdefault(case["case_id"], []).append(figures)
    records = {}
    for case_id, several in found.items():
        columns = dict.fromkeys(m for row in several for m in row)
        by_column = {m: [row[m] for row in several if m in row] for m in columns}
        values = {m: sum(seeds) / len(seeds) for m, seeds in by_column.items()}
        scored = "score" in columns_of(family) and any(m in values for m in METRICS)
        records[case_id] = {**values, **({"score": score(values)} if scored else {})}
    if family == "portability" and len({kind for values in records.values() for kind in values} - {MEAN}) == 1:
        return {case_id: {k: v for k, v in values.items() if k != MEAN} for case_id, values in records.items()}
    return records


def _figures(case: Row, family: str) -> dict[str, float]:
    """What a row has for the columns of a family."""
    if family == "portability":
        figures = case.get("easyedit", {})
        asked = {k.removeprefix(PORTABILITY): v for k, v in figures.items() if k.startswith(PORTABILITY)}
        return asked | ({MEAN: sum(asked.values()) / len(asked)} if asked else {})
    return {m: v for m, v in case.get(family, {}).items() if m in columns_of(family)}


def columns_of(family: str) -> tuple[str, ...]:
    """See `COLUMNS_OF`."""
    return COLUMNS_OF.get(family, COLUMNS)


def mean(values: Sequence[float]) -> Mean:
    """Of one value or more."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Mean(float(np.mean(values)), float(error), len(values))


def difference(ours: Mapping[Any, Mapping[str, float]], theirs: Mapping[Any, Mapping[str, float]], metric: str) -> Mean:
    """Mean of what one editor has more than another on the same record, where both have it.

    Args:
        ours, theirs: from `by_record`.
    """
    both = [(a, theirs[i]) for i, a in ours.items() if i in theirs]
    return mean([a[metric] - b[metric] for a, b in both if metric in a and metric in b])


def verdict(found: Mean) -> str:
    """Of a difference: tie where it is less than twice its standard error, which no single record tells; else better
    or worse."""
    if not abs(found.mean) >= 2 * found.error or not found.mean:
        return "tie"
    return "better" if found.mean > 0 else "worse"


def percent(share: float) -> str:
    """With one decimal; never "-0.0"."""
    return f"{100 * share:z.1f}"


def comparable(runs: Sequence[Run]) -> dict[Group, list[Run]]:
    """Runs that can stand in tables, by what they have in common."""
    groups: dict[Group, list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.place):
        if run.is_shown:
            groups.setdefault((run.model, run.setting, run.data), []).append(run)
    return groups


def measured_by(runs: Sequence[Run]) -> dict[tuple[str, int], set[Any]]:
    """Records that each editor, with each seed, has measured: those of runs that start at other records together."""
    records: dict[tuple[str, int], set[Any]] = {}
    for run in runs:
        records.setdefault((run.name, run.identity["seed"]), set()).update(run.measured)
    return records


def shared_records(runs: Sequence[Run]) -> set[Any]:
    """Records that all editors of one group have measured, with all their seeds."""
    return set.intersection(*measured_by(runs).values())


def editors_cases(runs: Sequence[Run], kept: set[Any] | None) -> dict[str, list[Row]]:
    """Measured records of each editor of one group, of the unedited model first; only those `kept`, or all."""
    everything = set.union(*(run.measured for run in runs)) if kept is None else kept
    unedited = {case: row for run in runs for case, row in run.unedited.items() if case in everything}
    cases: dict[str, list[Row]] = {ORIGINAL: list(unedited.values())}
    for run in runs:
        cases.setdefault(run.name, []).extend(c for c in run.final if c["case_id"] in everything)
    return cases


def means_of(cases: Sequence[Row], family: str) -> dict[str, Mean]:
    """A family's columns, each over the records that have it."""
    records = by_record(cases, family).values()
    columns = columns_of(family) if family != "portability" else tuple(dict.fromkeys(m for r in records for m in r))
    found = {m: mean([r[m] for r in records if m in r]) for m in columns if any(m in r for r in records)}
    if HARMONIC in columns and (of_records := harmonic.parts(cases)):
        found[HARMONIC] = harmonic.h(of_records)
    return found


def tidy(runs: Sequence[Run], common: bool = True) -> pd.DataFrame:
    """Means as one row for each (model, setting, data, editor, family, metric).

    Args:
        common: take only the records that all editors of the same model, setting and data have been measured on, so
            that rows can be compared; otherwise each editor's own records.

    Returns:
        columns model, setting, data, editor, seeds, family, metric, mean, se, n; the unedited model is the editor
        "Original model", without locality in EasyEdit's family, which it defines. `score` is the mean of the metrics.
    """
    needs("pandas", "bench")
    import pandas as pd

    rows = []
    for (model, setting, data), members in comparable(runs).items():
        kept = shared_records(members) if common else None
        for editor, cases in sorted(editors_cases(members, kept).items(), key=lambda item: editor_place(item[0])):
            seeds = len({run.identity["seed"] for run in members if run.name == editor}) or 1
            base = {"model": model, "setting": setting, "data": data, "editor": editor, "seeds": seeds}
            for family in FAMILIES:
                for metric, found in means_of(cases, family).items():
                    figures = {"mean": found.mean, "se": found.error, "n": found.n}
                    rows.append({**base, "family": family, "metric": metric, **figures})
    columns = ["model", "setting", "data", "editor", "seeds", "family", "metric", "mean", "se", "n"]
    return pd.DataFrame(rows, columns=columns)
