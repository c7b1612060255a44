"""A report as files, and a run as one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .means import METRICS, means_of, tidy
from .runs import find_runs
from .text import markdown
from .typeset import latex


def write_report(paths: Sequence[str | Path], out: Path | None = None) -> str:
    """The Markdown text; with `out`, also `report.md`, `report.csv` (tidy) and `report.tex` in that folder.

    Raises:
        BenchError: no run is there. StoreError: an archive is damaged. MissingPackageError: an extra is not installed.
    """
    runs = find_runs(paths)
    text = markdown(runs)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(text, encoding="utf-8")
        (out / "report.tex").write_text(latex(runs), encoding="utf-8")
        tidy(runs).to_csv(out / "report.csv", index=False, float_format="%.6g", lineterminator="\n")
    return text


def one_line(folder: Path) -> str:
    """What a person wants to see when a run ends; needs no package of the extras."""
    (run,) = find_runs([folder])
    found = means_of(run.final, "easyedit")
    figures = [f"{m} {found[m].mean:.3f}" for m in METRICS if m in found]
    refused = f", {len(run.refused)} refused" if run.refused else ""
    shown = ", ".join([*figures, f"n = {len(run.final)}"])
    return f"{run.name} {run.data} {run.setting}: {shown}{refused}; {folder}/"
