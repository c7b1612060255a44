"""Figures and tables that Markdown quotes from archived rows; `tables.py` explains how they are written."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sources import Figure, Missing, QuoteError, Study, source

from easyedit_packe.bench.report.typeset import DATA_NAMES

FENCE = re.compile(r"(^```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)
INSIDE = r"((?:(?!<!--|-->).)+?)"
FIGURE = re.compile(rf"(<!-- = {INSIDE} -->)((?:(?!<!--).)*?)(<!-- /= -->)", re.DOTALL)
TABLE = re.compile(rf"(<!-- table: {INSIDE}-->\n)((?:(?!<!--).)*?)(<!-- /table -->)", re.DOTALL)
Row = tuple[str, ...]
"""Values of a table's axes."""

MARKS = {"<!-- = ": FIGURE, "<!-- /= -->": FIGURE, "<!-- table:": TABLE, "<!-- /table -->": TABLE}


def rewritten(text: str, results: Path) -> str:
    """Markdown with every quote as the rows in `results` have it; code blocks stay as they are.

    Raises:
        QuoteError: a quote is not closed, or names nothing, or several things; with the line where it stands.
    """
    parts = FENCE.split(text)
    for i in range(0, len(parts), 2):
        first_line = "".join(parts[:i]).count("\n") + 1
        for mark, pattern in MARKS.items():
            if parts[i].count(mark) != len(pattern.findall(parts[i])):
                raise QuoteError(f"below line {first_line}: {mark!r} without its counterpart.")
        parts[i] = FIGURE.sub(_filled(figure_text, parts[i], first_line, results), parts[i])
        parts[i] = TABLE.sub(_filled(table_text, parts[i], first_line, results), parts[i])
    return "".join(parts)


def _filled(
    make: Callable[[str, Path], str], text: str, first_line: int, results: Path
) -> Callable[[re.Match[str]], str]:
    def fill(match: re.Match[str]) -> str:
        try:
            return match[1] + make(match[2], results) + match[4]
        except QuoteError as e:
            raise QuoteError(f"line {first_line + text[: match.start()].count(chr(10))}: {e}") from e

    return fill


def terms(text: str) -> list[str]:
    """What semicolons separate, each on one line."""
    return [" ".join(term.split()) for term in text.split(";") if term.strip()]


def figure_text(quote: str, results: Path) -> str:
    name, *asked = terms(quote)
    return source(results, name).figure(asked).text


# --- tables -----------------------------------------------------------------------------------------------------


def table_text(quote: str, results: Path) -> str:
    """A table from its lines `STUDY; terms`, `rows:`, `columns:` and, where the best shall be bold, `bold: yes`."""
    head, *lines = [line.strip() for line in quote.strip().splitlines() if line.strip()]
    options = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if not {"rows", "columns"} <= set(options) <= {"rows", "columns", "bold"}:
        raise QuoteError(f"a table has the lines rows, columns and perhaps bold; got {', '.join(options) or 'none'}.")
    name, *base = terms(head)
    study = source(results, name)
    if not isinstance(study, Study):
        raise QuoteError(f"tables are made of studies, and {name} is none.")
    axes = _apart("row", map(_axis, terms(options["rows"])))
    columns = _apart("column", map(_column, options["columns"].split("|")))
    rows = list(_rows(study, base, axes))
    if not rows:
        raise QuoteError(f"{name} has no such rows: {'; '.join([*base, options['rows']])}.")
    cells = {(row, title): _cell(study, [*base, *row, *column]) for row in rows for title, column in columns.items()}
    best = _best(cells, axes) if options.get("bold") == "yes" else set()
    texts = {at: cell.text if cell else "/" for at, cell in cells.items()}
    texts |= {at: f"**{texts[at]}**" for at in best}
    body = [[*(DATA_NAMES.get(v, v) for v in row), *(texts[row, title] for title in columns)] for row in rows]
    table = [[*axes, *columns], [*("---" for _ in axes), *("---:" for _ in columns)], *body]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in table) + "\n"


def _apart(what: str, named: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """By name; of two with the same name one would be lost."""
    found: dict[str, list[str]] = {}
    for name, terms_of in named:
        if name in found:
            raise QuoteError(f"two {what} titles are {name!r}; give one of them another (TITLE = TERMS).")
        found[name] = terms_of
    return found


def _axis(text: str) -> tuple[str, list[str]]:
    axis, _, values = text.partition("=")
    if axis.strip() not in Study.AXES:
        raise QuoteError(f"rows: expected any of {', '.join(Study.AXES)}, got {axis.strip()!r}.")
    return axis.strip(), [value.strip() for value in values.split(",") if value.strip()]


def _column(text: str) -> tuple[str, list[str]]:
    title, equals, asked = text.partition(" = ")
    found = terms(asked if equals else title)
    default = " ".join(DATA_NAMES.get(term, term) for term in found if term != "±")
    return title.strip() if equals else default, found


def _rows(study: Study, base: list[str], axes: dict[str, list[str]]) -> Iterator[Row]:
    """All combinations of the axes' values that the study has."""
    fixed = study.resolved(base)
    choices = []
    for axis, named in axes.items():
        for value in named:
            if not study.matching(axis, value):
                raise QuoteError(f"{study.name} has no {axis} {value!r}; known: {', '.join(study.values(axis))}.")
        choices.append([v for value in named for v in study.matching(axis, value)] or study.values(axis))
    for row in itertools.product(*choices):
        if study.has({**fixed, **dict(zip(axes, row, strict=True))}):
            yield row


def _cell(study: Study, asked: list[str]) -> Figure | None:
    """None where there is no such figure, as the unedited model's locality; a wrong term is an error all the same."""
    try:
        return study.figure(asked)
    except Missing:
        return None


def _best(cells: dict[tuple[Row, str], Figure | None], axes: dict[str, list[str]]) -> set[tuple[Row, str]]:
    """In each column the highest, to four digits, of the rows that differ in the editor alone."""
    rivals: dict[tuple[Any, ...], dict[tuple[Row, str], float]] = {}
    for (row, title), cell in cells.items():
        if cell is not None and cell.rank is not None:
            situation = tuple(v for v, axis in zip(row, axes, strict=True) if axis != "editor")
            rivals.setdefault((situation, title), {})[row, title] = round(cell.rank, 4)
    several = [found for found in rivals.values() if len(found) > 1]
    return {at for found in several for at, rank in found.items() if rank == max(found.values())}
