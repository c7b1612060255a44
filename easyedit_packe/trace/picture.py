"""Pictures of a trace and of an overlap, with matplotlib (the extra `figures`)."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..cache import written_whole
from ..errors import needs
from .overlap import COLLIDES, Overlap
from .trace import Trace, name_of

KEY, VALUE, OTHER, TEXT = "#1f6fb4", "#d9622b", "#c9ced6", "#2b2f36"
SIDE = {"key": -0.21, "value": 0.21}
"""Where the nodes of a kind stand in their layer's column."""
LOWEST = 1e-3
"""Share of all scores that lie below the picture, and are drawn at its lower edge."""
NAMED = 24
"""Facts that a heat map names; of more it says the numbers only."""
WRITTEN = 16
"""Facts whose overlaps are also written into the heat map."""
DARK = 25.0
"""Percent that the darkest colour of a heat map stands for, at least."""
WIDTH, NAME = 80, 40
"""Most characters of a prompt in a title, and beside a heat map."""


def save(figure: Any, file: Path) -> Path:
    """Write a figure as PNG, with 128 colours: a third of the size. The file appears whole or not at all."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    with written_whole(file) as part:
        Image.open(drawn).convert("RGB").quantize(128).save(part, format="png", optimize=True)
    return file


def draw_path(trace: Trace) -> Any:
    """A column a layer; in it the keys on the left and the values on the right, each at the height of its score.

    Returns:
        A matplotlib Figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure, axes = _figure(11, 4.9, "constrained")
    layers = trace.layers
    for layer in layers[::2]:
        axes.axvspan(layer - 0.5, layer + 0.5, color="#f3f5f9", zorder=0)
    everything = np.concatenate([score.numpy() for score in trace.scores.values()])
    signed = bool((everything < 0).any())
    positive = everything[everything > 0]  # none where the model is so sure that no gradient is left
    floor = -np.inf if signed or not len(positive) else float(np.quantile(positive, LOWEST))
    jitter = np.random.default_rng(0).uniform(-0.13, 0.13, max(m.num_nodes for m in trace.modules))
    for m in trace.modules:
        x, score = m.layer + SIDE[m.kind], trace.scores[m.name].numpy().clip(floor)
        critical, negative = trace.nodes.critical[m.name].numpy(), trace.nodes.negative[m.name].numpy()
        color = KEY if m.kind == "key" else VALUE
        axes.plot(x + jitter[: m.num_nodes], score, ".", color=OTHER, markersize=1.6, markeredgewidth=0, zorder=1)
        axes.plot(np.full(len(negative), x), score[negative], "x", color=TEXT, markersize=4.5, mew=1.1, zorder=3)
        axes.plot(np.full(len(critical), x), score[critical], "o", color=color, ms=4.2, mec="white", mew=0.4, zorder=3)
        axes.plot(x, score[critical[0]], "o", color=color, ms=6.5, mec=TEXT, mew=0.9, zorder=4)
    axes.plot(*zip(*((m.layer + SIDE[m.kind], s) for m, _, s in trace.path), strict=True), color=TEXT, lw=1.1, zorder=2)

    if signed:
        axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(np.quantile(np.abs(everything), 0.9))))
    else:
        axes.set_yscale("log" if len(positive) else "linear")
        axes.set_ylim(0.8 * floor if len(positive) else None, None)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(which="minor", length=0)
    axes.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
    axes.set_xticks(layers)
    axes.tick_params(labelsize=11, colors=TEXT, length=0)
    axes.set_xlabel("layer", fontsize=13, color=TEXT)
    axes.set_ylabel("score of a node for this edit", fontsize=12, color=TEXT)
    axes.set_title(name_of(trace, WIDTH), fontsize=15, color=TEXT, pad=32, parse_math=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    each = {kind: len(next(iter(sets.values()))) for kind, sets in vars(trace.nodes).items()}
    axes.plot([], [], "-o", color=TEXT, mfc="none", label="best path")
    axes.plot([], [], "o", color=KEY, label=f"T+: {each['critical']} keys a layer")
    axes.plot([], [], "o", color=VALUE, label=f"and {each['critical']} values")
    axes.plot([], [], "x", color=TEXT, label=f"T−: {each['negative']} of each")
    axes.plot([], [], "s", color=OTHER, ms=5, label=f"the others, of {trace.nodes_a_layer} each")
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False, fontsize=11.5, labelcolor=TEXT,
        handletextpad=0.4, columnspacing=1.6,
    )  # fmt: skip
    return figure


def draw_overlap(overlap: Overlap) -> Any:
    """A heat map of what each two facts have in common, those that collide in a frame; as `draw_path`."""
    n = len(overlap.traces)
    named = n <= NAMED
    side = min(9.0, max(2.0, 0.42 * n)) if named else 6.5
    figure, axes = _figure(side + (5.6 if named else 1.9), side + 0.9, "compressed")
    shown = 100 * overlap.jaccard.numpy()
    np.fill_diagonal(shown, np.nan)
    most = max(DARK, float(np.nanmax(shown)))
    image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=most, extent=(0.5, n + 0.5, n + 0.5, 0.5))
    axes.set_facecolor("#f3f5f9")
    if named:
        axes.set_xticks(range(1, n + 1))
        names = [f"{name_of(t, NAME)}  {i}" for i, t in enumerate(overlap.traces, 1)]
        axes.set_yticks(range(1, n + 1), names, parse_math=False)
    else:
        axes.set_xlabel("fact", fontsize=11, color=TEXT)
        axes.set_ylabel("fact", fontsize=11, color=TEXT)
    for p in overlap.pairs:
        for x, y in ((p.first + 1, p.second + 1), (p.second + 1, p.first + 1)):
            if named and p.collides:
                axes.add_patch(_frame(x, y))
            if n <= WRITTEN:
                color = "white" if 100 * p.jaccard > 0.6 * most else TEXT
                axes.text(x, y, f"{100 * p.jaccard:.0f}", ha="center", va="center", fontsize=9, color=color)
    axes.tick_params(labelsize=10, colors=TEXT, length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.locator = _few_ticks()
    bar.update_ticks()
    bar.outline.set_visible(False)
    bar.set_label("T+ in common,\nJaccard index in percent", fontsize=10, color=TEXT)
    bar.ax.tick_params(labelsize=10, colors=TEXT, length=0)
    if named and any(p.collides for p in overlap.pairs):
        axes.set_xlabel(f"framed: they share {COLLIDES:.0%} of T+ or more", fontsize=10, color=TEXT)
    return figure


def _frame(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor=VALUE, linewidth=1.6)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _figure(width: float, height: float, layout: Literal["constrained", "compressed"]) -> tuple[Any, Any]:
    needs("matplotlib", "figures")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, facecolor="white", layout=layout)
    return figure, figure.subplots()
