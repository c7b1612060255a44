"""Finished runs as the paper's tables: Markdown, CSV and LaTeX. Never loads a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .editors import EDITORS, BenchError
from .store import read_rows

FAMILIES = {
    "easyedit": "EasyEdit's metrics: token accuracy under teacher forcing; for locality, agreement with the unedited "
    "model",
    "rome": "ROME's and AlphaEdit's metrics: CounterFact compares probabilities, P(new) > P(old) and, for locality, "
    "P(true) > P(new); ZsRE is token accuracy, for locality against the true answer",
    "generation": "Greedy generation: the answer up to its natural stop is the target, exactly",
}
METRICS = ("efficacy", "locality", "generality")
ORIGINAL = "Original model"
NOT_COMPARABLE = "n/c"


@dataclass(frozen=True)
class Run:
    """One folder of `packe bench`, read."""

    folder: Path
    about: dict[str, Any]
    cases: list[dict[str, Any]]
    edits: list[dict[str, Any]]
    unedited: dict[int, dict[str, Any]]
    perplexity: float | None

    @property
    def identity(self) -> dict[str, Any]:
        return self.about["identity"]

    @property
    def setting(self) -> str:
        """What must be equal for two runs to stand in one table."""
        protocol, n = self.identity["protocol"], self.about["num_records"]
        if protocol == "batch":
            return f"batch of {min(self.identity['batch_size'], n)}"
        return protocol if protocol == "single" else f"{protocol}, {n} edits"

    @property
    def last(self) -> int:
        """Number of edits after which the final measurement is made; 0 where edits are rolled back."""
        return self.about["num_records"] if self.identity["protocol"] == "consecutive" else 0

    @property
    def final(self) -> list[dict[str, Any]]:
        return [c for c in self.cases if c["after"] == self.last]

    @property
    def is_complete(self) -> bool:
        return len(self.final) == self.about["num_records"]

    @property
    def refused(self) -> dict[str, str]:
        return {case: why for e in self.edits for case, why in e["refused"].items()}

    @property
    def name(self) -> str:
        label = self.identity.get("label") or ""
        return self.identity["editor"] + (f" ({label})" if label else "")


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Every run at or below the paths.

    Raises:
        BenchError: a path does not exist, or there is no run at all.
    """
    runs = []
    for path in map(Path, paths):
        if not path.exists():
            raise BenchError(f"no folder {str(path)!r}; give the out= folder of `packe bench`, or folders in it.")
        runs += [_read_run(p.parent) for p in sorted(path.rglob("run.json")) if "identity" in _json(p)]
    if not runs:
        raise BenchError(f"no run in {', '.join(map(str, paths))}; make one with `packe bench`.")
    return list({run.folder.resolve(): run for run in runs}.values())


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_run(folder: Path) -> Run:
    unedited = folder.parent.parent / "unedited"
    about = unedited / "run.json"
    return Run(
        folder,
        _json(folder / "run.json"),
        read_rows(folder / "cases.jsonl", ("after", "case_id")),
        read_rows(folder / "edits.jsonl", ("call",)),
        {row["case_id"]: row for row in read_rows(unedited / "cases.jsonl", ("case_id",))},
        _json(about)["perplexity"] if about.is_file() else None,
    )


