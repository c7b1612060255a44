"""How every figure looks: its colours, its size in print, its fonts; and how it is written, by the same rows as the
same bytes."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import needs
from ..editors import EDITORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9
"""Widths of a column and of a page, in inches."""

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
"""Okabe and Ito's colours, which the colour-blind can tell apart; without their yellow, which white paper swallows."""
TEXT, OTHER, FAINT = "#2b2f36", "#7d8590", "#c9ced6"

SMALL = 7.0
"""Points; the smallest print."""
RC: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": SMALL, "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "text.color": TEXT, "axes.labelcolor": TEXT, "axes.edgecolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT,
    "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "lines.linewidth": 1.1, "lines.markersize": 3.8, "lines.markeredgewidth": 0.5,
    "grid.color": "#e6e8ec", "grid.linewidth": 0.5, "axes.axisbelow": True,
    "figure.facecolor": "white", "savefig.facecolor": "white", "savefig.dpi": 300, "pdf.fonttype": 42,
    "svg.hashsalt": "easyedit_packe", "svg.fonttype": "none", "text.parse_math": False,
}  # fmt: skip
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Without dates and versions: a file says what its rows say, and nothing of when it was drawn."""


class Look(NamedTuple):
    """What tells one line or point from the others, also without its colour."""

    color: str
    marker: str
    line: Any
    width: float = 1.0


HUES, MARKERS, LINES = (
    (GREEN, PURPLE, ORANGE, SKY, BLACK),
    "s^vP<X>*hp8d",
    ("--", "-.", ":", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1))),
)
LOOKS = {
    "PaCKE": Look(BLUE, "o", "-", 1.7),
    "PaCKE+": Look(VERMILION, "D", "-", 1.7),
    **{
        name: Look(HUES[i // 2 % len(HUES)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, name in enumerate(name for name in EDITORS if name not in ("PaCKE", "PaCKE+"))
    },
}
"""An editor looks the same in every figure."""


def look(editor: str) -> Look:
    """Of an editor, or of a labelled variant of it."""
    return LOOKS.get(editor.partition(" (")[0], Look(OTHER, "o", "-"))


@contextmanager
def applied() -> Iterator[None]:
    """While active, what is drawn and saved has this style, whatever the user's own matplotlib settings are.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    needs("matplotlib", "figures")
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def new(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def note(figure: Figure, text: str) -> None:
    """A small line at the foot: what the rows are."""
    characters = int(figure.get_figwidth() * 72 / (0.56 * SMALL))
    lines = "\n".join(textwrap.wrap(text, characters, break_on_hyphens=False))
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=SMALL, color=OTHER)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png, STEM.svg and STEM.pdf."""
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in METADATA]
    for file, metadata in zip(files, METADATA.values(), strict=True):
        figure.savefig(file, metadata=metadata)
        if file.suffix == ".svg":
            file.write_text(_smaller(file.read_text(encoding="utf-8")), encoding="utf-8")
    return files


def _smaller(svg: str) -> str:
    """Without indentation, and with places to a hundredth of a point: an eighth of a figure with many lines."""
    return re.sub(r"\n +", "\n", re.sub(r"(\d\.\d\d)\d{2,}", r"\1", svg))


class Label(NamedTuple):
    """What the point x, y of some axes is, and looks like."""

    x: float
    y: float
    text: str
    look: Look


def label_beside(axes: Axes, labels: Sequence[Label]) -> None:
    """Write what points are to the right of the axes, each as near to its height as the others let it be.

    Called last: the limits of the axes have to be final.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # lays out, so that the height is known
    line = 1.25 * SMALL / 72 * figure.dpi / axes.get_window_extent().height
    starts = [axes.transAxes.inverted().transform(axes.transData.transform((at.x, at.y))) for at in labels]
    order = sorted(range(len(labels)), key=lambda i: (starts[i][1], -i))
    beside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    leads: list[Any] = []
    for i, y in zip(order, spread([starts[i][1] for i in order], line), strict=True):
        at = labels[i]
        leads += starts[i], (1.04, y), (math.nan, math.nan)
        axes.plot(1.04, y, color=at.look.color, marker=at.look.marker, **beside)
        axes.annotate(at.text, (1.04, y), (4, 0), "axes fraction", "offset points", va="center_baseline")
    axes.plot(*zip(*leads, strict=True), color=FAINT, linewidth=0.5, zorder=0.5, **beside)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places from 0 to 1, at least `gap` apart, as near as can be to those that are wanted, which are in order.

    Where there is no room for all, the gaps are smaller, and equal.
    """
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    blocks: list[list[float]] = []  # of neighbours that touch; each lies at the mean of what its members want
    for i, y in enumerate(wanted):
        blocks.append([y - i * gap])
        while len(blocks) > 1 and sum(blocks[-2]) / len(blocks[-2]) > sum(blocks[-1]) / len(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    free = [sum(block) / len(block) for block in blocks for _ in block]
    room = 1 - gap * (len(wanted) - 1)
    return [min(max(y, 0.0), room) + i * gap for i, y in enumerate(free)]
