"""The tables of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from ...errors import needs
from . import paper
from .means import COLUMNS, ORIGINAL, columns_of, means_of, percent
from .runs import Run, editor_place

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "?"
LESS_IS_BETTER = ("drawn", "kl")


def main_table(frame: pd.DataFrame, family: str, papers: bool = True, bold: str = "**{}**") -> pd.DataFrame:
    """The paper's layout for one model and setting: a row an editor; efficacy, locality, generality, score a data set.

    Cells are percentages with their standard error; the best editor's is bold, and one that rests on fewer of the n
    records than others of its row says so. Where the paper has the same model, its figure stands beside ours in
    brackets, or "n/c" where it was not measured in the same way (`paper.NOTE`).
    """
    needs("pandas", "bench")
    import pandas as pd

    part = frame[frame.family == family]
    table: dict[str, dict[str, str]] = {}
    for data in sorted(part.data.unique(), reverse=True):
        here = part[part.data == data]
        most = here.groupby("editor").n.max().to_dict()
        table[f"{data} n"] = {editor: str(n) for editor, n in most.items()}
        for metric in dict.fromkeys([*(c for c in columns_of(family) if (here.metric == c).any()), *here.metric]):
            column = here[here.metric == metric]
            # What rests on fewer records than the rest of its row is no comparison.
            whole = column[(column.editor != ORIGINAL) & (column.n == column.editor.map(most))]
            others = whole["mean"].round(4)
            best = others.min() if metric in LESS_IS_BETTER else others.max()
            cells = {}
            for r in column.itertuples():
                shown = percent if metric != "kl" else "{:.2f}".format
                error = f" ± {shown(r.se)}" if metric != "score" and r.n > 1 else ""
                fewer = f" (n = {r.n})" if r.n != most[r.editor] else ""
                text = f"{shown(r.mean)}{error}{fewer}"
                if r.editor != ORIGINAL and not fewer and round(r.mean, 4) == best:
                    text = bold.format(text)
                editor = "original" if r.editor == ORIGINAL else r.editor
                cells[r.editor] = text + (
                    paper.beside(r.model, r.setting, editor, data, family, metric) if papers else ""
                )
            table[f"{data} {metric}"] = cells
    editors = sorted(set(part.editor), key=editor_place)
    columns = {name: [cells.get(e, "/") for e in editors] for name, cells in table.items()}
    return pd.DataFrame({"editor": editors, **columns})


def costs(run: Run) -> dict[str, Any] | None:
    """What a run's edits cost; None where it has made none.

    Returns:
        seconds: median over calls of a call's seconds, divided by the records that the editor took.
        megabytes: the most that any call needed beyond what was in use before it; None where each took its target
            vectors from the store.
        weights: weights changed by a call, or by all calls where they are not rolled back.
        perplexity: that of held-out text after the edits, over the unedited model's: infinite where the model has
            collapsed, None where one of them is not known.
        growth: the largest ratio of an edited matrix's norm to what it was; None where it was not measured.
        refused: records that the editor did not take.
    """
    if not run.edits:
        return None
    consecutive = run.identity["protocol"] == "consecutive"
    under_way = consecutive and len(run.edits) < run.about["num_records"]
    taken = [e for e in run.edits if _accepted(e)] or run.edits  # what was refused took no time, and changed nothing
    last = run.edits[-1:] if consecutive else taken
    bytes_ = [e["memory_bytes"] for e in taken if e.get("memory_bytes") is not None]
    ratios = [ratio for ratio in (_growth(e, run.about_unedited) for e in last) if ratio is not None]
    return {
        "seconds": median(e["seconds"] / max(_accepted(e), 1) for e in taken),
        "megabytes": max(bytes_) / 1e6 if bytes_ else None,
        "weights": int(median(e["weights_changed"] for e in last)),
        "perplexity": median(ratios) if ratios and not under_way else None,
        "growth": median(e["norm_growth"] for e in last) if all("norm_growth" in e for e in last) else None,
        "refused": len(run.refused),
    }


def _accepted(edit: dict[str, Any]) -> int:
    """Records of a call that the editor took."""
    return len(edit["case_ids"]) - len(edit["refused"])


def _growth(edit: dict[str, Any], unedited: dict[str, Any]) -> float | None:
    """Of the perplexity: the geometric mean over the kinds of held-out text, infinite where the model collapsed on
    one; of the single text of version 0.1 where a row has that."""
    if "perplexities" in edit:
        now, before = edit["perplexities"], unedited.get("perplexities", {}).get(edit["held_out"])
    else:
        now, before = {"": edit.get("perplexity")}, {"": unedited["perplexity"]} if "perplexity" in unedited else None
    if before is None:
        return None
    if not all(now.values()):
        return math.inf
    return math.exp(sum(math.log(now[kind] / before[kind]) for kind in before) / len(before))


def cost_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Seconds an edit, peak memory, weights changed, perplexity and refused records of each run; see `costs`.

    Times are of one machine, which may have done other things at the time: read them as ratios within a table.
    """
    needs("pandas", "bench")
    import pandas as pd

    rows = []
    for run in sorted(runs, key=lambda r: (editor_place(r.name)[0], r.data, r.place)):
        found = costs(run)
        if found is not None:
            rows.append(
                {
                    "editor": run.name,
                    "data": run.data,
                    "seconds / edit": f"{found['seconds']:.2f}",
                    "peak MB": _number(found["megabytes"], ",.0f"),
                    "weights changed": f"{found['weights']:,}",
                    "perplexity ratio": _number(found["perplexity"], ".3f"),
                    "norm ratio": _number(found["growth"], ".3f"),
                    "refused": f"{found['refused']} of {run.about['num_records']}" if found["refused"] else "0",
                }
            )
    table = pd.DataFrame(rows)
    unknown = [c for c in ("peak MB", "norm ratio") if c in table and (table[c] == UNKNOWN).all()]
    return table.drop(columns=unknown)  # no column, where no run could tell it


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def curve_points(run: Run) -> dict[int, list[dict[str, Any]]]:
    """The rows after each number of consecutive edits that was measured, where more than one was."""
    points: dict[int, list[dict[str, Any]]] = {}
    for case in run.cases:
        points.setdefault(case["after"], []).append(case)
    return dict(sorted(points.items())) if len(points) > 1 else {}


def curve_table(runs: Sequence[Run]) -> pd.DataFrame:
    """EasyEdit's metrics of all records so far after 1, 10, ... consecutive edits, where a run measured them all."""
    needs("pandas", "bench")
    import pandas as pd

    rows = []
    for run in sorted(runs, key=lambda r: r.place):
        for k, cases in curve_points(run).items():
            if len(cases) == k:
                found = means_of(cases, "easyedit")
                shown = {m: percent(found[m].mean) if m in found else "/" for m in COLUMNS}
                rows.append({"editor": run.name, "data": run.data, "edits": k, **shown})
    return pd.DataFrame(rows)