def tidy(runs: Sequence[Run], common: bool = True) -> pd.DataFrame:
    """Means as one row for each (model, setting, data, editor, family, metric).

    Args:
        common: take only the records that all editors of the same model, setting and data have been measured on, so
            that rows can be compared; otherwise each editor's own records.

    Returns:
        columns model, setting, data, editor, family, metric, mean, se, n, seeds; the unedited model is the editor
        "Original model", without locality in EasyEdit's family, which it defines. `score` is the mean of the metrics.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        if run.is_complete or run.identity["protocol"] == "single":
            groups.setdefault((run.identity["model"], run.setting, run.identity["data"]), []).append(run)
    rows: list[dict[str, Any]] = []
    for (model, setting, data), members in groups.items():
        measured = [{c["case_id"] for c in run.final} for run in members]
        shared = set.intersection(*measured)
        base = {"model": model, "setting": setting, "data": data}
        by_editor: dict[str, list[Run]] = {}
        for run in members:
            by_editor.setdefault(run.name, []).append(run)
        kept = shared if common else set.union(*measured)
        before = [row for case, row in members[0].unedited.items() if case in kept]
        rows += _means({**base, "editor": ORIGINAL, "seeds": 1}, before)
        for name, same in by_editor.items():
            cases = [c for run in same for c in run.final if not common or c["case_id"] in shared]
            rows += _means({**base, "editor": name, "seeds": len(same)}, cases)
    frame = pd.DataFrame(
        rows, columns=["model", "setting", "data", "editor", "seeds", "family", "metric", "mean", "se", "n"]
    )
    order = {name: i for i, name in enumerate([ORIGINAL, *EDITORS])}
    return frame.sort_values("editor", key=lambda c: c.map(lambda n: order.get(n, 99)), kind="stable")


def _means(base: dict[str, Any], cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for family in FAMILIES:
        values = [{"case_id": c["case_id"], **c[family]} for c in cases if family in c]
        if not values:
            continue
        by_case = (
            pd.DataFrame(values).groupby("case_id").mean(numeric_only=True)
        )  # seeds of a record are no new records
        present = [m for m in METRICS if m in by_case]
        by_case["score"] = by_case[present].mean(axis=1)
        for metric in [*present, "score"]:
            column = by_case[metric]
            rows.append(
                {
                    **base,
                    "family": family,
                    "metric": metric,
                    "mean": column.mean(),
                    "se": column.sem(),
                    "n": len(column),
                }
            )
    return rows


def main_table(frame: pd.DataFrame, family: str, paper: bool = True, bold: str = "**{}**") -> pd.DataFrame:
    """The paper's layout for one model and setting: a row an editor; efficacy, locality, generality, score a data set.

    Cells are percentages with their standard error; the best editor's is bold. Where the paper has the same model,
    its figure stands beside ours in brackets, or "n/c" where it was not measured in the same way (`paper_note`).
    """
    part = frame[frame.family == family]
    table: dict[tuple[str, str], dict[str, str]] = {}
    for data in sorted(part.data.unique(), reverse=True):
        here = part[part.data == data]
        table[(data, "n")] = {r.editor: str(r.n) for r in here[here.metric == "efficacy"].itertuples()}
        for metric in (*METRICS, "score"):
            column = here[here.metric == metric]
            best = column[column.editor != ORIGINAL]["mean"].round(4).max()
            cells = {}
            for r in column.itertuples():
                error = f" ± {100 * r.se:.1f}" if metric != "score" and r.n > 1 else ""
                text = f"{100 * r.mean:.1f}{error}"
                if r.editor != ORIGINAL and round(r.mean, 4) == best:
                    text = bold.format(text)
                cells[r.editor] = text + (_papers(r, family) if paper else "")
            table[(data, metric)] = cells
    editors = list(dict.fromkeys(part.editor))
    out = pd.DataFrame({f"{d} {m}": [cells.get(e, "/") for e in editors] for (d, m), cells in table.items()})
    out.insert(0, "editor", editors)
    return out


def _papers(row: Any, family: str) -> str:
    """The paper's figure in brackets, "[n/c]" where it is not comparable, nothing where the paper has none."""
    figures = pd.read_csv(Path(__file__).parent / "paper_tables.csv", dtype={"editor": str})
    protocol = row.setting.split(" ")[0].rstrip(",")
    editor = "original" if row.editor == ORIGINAL else row.editor
    found = figures[
        (figures.model == Path(row.model).name) & (figures.protocol == protocol)
        & (figures.editor == editor) & (figures.data == row.data)
    ]  # fmt: skip
    value = found[row.metric].iloc[0] if len(found) else float("nan")
    if pd.isna(value):
        return ""
    same = found.family.iloc[0] == family and row.setting in ("batch of 100", "consecutive, 3000 edits")
    return f" [{value:.2f}]" if same else f" [{NOT_COMPARABLE}]"


PAPER_NOTE = (
    f"[{NOT_COMPARABLE}]: the paper has a figure for this model, editor and data set that cannot stand beside ours: "
    "it is of another metric family (table 1 takes its baselines from the AlphaEdit paper, where efficacy compares "
    "probabilities and locality is accuracy against the truth), or of another number of edits (table 2: 3,000)."
)


