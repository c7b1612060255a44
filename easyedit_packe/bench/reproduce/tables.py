"""The paper's tables from the runs that are done, with the paper's own figures in brackets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import needs
from ..data import DataError
from ..report import find_runs, paper, write_report
from ..report.means import COLUMNS, FAMILIES, Mean, means_of, percent
from ..report.runs import Run
from ..report.tables import costs
from ..report.text import table_text
from .parts import ORIGINAL, Part
from .plan import Item, LeftOut, Where

if TYPE_CHECKING:
    import pandas as pd

NOTE = (
    "Ours, percent ± standard error, then the paper's in brackets. [ ]: the same protocol, metric and number of edits. "
    "[≠ ]: the paper's figure is of another number of edits{sizes}, or of another metric, and does not compare: table "
    "1 takes its baselines from the AlphaEdit paper, where on CounterFact all three compare probabilities and on ZsRE "
    "locality is accuracy against the truth; so each way of measuring has a table of its own here."
)
NOT_RUN = "/"


def write_tables(parts: Sequence[Part], left: Sequence[LeftOut], runs: Sequence[Item], where: Where) -> str:
    """The text; also written to `tables/reproduce.md` below the runs, with the whole report of `packe report`."""
    found = {item: run for item in runs if (run := _run(item, where)) is not None}
    blocks = [f"# {where.name}: the paper's tables, and ours"]
    if not found:
        blocks.append("No run is complete.")
    for part in parts:
        of = {(item.editor, item.data): run for item, run in found.items() if item.part.name == part.name}
        if of:
            blocks.append(f"## {part.name.capitalize()}")
            blocks += _seconds(part, of) if part.name.startswith("figure") else _families(part, of, where)
        blocks += [_left(part, left)]
    text = "\n\n".join(block for block in blocks if block) + "\n"
    folder = Path(where.out) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    if found:
        write_report([where.out], folder)
    (folder / "reproduce.md").write_text(text, encoding="utf-8")
    return text


def _run(item: Item, where: Where) -> Run | None:
    try:
        folder = item.settings(where).folder
        runs = find_runs([folder.parents[1]]) if item.is_done(where) else []
    except DataError:
        return None
    return next((run for run in runs if Path(run.folder).name == folder.name and _is(run, item)), None)


def _is(run: Run, item: Item) -> bool:
    return run.identity["protocol"] == item.part.protocol and run.identity["editor"] == item.editor


def _families(part: Part, runs: dict[tuple[str, str], Run], where: Where) -> Iterable[str]:
    """A table for each of the two ways in which the paper counts."""
    n = next(iter(runs.values())).about["num_records"]
    sizes = f" ({n:,} here, {part.sizes[-1]:,} there)" if n != part.sizes[-1] else ""
    for family in ("easyedit", "rome"):
        yield f"{FAMILIES[family]}."
        yield table_text(main_table(part, runs, where.name, family, same=not sizes))
    yield NOTE.format(sizes=sizes)


def main_table(
    part: Part, runs: dict[tuple[str, str], Run], model: str, family: str, same: bool = True
) -> pd.DataFrame:
    """The paper's layout: a row an editor, in its order.

    Args:
        runs: (editor, data set) -> a complete run.
        model: its name in the paper's file.
        family: of metrics.
        same: the number of edits is the paper's.
    """
    needs("pandas", "bench")
    import pandas as pd

    table: dict[str, list[str]] = {"editor": [ORIGINAL, *part.editors]}
    for data in part.data:
        shown = {editor: means_of(run.final, family) for (editor, of), run in runs.items() if of == data}
        some = next((run for (_, of), run in runs.items() if of == data), None)
        if some is not None:
            asked = some.measured
            known = [row for case, row in some.unedited.items() if case in asked]
            shown[ORIGINAL] = means_of(known, family)
        for metric in COLUMNS:
            cells = []
            for editor in table["editor"]:
                ours = _ours(shown.get(editor, {}).get(metric), metric)
                cells.append(f"{ours}{_theirs(part, model, editor, data, family, metric, same)}")
            table[f"{data} {metric}"] = cells
    return pd.DataFrame(table)


def _ours(found: Mean | None, metric: str) -> str:
    if found is None:
        return NOT_RUN
    return percent(found.mean) + (f" ± {percent(found.error)}" if found.n > 1 and metric != "score" else "")


def _theirs(part: Part, model: str, editor: str, data: str, family: str, metric: str, same: bool) -> str:
    """The authors' program makes the paper's "consecutive" figures by what is called epochs here."""
    protocol = "consecutive" if part.protocol == "epochs" else part.protocol
    row = paper.figures_of(model, protocol, editor, data)
    if not row.get(metric):
        return ""
    equal = same and row["family"] == family
    return f" [{'' if equal else '≠ '}{float(row[metric]):.2f}]"


def _seconds(part: Part, runs: dict[tuple[str, str], Run]) -> Iterable[str]:
    """Figure 3: the median of the calls."""
    needs("pandas", "bench")
    import pandas as pd

    table: dict[str, list[str]] = {"editor": list(part.editors)}
    for data in part.data:
        of = [costs(runs[editor, data]) if (editor, data) in runs else None for editor in part.editors]
        table[f"{data} seconds / edit"] = [f"{cost['seconds']:.2f}" if cost else NOT_RUN for cost in of]
    yield table_text(pd.DataFrame(table))
    yield "Each edit by itself, of the unedited model, on this machine. The paper draws its times and prints no table."


def _left(part: Part, left: Sequence[LeftOut]) -> str:
    lines = [f"- not run: {gone.editor}: {gone.reason}" for gone in left if gone.part.name == part.name]
    return "\n".join(lines)
