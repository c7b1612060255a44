"""What figures 5 and 6 of the paper share: an editor's metrics along one of its hyper-parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..report.means import means_of, shared_records
from ..report.runs import Run
from . import style
from .study import Study, counted, in_order, provenance, slug, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 3
"""Values that make a line."""
SWEPT = ("num_critical_paths", "contrast_weight")

LINES = {
    "efficacy": style.Look(style.BLUE, "o", "-"),
    "generality": style.Look(style.ORANGE, "s", "--"),
    "locality": style.Look(style.GREEN, "^", "-."),
    "score": style.Look(style.BLACK, "D", "-", 1.7),
}


@dataclass(frozen=True)
class Sweep:
    """Runs of one editor on one data set that differ in one hyper-parameter alone.

    Attributes:
        fixed: the other hyper-parameters.
        runs: by the value of the one, in its order.
    """

    model: str
    setting: str
    editor: str
    data: str
    fixed: Mapping[str, Any]
    runs: Mapping[float, Sequence[Run]]

    @property
    def all_runs(self) -> list[Run]:
        return [run for members in self.runs.values() for run in members]


def sweeps(runs: Sequence[Run], parameter: str) -> list[Sweep]:
    """Those of at least `LEAST` values; seeds, and the same run under several labels, are one value."""
    groups: dict[tuple[str, str, str, str, str], dict[float, list[Run]]] = {}
    for run in runs:
        hparams = run.identity.get("hparams", {})
        if run.is_shown and parameter in hparams:
            fixed = json.dumps({k: v for k, v in hparams.items() if k not in (parameter, "seed")}, sort_keys=True)
            key = (run.model, run.setting, run.identity["editor"], run.data, fixed)
            groups.setdefault(key, {}).setdefault(hparams[parameter], []).append(run)
    return [
        Sweep(model, setting, editor, data, json.loads(fixed), dict(sorted(by_value.items())))
        for (model, setting, editor, data, fixed), by_value in groups.items()
        if len(by_value) >= LEAST
    ]


def without_sweeps(runs: Sequence[Run]) -> list[Run]:
    """The runs that compare editors: a labelled run that is one value of a sweep is no editor of its own."""
    swept = {id(run) for parameter in SWEPT for sweep in sweeps(runs, parameter) for run in sweep.all_runs}
    return [run for run in runs if not (run.identity.get("label") and id(run) in swept)]


def draw(study: Study, parameter: str, axis: str) -> Iterator[tuple[str, Figure]]:
    """A figure for each model, setting and editor that was swept, with its data sets side by side."""
    found = sweeps(study.runs, parameter)
    for model, setting, editor in sorted({(s.model, s.setting, s.editor) for s in found}):
        members = [s for s in found if (s.model, s.setting, s.editor) == (model, setting, editor)]
        members = [s for data in in_order(s.data for s in members) for s in members if s.data == data]
        yield slug(model, setting, *([] if editor == "PaCKE" else [editor])), _figure(members, axis)


def _figure(members: Sequence[Sweep], axis: str) -> Figure:
    first = members[0]
    columns = min(2, len(members))
    height = 2.5 * -(-len(members) // 2) + 0.35
    figure = style.new(style.PAGE if columns == 2 else style.COLUMN + 0.4, height)
    panels = figure.subplots(-(-len(members) // 2), columns, sharey=True, squeeze=False).ravel()
    labels, numbers = [], []
    for axes, sweep in zip(panels, members, strict=False):
        kept = shared_records(sweep.all_runs)
        numbers.append(len(kept))
        points = {value: [c for run in runs for c in run.final if c["case_id"] in kept]
                  for value, runs in sweep.runs.items()}  # fmt: skip
        means = {value: means_of(cases, "easyedit") for value, cases in points.items()}
        ends = []
        for i, (metric, look) in enumerate(LINES.items()):
            y = [100 * means[value][metric].mean for value in means]
            error = [100 * means[value][metric].error for value in means]
            x = [place + 0.06 * (i - 1.5) for place in range(len(means))]  # so that errors do not hide each other
            axes.errorbar(
                x, y, error, color=look.color, marker=look.marker, linestyle=look.line, linewidth=look.width,
                elinewidth=0.6, markeredgecolor="white", label=metric,
            )  # fmt: skip
            ends.append(style.Label(x[-1], y[-1], metric, look))
        labels.append((axes, ends))
        axes.set_xticks(range(len(means)), [f"{value:,g}" for value in means])
        axes.set_ylim(-4, 104)
        axes.grid(axis="y")
        axes.set_title(f"{title(sweep.data)}{_apart(sweep, members)}, n = {len(kept)}")
        axes.set_xlabel(axis)
    for axes in panels[::columns]:
        axes.set_ylabel(f"{first.editor}: percent, ± standard error")
    for axes in panels[len(members) :]:
        axes.set_axis_off()
    runs = [run for sweep in members for run in sweep.all_runs]
    style.note(figure, provenance(first.model, first.setting, counted(numbers), runs))
    for axes, ends in labels:
        style.label_beside(axes, ends)
    return figure


def _apart(sweep: Sweep, members: Sequence[Sweep]) -> str:
    """What tells a sweep from others of the same data set."""
    others = [s.fixed for s in members if s.data == sweep.data]
    differs = [k for k in sweep.fixed if len({json.dumps(of.get(k)) for of in others}) > 1]
    return "".join(f", {k} {sweep.fixed[k]}" for k in differs)