def cost_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Seconds an edit, peak memory, weights changed, perplexity and refused records of each run.

    Times are medians of calls, divided by the records of a call. They are of one machine, which may have done other
    things at the time: read them as ratios within a table. Memory is the most that any call needed beyond what was in
    use before it ("?" where each took its target vectors from the store). Perplexity is that of the fixed text after
    the edits, over the unedited model's.
    """
    rows = []
    for run in sorted(runs, key=lambda r: list(EDITORS).index(r.identity["editor"])):
        edits = pd.DataFrame(run.edits)
        if edits.empty:
            continue
        consecutive = run.identity["protocol"] == "consecutive"
        under_way = consecutive and len(edits) < run.about["num_records"]
        last = edits.iloc[-1:] if consecutive else edits
        values = [p / run.perplexity if p else float("inf") for p in last.perplexity.tolist()]
        refused = len(run.refused)
        rows.append(
            {
                "editor": run.name,
                "data": run.identity["data"],
                "seconds / edit": f"{(edits.seconds / edits.case_ids.map(len)).median():.2f}",
                "peak MB": pd.to_numeric(edits.get("memory_bytes", pd.Series(dtype=float))).max() / 1e6,
                "weights changed": f"{int(last.weights_changed.median()):,}",
                "perplexity ratio": "?" if under_way else f"{pd.Series(values).median():.3f}",
                "refused": f"{refused} of {run.about['num_records']}" if refused else "0",
            }
        )
    table = pd.DataFrame(rows).dropna(axis="columns", how="all")  # no memory, where no run could tell it
    if "peak MB" in table:
        table["peak MB"] = table["peak MB"].map(lambda v: "?" if pd.isna(v) else f"{v:,.0f}")
    return table


def curve_table(runs: Sequence[Run]) -> pd.DataFrame:
    """EasyEdit's metrics of all records so far after 1, 10, ... consecutive edits, where a run measured them."""
    rows = []
    for run in runs:
        points = sorted({c["after"] for c in run.cases})
        for k in points if len(points) > 1 else []:
            values = pd.DataFrame([c["easyedit"] for c in run.cases if c["after"] == k]).mean()
            shown = {m: f"{100 * values[m]:.1f}" for m in METRICS}
            shown["score"] = f"{100 * values[list(METRICS)].mean():.1f}"
            rows.append({"editor": run.name, "data": run.identity["data"], "edits": k, **shown})
    return pd.DataFrame(rows)


def markdown(runs: Sequence[Run]) -> str:
    """The whole report: for each model and setting both metric families, generation, costs, curves and notes."""
    out = ["# Benchmark report", ""]
    frame = tidy(runs)
    for model, setting in sorted({(r.identity["model"], r.setting) for r in runs}):
        here = [r for r in runs if r.identity["model"] == model and r.setting == setting]
        part = frame[(frame.model == model) & (frame.setting == setting)]
        out += [f"## {Path(model).name}, {setting}", "", _provenance(here), ""]
        for family, title in FAMILIES.items():
            if (part.family == family).any():
                out += [f"{title}. Percent ± standard error.", "", _to_markdown(main_table(part, family)), ""]
        if any(NOT_COMPARABLE in cell for f in FAMILIES for cell in main_table(part, f).to_numpy().ravel()):
            out += [PAPER_NOTE, ""]
        out += [_own_records(here, part), "Costs.", "", _to_markdown(cost_table(here)), ""]
        curves = curve_table(here)
        if not curves.empty:
            out += ["On the way (EasyEdit's metrics of all records edited so far).", "", _to_markdown(curves), ""]
        out += [*_notes(here)]
    return "\n".join(line for line in out if line is not None).rstrip() + "\n"


def _own_records(runs: Sequence[Run], frame: pd.DataFrame) -> str | None:
    """Where editors were measured on more records than all share: each on its own, with a warning."""
    own = tidy(runs, common=False)
    merged = own[own.editor != ORIGINAL].merge(frame, on=["model", "setting", "data", "editor", "family", "metric"])
    if (merged.n_x == merged.n_y).all():
        return None
    table = main_table(own[own.editor != ORIGINAL], "easyedit", bold="{}")
    return (
        "EasyEdit's metrics of each editor on all records that it was measured on. Rows with different n are NOT "
        f"comparable.\n\n{_to_markdown(table)}\n"
    )


