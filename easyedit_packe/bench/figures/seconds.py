"""Figure 3 of the paper: seconds an edit, of every editor, on each data set.

Times of different environments never stand side by side: of several, the one that made most of the rows is drawn, and
the editors that are only elsewhere are named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from ..report.means import comparable
from ..report.runs import Run, editor_place
from ..report.tables import costs
from . import style
from .study import Missing, Study, counted, in_order, provenance, side_by_side, slug, title
from .sweep import without_sweeps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = Missing("runs with an edit", "packe bench editor=all data=zsre n=8 generation=false share=false")


def draw(study: Study) -> Iterator[tuple[str, Figure]]:
    """A bar an editor: the median over its calls of a call's seconds divided by its records."""
    groups = comparable(without_sweeps(study.runs))
    for model, setting in dict.fromkeys((model, setting) for model, setting, _ in groups):
        members = [r for (m, s, _), runs in groups.items() if (m, s) == (model, setting) for r in runs if r.edits]
        for name, data in side_by_side(run.data for run in members) if members else ():
            yield slug(model, setting, name), _figure(model, setting, [run for run in members if run.data in data])


def in_one_environment(runs: Sequence[Run]) -> list[Run]:
    """The runs with only those edits that the environment made which made most editors' on most data sets."""
    made: dict[str | None, list[Run]] = {}
    for run in runs:
        for name in sorted({edit.get("environment") for edit in run.edits}, key=str):
            edits = [edit for edit in run.edits if edit.get("environment") == name]
            cases = [case for case in run.cases if case.get("environment") == name]
            made.setdefault(name, []).append(dataclasses.replace(run, edits=edits, cases=cases))
    return max(made.values(), key=lambda some: (len({(r.name, r.data) for r in some}), sum(len(r.edits) for r in some)))


def _figure(model: str, setting: str, members: Sequence[Run]) -> Figure:
    runs = in_one_environment(members)
    editors = sorted({run.name for run in runs}, key=editor_place)
    data = in_order(run.data for run in runs)
    figure = style.new(style.PAGE if len(data) > 1 else style.COLUMN, 1.1 + 0.155 * len(editors))
    panels = figure.subplots(1, len(data), sharey=True, squeeze=False)[0]
    numbers = []
    for axes, name in zip(panels, data, strict=True):
        here = [run for run in runs if run.data == name]
        for y, editor in enumerate(editors):
            found = [costs(run) for run in here if run.name == editor]
            if found:
                seconds = median(cost["seconds"] for cost in found if cost)
                bar = axes.barh(y, seconds, 0.7, color=style.look(editor).color if "PaCKE" in editor else style.FAINT)
                axes.bar_label(bar, [f"{seconds:.1f}"], padding=2, fontsize=style.SMALL)
                numbers += [len({case for e in run.edits for case in e["case_ids"]}) for run in here
                            if run.name == editor]  # fmt: skip
        axes.set_title(title(name))
        axes.set_xlabel("seconds an edit, median")
        axes.margins(x=0.12)
        axes.tick_params("y", length=0)
    panels[0].set_yticks(range(len(editors)), editors)
    panels[0].invert_yaxis()
    elsewhere = sorted({run.name for run in members} - set(editors), key=editor_place)
    left_out = f" Timed elsewhere, and not comparable: {', '.join(elsewhere)}." if elsewhere else ""
    style.note(figure, provenance(model, setting, counted(numbers), runs) + left_out)
    return figure
