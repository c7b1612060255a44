"""Every editor over consecutive edits: H and its four parts, of all records edited so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..report.harmonic import PARTS, Mean
from ..report.means import HARMONIC, means_of
from ..report.runs import Run, editor_place
from ..report.tables import curve_points
from . import style
from .study import Missing, Study, in_order, provenance, side_by_side, slug, title
from .sweep import without_sweeps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = Missing(
    "runs of the protocol consecutive that were measured on the way",
    'packe bench -m editor=FT-C,PaCKE data=zsre,counterfact protocol=consecutive n=50 "curve=[1,10]"',
)
CROWDED = 8
"""More lines than in two columns of panels can be told apart, and in a file of less than 150 kB."""
ROWS = (HARMONIC, *(metric for _, metric in PARTS))

Curve = dict[int, dict[str, Mean]]
"""Columns after so many edits."""


def draw(study: Study) -> Iterator[tuple[str, Figure]]:
    """A line an editor, a column of panels a data set."""
    runs = [run for run in without_sweeps(study.runs) if run.is_shown and len(_whole(run)) > 1]
    for model, setting in sorted({(run.model, run.setting) for run in runs}):
        members = [run for run in runs if (run.model, run.setting) == (model, setting)]
        crowded = len({run.name for run in members}) > CROWDED
        for name, data in side_by_side((run.data for run in members), crowded):
            yield slug(model, setting, name), _figure(model, setting, [run for run in members if run.data in data])


def _whole(run: Run) -> dict[int, list[dict]]:
    """The points at which all records so far were measured."""
    return {k: cases for k, cases in curve_points(run).items() if len(cases) == k}


def curves(runs: Sequence[Run]) -> dict[str, Curve]:
    """Of each editor, in the order of the tables; seeds are averaged."""
    found: dict[str, dict[int, list[dict]]] = {}
    for run in sorted(runs, key=lambda r: editor_place(r.name)):
        for k, cases in _whole(run).items():
            found.setdefault(run.name, {}).setdefault(k, []).extend(cases)
    return {
        name: {k: means_of(cases, "easyedit") | means_of(cases, "subject") for k, cases in sorted(points.items())}
        for name, points in found.items()
    }


def _figure(model: str, setting: str, members: Sequence[Run]) -> Figure:
    of = {data: curves([run for run in members if run.data == data]) for data in in_order(r.data for r in members)}
    rows = [row for row in ROWS if any(row in means for c in of.values() for curve in c.values() for means in
            curve.values())]  # fmt: skip
    editors = max(map(len, of.values()))
    height = max(1.15, 0.3 + 0.117 * editors) * len(rows) + 0.55
    figure = style.new(style.PAGE if len(of) > 1 else style.COLUMN + 0.6, height)
    grid = figure.subplots(len(rows), len(of), sharex="col", sharey="row", squeeze=False)
    labels = []
    for column, (data, by_editor) in zip(grid.T, of.items(), strict=True):
        column[0].set_title(title(data))
        column[-1].set_xlabel("consecutive edits, and records measured")
        ticks = sorted({k for curve in by_editor.values() for k in curve})
        for axes, row in zip(column, rows, strict=True):
            ends = []
            for name, curve in by_editor.items():
                ends += _line(axes, name, {k: means[row] for k, means in curve.items() if row in means})
            axes.set_xscale("log")
            axes.set_xticks(ticks, map(str, ticks))
            axes.minorticks_off()
            axes.set_ylim(-4, 104)
            axes.grid(axis="y")
            labels.append((axes, ends))
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(f"{row}, %")
    style.note(figure, f"{provenance(model, setting, 'n = the number of edits', members)} Bars are standard errors.")
    for axes, ends in labels:
        style.label_beside(axes, ends)
    return figure


def _line(axes: Axes, name: str, points: Mapping[int, Mean]) -> list[style.Label]:
    if not points:
        return []
    look = style.look(name)
    y = [100 * point.mean for point in points.values()]
    axes.errorbar(
        list(points), y, [100 * point.error for point in points.values()], color=look.color, marker=look.marker,
        linestyle=look.line, linewidth=look.width, elinewidth=0.5, markeredgecolor="white", label=name,
    )  # fmt: skip
    return [style.Label(list(points)[-1], y[-1], name, look)]