def _provenance(runs: Sequence[Run]) -> str:
    first = runs[0].about
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items() if v)
    seeds = sorted({r.identity["seed"] for r in runs})
    easyedits = "; ".join(sorted({r.about["easyedit"] for r in runs}))
    hardware = first["hardware"]
    where = hardware["gpu"] or f"{hardware['cpus']} CPU cores, {hardware['threads']} threads"
    return f"{easyedits}; {versions}; {where}; seed {', '.join(map(str, seeds))}."


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    for run in runs:
        if not run.is_complete:
            state = f"{len(run.final)} of {run.about['num_records']} records measured"
            shown = "" if run.identity["protocol"] == "single" else "; not in the tables"
            notes.append(f"- {run.name}, {run.identity['data']}: unfinished, {state}{shown}.")
        for case, why in run.refused.items():
            notes.append(f"- {run.name}, {run.identity['data']}: record {case} refused ({why}); measured unedited.")
    lacking = [
        f"{e.name}: {e.cannot[p]}"
        for p in {r.identity["protocol"] for r in runs}
        for e in EDITORS.values()
        if p in e.cannot
    ]
    notes += [f"- Not in this protocol: {'; '.join(lacking)}."] if lacking else []
    return [*notes, ""] if notes else []


def _to_markdown(table: pd.DataFrame) -> str:
    right = ["left"] + ["right"] * (len(table.columns) - 1)
    return table.to_markdown(index=False, disable_numparse=True, colalign=right)


HEADS = {"efficacy": "Eff.", "locality": "Loc.", "generality": "Gen.", "score": "Score"}
DATA_NAMES = {"zsre": "ZsRE", "counterfact": "CounterFact"}


def latex(runs: Sequence[Run]) -> str:
    """The main tables, as wide as a page; needs `\\usepackage{booktabs}`."""
    out = []
    for (model, setting), part in tidy(runs).groupby(["model", "setting"], sort=True):
        for family in FAMILIES:
            if (part.family == family).any():
                caption = f"{Path(model).name}, {setting}. {FAMILIES[family]}. Percent, standard error."
                out.append(_to_latex(main_table(part, family, bold=r"\textbf{{{}}}"), caption))
    return "\n".join(out)


def _to_latex(table: pd.DataFrame, caption: str) -> str:
    """With a head for each data set, in which the number of records stands, too."""
    names = [column.rsplit(" ", 1) for column in table.columns[1:]]
    n = {data: table[f"{data} n"].iloc[0] for data, what in names if what == "n"}
    shown = [(data, what) for data, what in names if what != "n"]
    heads = [(f"{DATA_NAMES.get(data, data)} ($n = {n[data]}$)", HEADS[what]) for data, what in shown]
    table = table[["editor", *(f"{data} {what}" for data, what in shown)]]
    table = table.replace({r" ± ([\d.]+)": r" {\\scriptsize $\\pm$ \1}"}, regex=True)
    table.columns = pd.MultiIndex.from_tuples([("", "editor"), *heads])
    text = table.to_latex(
        index=False,
        caption=caption.replace("_", r"\_").replace(">", "$>$"),
        column_format="@{}l" + "r" * len(heads) + "@{}",
        multicolumn_format="c",
        position="t",
    )
    text = text.replace(r"\begin{tabular}", "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}\n\\begin{tabular}")
    return text.replace("{table}", "{table*}")


def write_report(paths: Sequence[str | Path], out: Path | None = None) -> str:
    """The Markdown text; with `out`, also `report.md`, `report.csv` (tidy) and `report.tex` in that folder."""
    runs = find_runs(paths)
    text = markdown(runs)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(text, encoding="utf-8")
        (out / "report.tex").write_text(latex(runs), encoding="utf-8")
        tidy(runs).to_csv(out / "report.csv", index=False, float_format="%.6g", lineterminator="\n")
    return text


def one_line(folder: Path) -> str:
    """What a person wants to see when a run ends."""
    (run,) = find_runs([folder])
    values = pd.DataFrame([c["easyedit"] for c in run.final]).mean()
    figures = ", ".join(f"{m} {values[m]:.3f}" for m in METRICS if m in values)
    refused = f", {len(run.refused)} refused" if run.refused else ""
    return f"{run.name} {run.identity['data']} {run.setting}: {figures}, n = {len(run.final)}{refused}; {run.folder}/"
