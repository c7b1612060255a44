"""Draw what the rows suffice for, and say what they lack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import one_of
from ..editors import BenchError
from ..report.runs import Run, found_lines, runs_of, tracings_of
from . import contrast, curve, importance, nodes, seconds, style, tradeoff
from .study import Missing, Study

FIGURES = {
    "seconds": seconds, "importance": importance, "nodes": nodes, "contrast": contrast, "curve": curve,
    "tradeoff": tradeoff,
}  # fmt: skip
"""In the order of the paper, then our own; each module draws what of it the rows hold, by model and setting."""


class Drawn(NamedTuple):
    """Attributes: files: that were written. missing: figures for which the rows do not suffice."""

    files: list[Path]
    missing: dict[str, Missing]


def write_figures(paths: Iterable[Path], out: Path, editors: Sequence[str] = ()) -> Drawn:
    """Write every figure as OUT/FIGURE-MODEL-SETTING, each as PNG, SVG and PDF; the same rows give the same bytes.

    Args:
        paths: folders of `packe bench` and `packe importance`, and archives of `packe pack`.
        editors: only these; empty: all.

    Raises:
        BenchError: a path does not exist, or an editor has no run there. StoreError: an archive is damaged.
        MissingPackageError: matplotlib is not installed.
    """
    lines = found_lines(paths)
    runs = _of_editors(runs_of(lines), editors)
    study = Study(runs, tracings_of(lines))
    files: list[Path] = []
    missing: dict[str, Missing] = {}
    with style.applied():
        for name, figure in FIGURES.items():
            drawn = dict(figure.draw(study))
            if not drawn:
                missing[name] = figure.MISSING
            for situation, picture in drawn.items():
                out.mkdir(parents=True, exist_ok=True)
                files += style.save(picture, out / f"{name}-{situation}")
    return Drawn(files, missing)


def _of_editors(runs: Sequence[Run], editors: Sequence[str]) -> list[Run]:
    known = list(dict.fromkeys(run.identity["editor"] for run in runs))
    for name in editors:
        if name not in known:
            raise BenchError(f"no editor {name!r} in these runs; {one_of(name, known)}.")
    return [run for run in runs if not editors or run.identity["editor"] in editors]
