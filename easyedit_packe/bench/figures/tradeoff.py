"""What generality costs: generality against locality, and against what an edit leaves of its subject's other facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..report.harmonic import Mean
from ..report.means import ORIGINAL, comparable, editors_cases, means_of, shared_records
from ..report.runs import Run, editor_place
from . import style
from .study import Missing, Study, counted, provenance, side_by_side, slug, title
from .sweep import without_sweeps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = Missing(
    "runs of two editors or more on the same records", "packe bench -m editor=FT-C,ROME,PaCKE data=zsre,counterfact"
)
AGAINST = {
    "locality": "locality, percent",
    "kept": "same-subject kept, percent",
}


def draw(study: Study) -> Iterator[tuple[str, Figure]]:
    """A point an editor, over the records that all of them share; errors are standard errors."""
    groups = comparable(without_sweeps(study.runs))
    for model, setting in dict.fromkeys((model, setting) for model, setting, _ in groups):
        members = {data: runs for (m, s, data), runs in groups.items() if (m, s) == (model, setting)}
        several = {data: runs for data, runs in members.items() if len({run.name for run in runs}) > 1}
        for name, data in side_by_side(several) if several else ():
            yield slug(model, setting, name), _figure(model, setting, {of: several[of] for of in data})


def _figure(model: str, setting: str, members: Mapping[str, list[Run]]) -> Figure:
    found = {data: _means(runs) for data, runs in members.items()}
    rows = [x for x in AGAINST if any(x in means for of in found.values() for means in of.values())]
    editors = max(len(of) for of in found.values())
    height = max(2.1, 0.45 + 0.117 * editors) * len(rows) + 0.35
    figure = style.new(style.PAGE if len(members) > 1 else style.COLUMN + 0.6, height)
    grid = figure.subplots(len(rows), len(members), squeeze=False)
    labels = []
    for column, (data, of) in zip(grid.T, found.items(), strict=True):
        column[0].set_title(f"{title(data)}, n = {len(shared_records(members[data]))}")
        for axes, x in zip(column, rows, strict=True):
            labels.append((axes, _points(axes, x, {name: means for name, means in of.items() if x in means})))
    for axes in grid[:, 0]:
        axes.set_ylabel("generality, percent")
    runs = [run for of in members.values() for run in of]
    n = counted(len(shared_records(of)) for of in members.values())
    lacking = "" if "kept" in rows else " These rows have no other questions about the subject."
    style.note(figure, f"{provenance(model, setting, n, runs)} Bars are standard errors.{lacking}")
    for axes, texts in labels:
        style.label_beside(axes, texts)
    return figure


def _means(runs: list[Run]) -> dict[str, dict[str, Mean]]:
    """By editor, in the order of the tables; over the records that all share."""
    cases = editors_cases(runs, shared_records(runs))
    found = {
        name: means_of(cases[name], "easyedit") | means_of(cases[name], "subject")
        for name in sorted(cases, key=editor_place)
        if name != ORIGINAL
    }
    return {name: means for name, means in found.items() if {"generality", "locality"} <= means.keys()}


def _points(axes: Axes, x: str, of: Mapping[str, Mapping[str, Mean]]) -> list[style.Label]:
    labels = []
    for name, means in of.items():
        look = style.look(name)
        at = 100 * means[x].mean, 100 * means["generality"].mean
        axes.errorbar(
            *at, 100 * means["generality"].error, 100 * means[x].error, color=look.color, marker=look.marker,
            linestyle="", elinewidth=0.5, markersize=5 if "PaCKE" in name else 4, markeredgecolor="white", label=name,
        )  # fmt: skip
        labels.append(style.Label(*at, name, look))
    axes.set_xlabel(AGAINST[x])
    axes.grid()
    return labels
