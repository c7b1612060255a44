"""A report's tables as cells, each with the number by which a reader can sort it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from ..highest import Highest, in_words
from ..tables import LESS_IS_BETTER

if TYPE_CHECKING:
    import pandas as pd

BETWEEN = " ± "


@dataclass(frozen=True)
class Cell:
    """What stands in it.

    Attributes:
        text, error: the figure, and what stands behind it.
        value: the mean, by which it sorts, as it is in the CSV; None where there is none.
        mark: "best" where the text report is bold; "tied" where it names the editor as tied with the best.
    """

    text: str
    error: str = ""
    value: float | None = None
    mark: Literal["", "best", "tied"] = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of which names the row.

    Attributes:
        over: what stands above the heads but the first, and over how many of them: data sets.
        heads: a column's name, and whether less is better in it.
    """

    title: str
    about: str
    over: list[tuple[str, int]]
    heads: list[tuple[str, bool]]
    rows: list[list[Cell]]
    below: str = ""


def family_table(
    table: pd.DataFrame, frame: pd.DataFrame, family: str, title: str, about: str, best: Sequence[Highest]
) -> Table:
    """One family's table, with the exact means that it shows rounded.

    Args:
        table: of `main_table`.
        frame: of `tidy`, from which it was made.
        best: of `highest`.
    """
    part = frame[frame.family == family]
    means = {(r.editor, r.data, r.metric): six_digits(r.mean) for r in part.itertuples()}
    tied = {(editor, h.data, h.metric) for h in best for editor in h.ties}
    names = [tuple(column.rsplit(" ", 1)) for column in table.columns[1:]]
    rows = []
    for editor, *texts in table.itertuples(index=False):
        cells = [
            _cell(text, means.get((editor, data, metric)), (editor, data, metric) in tied)
            for (data, metric), text in zip(names, texts, strict=True)
        ]
        rows.append([Cell(editor), *cells])
    over = [(data, len(list(same))) for data, same in groupby(data for data, _ in names)]
    heads = [("editor", False), *((metric.replace("_", " "), metric in LESS_IS_BETTER) for _, metric in names)]
    return Table(title, about, over, heads, rows, in_words(best))


def plain_table(table: pd.DataFrame, title: str, about: str) -> Table:
    """Of text alone; it sorts by the number that a cell begins with."""
    rows = [[str(text) for text in row] for row in table.itertuples(index=False)]
    cells = [[Cell(first), *(_cell(text, None) for text in rest)] for first, *rest in rows]
    return Table(title, about, [], [(column, False) for column in table.columns], cells)


def six_digits(value: float) -> float | None:
    """As the CSV has it."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _cell(text: str, mean: float | None, tied: bool = False) -> Cell:
    bold, text = "**" in text, text.replace("**", "")
    figure, between, error = text.partition(BETWEEN if BETWEEN in text else " ")
    value = mean if mean is not None else _number(figure)
    return Cell(figure, between.lstrip(" ") + error, value, "best" if bold else "tied" if tied else "")


def _number(text: str) -> float | None:
    """None of what is no number; and of infinity, which so stands last, behind all that can be measured."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
