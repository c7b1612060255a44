"""Figure 4 of the paper: how much the nodes of T+ count in each layer, keys and values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..report.runs import Run
from . import style
from .study import Missing, Study, counted, in_order, provenance, slug, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = Missing("scores of `packe importance`", "packe importance data=zsre n=100")
KINDS = {"key": style.BLUE, "value": style.VERMILION}
PERCENTILES = (5, 25, 50, 75, 95)
"""Where the lower whisker ends, the box, the median, the box, and the upper whisker."""

Stroke = tuple[list[float], list[float]]
"""Its points' x, and y."""


def draw(study: Study) -> Iterator[tuple[str, Figure]]:
    """A box a layer, over the nodes of T+ of all facts."""
    settings = [(t.model, t.identity["hparams"]["score"], t.identity["hparams"]["num_critical_paths"], t)
                for t in study.tracings if t.cases]  # fmt: skip
    for model, score, size in sorted({(model, score, size) for model, score, size, _ in settings}):
        members = [t for *of, t in settings if of == [model, score, size]]
        yield slug(model, score, f"{size} nodes"), _figure(model, score, size, members)


def by_layer(tracings: Sequence[Run], kind: str) -> list[list[float]]:
    """In each layer the scores of all T+ nodes of all facts."""
    rows = [case[kind] for tracing in tracings for case in tracing.cases]
    return [[score for scores in of for score in scores] for of in zip(*rows, strict=True)]


def _figure(model: str, score: str, size: int, members: Sequence[Run]) -> Figure:
    data = in_order(t.data for t in members)
    figure = style.new(style.PAGE, 1.75 * len(data) + 0.55)
    grid = figure.subplots(len(data), len(KINDS), sharex=True, sharey=True, squeeze=False)
    for row, name in zip(grid, data, strict=True):
        here = [t for t in members if t.data == name]
        facts = len({case["case_id"] for t in here for case in t.cases})
        for axes, (kind, color) in zip(row, KINDS.items(), strict=True):
            scores = by_layer(here, kind)
            _boxes(axes, scores, color)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.grid(axis="y")
            axes.set_title(f"{title(name)}, {kind} nodes, n = {facts} facts")
        row[0].set_ylabel(f"score of a node ({score})")
    for axes in grid[-1]:
        axes.set_xlabel("layer")
        axes.set_xlim(-0.8, len(by_layer(members, "key")) - 0.2)
    n = counted((len(t.cases) for t in members), f"facts, {size} nodes of each kind a layer")
    about = f"Box: quartiles and median; whiskers: {PERCENTILES[0]}th to {PERCENTILES[-1]}th percentile."
    style.note(figure, f"{provenance(model, 'before any edit', n, members)} {about}")
    return figure


def _boxes(axes: Axes, scores: Sequence[Sequence[float]], color: str) -> None:
    """Three lines for all layers, with gaps: a picture of a box an artist would be several times the size."""
    whiskers: list[Stroke] = []
    boxes: list[Stroke] = []
    medians: list[Stroke] = []
    for i, of in enumerate(scores):
        low, q1, median, q3, high = np.percentile(of, PERCENTILES)
        left, right = i - 0.33, i + 0.33
        whiskers += [([i, i], [low, q1]), ([i, i], [q3, high])]
        boxes.append(([left, right, right, left, left], [q1, q1, q3, q3, q1]))
        medians.append(([left, right], [median, median]))
    lines = {"whiskers": (whiskers, color, 0.6), "boxes": (boxes, color, 0.6), "medians": (medians, style.TEXT, 1.1)}
    for name, (strokes, ink, width) in lines.items():
        x, y = ([v for stroke in strokes for v in (*stroke[axis], math.nan)] for axis in (0, 1))
        axes.plot(x, y, label=name, color=ink, linewidth=width, solid_capstyle="butt")
