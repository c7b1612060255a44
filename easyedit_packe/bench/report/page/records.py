"""Every measured record as plain values, each text once, for the list in the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...archive import Row
from ...metrics.words import FREE, asked
from ..means import FAMILIES, by_record, columns_of, comparable, shared_records
from ..runs import Run
from .cells import six_digits
from .sections import places
from .texts import Texts

Figures = dict[str, dict[Any, dict[str, float]]]
"""By family, and then by record, each column's figure."""


def groups(runs: Sequence[Run], texts: Texts) -> list[dict[str, Any]]:
    """One for each model, setting and data set: what the tables keep apart is apart here.

    Returns:
        section: index of the page's section. data: the data set's name. metrics: family and column of each figure.
        cases: ids. Parallel to it: shared, whether the tables rest on it; subject and old, texts or None; asked, by
        metric, [prompt, answer] pairs; before, figures and texts of the unedited model.
        runs: editor and seed, with rows [index in cases, figures, texts by metric, verdicts, refusal];
        what is missing at the end is left out.
    """
    order = places(runs)
    return [
        {"section": order.index((model, setting)), "data": data, **_group(members, texts)}
        for (model, setting, data), members in sorted(comparable(runs).items(), reverse=True)
    ]


def _group(runs: Sequence[Run], texts: Texts) -> dict[str, Any]:
    cases = sorted({case for run in runs for case in run.measured}, key=lambda case: (str(type(case)), case))
    place, shared = {case: i for i, case in enumerate(cases)}, shared_records(runs)
    records = {case: r for run in runs for case, r in texts.get(run.identity.get("data_sha256", ""), {}).items()}
    here = [records.get(case) for case in cases]
    known = {case: row for run in runs for case, row in run.unedited.items()}
    unedited = [known[case] for case in cases if case in known]
    figures = [_figures(run.final) for run in runs]
    metrics = _metrics([*figures, _figures(unedited)])
    return {
        "metrics": metrics,
        "cases": cases,
        "shared": [int(case in shared) for case in cases],
        "subject": [r and r.subject for r in here],
        "old": [r and r.ground_truth for r in here],
        "asked": [r and asked(r) for r in here],
        "before": _rows(unedited, _figures(unedited), metrics, place, {}),
        "runs": [
            {
                "editor": run.name,
                "seed": run.identity["seed"],
                "rows": _rows(run.final, own, metrics, place, run.refused),
            }
            for run, own in zip(runs, figures, strict=True)
        ],
    }


def _figures(cases: Sequence[Row]) -> Figures:
    return {family: by_record(cases, family) for family in FAMILIES}


def _metrics(found: Sequence[Figures]) -> list[tuple[str, str]]:
    """Those that a record has, in the order of the tables."""
    metrics = []
    for family in FAMILIES:
        seen = dict.fromkeys(m for figures in found for values in figures[family].values() for m in values)
        known = [m for m in columns_of(family) if m in seen] if family != "portability" else []
        metrics += [(family, metric) for metric in dict.fromkeys([*known, *seen])]
    return metrics


def _rows(
    cases: Sequence[Row], figures: Figures, metrics: Sequence[tuple[str, str]], place: Mapping[Any, int],
    refused: Mapping[str, str],
) -> list[list[Any]]:  # fmt: skip
    rows = []
    for case in cases:
        own = [figures[family].get(case["case_id"], {}).get(metric) for family, metric in metrics]
        verdicts = case.get("verdicts", [])
        said = case.get("said", {}) | ({FREE: [v["said"] for v in verdicts]} if verdicts else {})
        row = [
            place[case["case_id"]],
            [value if value is None else six_digits(value) for value in own],
            said or None,
            [v["right"] for v in verdicts] or None,
            refused.get(str(case["case_id"])),
        ]
        while row[-1] is None:
            row.pop()
        rows.append(row)
    return rows
