"""The whole report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import needs
from . import paper
from .environments import provenance
from .highest import TIES, highest, in_words
from .means import FAMILIES, ORIGINAL, tidy
from .notes import OWN_RECORDS, few_shared, notes
from .runs import Run
from .tables import cost_table, curve_table, main_table

if TYPE_CHECKING:
    import pandas as pd


def markdown(runs: Sequence[Run]) -> str:
    """For each model and setting both metric families, generation, costs, curves and notes.

    Raises:
        MissingPackageError: pandas or tabulate is not installed.
    """
    blocks = ["# Benchmark report"]
    frame = tidy(runs)
    for model, setting in sorted({(r.model, r.setting) for r in runs}):
        here = [r for r in runs if (r.model, r.setting) == (model, setting)]
        part = frame[(frame.model == model) & (frame.setting == setting)]
        blocks += [f"## {Path(model).name}, {setting}", *_section(here, part)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _section(runs: Sequence[Run], part: pd.DataFrame) -> Iterator[str]:
    yield provenance(runs)
    yield from few_shared(runs)
    compared = tied = False
    for family, title in FAMILIES.items():
        if (part.family == family).any():
            table = main_table(part, family)
            compared |= any(paper.NOT_COMPARABLE in cell for cell in table.to_numpy().ravel())
            yield f"{title}. Percent ± standard error."
            yield table_text(table)
            found = highest(runs, family)
            tied |= any(h.ties for h in found)
            yield in_words(found)
    if tied:
        yield TIES
    if compared:
        yield paper.NOTE
    if few_shared(runs):
        own = tidy(runs, common=False)
        yield OWN_RECORDS
        yield table_text(main_table(own[own.editor != ORIGINAL], "easyedit", bold="{}"))
    costs = cost_table(runs)
    if not costs.empty:
        yield "Costs."
        yield table_text(costs)
    curves = curve_table(runs)
    if not curves.empty:
        yield "On the way (EasyEdit's metrics of all records edited so far)."
        yield table_text(curves)
    yield "\n".join(notes(runs))


def table_text(table: pd.DataFrame) -> str:
    """A table as Markdown, numbers to the right."""
    needs("tabulate", "bench")
    right = ["left"] + ["right"] * (len(table.columns) - 1)
    table = table.map(lambda cell: cell.replace("|", r"\|") if isinstance(cell, str) else cell)  # of a user's label
    return table.to_markdown(index=False, disable_numparse=True, colalign=right)
