"""What a reader must know beside a table: what is missing, refused, or rests on few records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..editors import EDITORS
from .means import comparable, editors_cases, measured_by, shared_records
from .runs import Run
from .tables import curve_points

OWN_RECORDS = (
    "EasyEdit's metrics of each editor on all records that it was measured on. Rows with different n are NOT "
    "comparable."
)
"""Above the table that stands beside the others where `few_shared` has something to say."""


def notes(runs: Sequence[Run]) -> list[str]:
    """One for each thing to say about the runs of one model and setting."""
    ordered = sorted(runs, key=lambda r: r.place)
    found = [f"- {run.name}, {run.data}: {note}" for run in ordered for note in _notes_on(run)]
    return [*found, *_unclear(ordered), *_mixed(ordered), *_lacking(ordered)]


def _notes_on(run: Run) -> Iterator[str]:
    total = run.about["num_records"]
    if not run.final:
        yield f"no record of {total} measured yet; not in the tables."
    elif not run.is_complete:
        shown = "" if run.is_shown else "; not in the tables"
        yield f"unfinished, {len(run.final)} of {total} records measured{shown}."
    for k, cases in curve_points(run).items():
        if len(cases) != k and k != run.last:
            yield f"after {k} edits only {len(cases)} records are measured; not in the curve."
    if run.edits and not run.about_unedited:
        yield "the unedited model was not measured; no perplexity ratio."
    if run.repeats:
        yield f"found {run.repeats + 1} times; the one with most rows counts."
    for case, why in run.refused.items():
        yield f"record {case} refused ({why}); measured unedited."


def _unclear(runs: Sequence[Run]) -> Iterator[str]:
    """Answers on which a judge gave no verdict: they are in no mean of the judged columns."""
    for (_, _, data), members in comparable(runs).items():
        for name, cases in editors_cases(members, None).items():
            verdicts = [(case["case_id"], v) for case in cases for v in case.get("verdicts", [])]
            unclear = [f"{i} ({v['reply'][:40]!r})" for i, v in verdicts if v["right"] is None]
            if unclear:
                yield (
                    f"- {name}, {data}: no clear verdict on {len(unclear)} of {len(verdicts)} answers, which no judged "
                    f"column counts; records and replies: {', '.join(unclear)}."
                )


def _mixed(runs: Sequence[Run]) -> Iterator[str]:
    """Runs that a table averages as seeds of one editor although they differ in more than the seed."""
    for members in comparable(runs).values():
        by_name: dict[str, list[Run]] = {}
        for run in members:
            by_name.setdefault(run.name, []).append(run)
        for name, same in by_name.items():
            differs = sorted(k for k in _keys(same) if len({_text(_settings(run).get(k)) for run in same}) > 1)
            if differs:
                yield (
                    f"- {name}, {same[0].data}: {len(same)} runs that differ in {', '.join(differs)} are averaged; "
                    "give each a label=."
                )


def _settings(run: Run) -> dict[str, Any]:
    identity = run.identity
    return {**identity.get("hparams", {}), **{key: identity.get(key) for key in ("batch_size", "answer_end")}}


def _keys(runs: Sequence[Run]) -> set[str]:
    return {key for run in runs for key in _settings(run)} - {"seed"}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _lacking(runs: Sequence[Run]) -> Iterator[str]:
    protocols = sorted({r.identity["protocol"] for r in runs})
    lacking = [f"{e.name}: {e.cannot[p]}" for p in protocols for e in EDITORS.values() if p in e.cannot]
    if lacking:
        yield f"- Not in this protocol: {'; '.join(lacking)}."


def few_shared(runs: Sequence[Run]) -> list[str]:
    """For each data set whose tables rest on fewer records than were measured: how many, and who lacks the others."""
    warnings = []
    for (_, _, data), members in comparable(runs).items():
        by_editor = measured_by(members)
        measured = set.union(*by_editor.values())
        shared = len(shared_records(members))
        if shared < len(measured):
            short = [f"{name} ({len(has)})" for (name, _), has in by_editor.items() if has != measured]
            number = "record stands" if shared == 1 else "records stand"
            warnings.append(
                f"**Only {shared} of {len(measured)} measured {number} in the tables of {data}**, those that all "
                f"editors share; not all have been measured for {', '.join(dict.fromkeys(short))}."
            )
    return warnings
