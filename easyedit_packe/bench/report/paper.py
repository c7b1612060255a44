"""The paper's figures, beside ours where the two can be compared."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from .runs import JUDGED_BY

FILE = Path(__file__).parent.parent / "paper_tables.csv"
NOT_COMPARABLE = "n/c"
NOTE = (
    f"[{NOT_COMPARABLE}]: the paper has a figure for this model, editor and data set that cannot stand beside ours: "
    "it is of another metric family (table 1 takes its baselines from the AlphaEdit paper, where efficacy compares "
    "probabilities and locality is accuracy against the truth), or of another number of edits (table 2: 3,000)."
)
SETTINGS = ("batch of 100", "consecutive, 3000 edits")
"""Those that the paper measures."""


@cache
def rows() -> tuple[dict[str, str], ...]:
    """The paper's tables 1 and 2, a row for each editor and data set, in the paper's order."""
    with FILE.open(encoding="utf-8", newline="") as f:
        return tuple(csv.DictReader(f))


@cache
def _figures() -> dict[tuple[str, str, str, str], dict[str, str]]:
    return {(row["model"], row["protocol"], row["editor"], row["data"]): row for row in rows()}


def figures_of(model: str, protocol: str, editor: str, data: str) -> dict[str, str]:
    """The paper's row; empty where it has none.

    Args:
        model, editor: as in the paper's file; the unedited model is "original".
    """
    return _figures().get((model, protocol, editor, data), {})


def beside(model: str, setting: str, editor: str, data: str, family: str, metric: str) -> str:
    """The paper's figure in brackets, "[n/c]" where it is not comparable, nothing where the paper has none.

    Args:
        editor: as in the paper; the unedited model is "original".
    """
    protocol = setting.split(" ")[0].rstrip(",")
    row = figures_of(Path(model).name, protocol, editor, data)
    if not row.get(metric):
        return ""
    same = row["family"] == family and setting.partition(JUDGED_BY)[0] in SETTINGS
    return f" [{float(row[metric]):.2f}]" if same else f" [{NOT_COMPARABLE}]"
