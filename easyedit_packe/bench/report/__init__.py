"""Finished runs as the paper's tables: Markdown, CSV and LaTeX. Never loads a model."""

from .means import tidy
from .output import one_line, write_report
from .runs import Run, find_runs
from .tables import cost_table, curve_table, main_table
from .text import markdown
from .typeset import latex

__all__ = [
    "Run",
    "cost_table",
    "curve_table",
    "find_runs",
    "latex",
    "main_table",
    "markdown",
    "one_line",
    "tidy",
    "write_report",
]
