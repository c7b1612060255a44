"""The main tables in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import needs
from .means import FAMILIES, tidy
from .runs import Run
from .tables import main_table

if TYPE_CHECKING:
    import pandas as pd

HEADS = {"efficacy": "Eff.", "locality": "Loc.", "generality": "Gen.", "score": "Score"}
DATA_NAMES = {"zsre": "ZsRE", "counterfact": "CounterFact", "qaedit": "QAEdit", "wikibigedit": "WikiBigEdit"}


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
    needs("jinja2", "bench")  # by which pandas writes LaTeX
    import pandas as pd

    known = [c.removesuffix(" n") for c in table.columns[1:] if c.endswith(" n")]
    names = [(d, c.removeprefix(f"{d} ")) for c in table.columns[1:] for d in known if c.startswith(f"{d} ")]
    n = {data: _most(table[f"{data} n"]) for data in known}
    shown = [(data, what) for data, what in names if what != "n"]
    over = {data: f"{DATA_NAMES.get(data, _escaped(data))} ($n = {count}$)" for data, count in n.items()}
    heads = [(over[data], HEADS.get(what, what.replace("_", " "))) for data, what in shown]
    table = table[["editor", *(f"{data} {what}" for data, what in shown)]]
    table = table.assign(editor=table.editor.map(_escaped))
    table = table.replace({r" ± ([\d.]+)": r" {\\scriptsize $\\pm$ \1}"}, regex=True)
    table.columns = pd.MultiIndex.from_tuples([("", "editor"), *heads])
    text = table.to_latex(
        index=False,
        caption=_escaped(caption),
        column_format="@{}l" + "r" * len(heads) + "@{}",
        multicolumn_format="c",
        position="t",
    )
    text = text.replace(r"\begin{tabular}", "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}\n\\begin{tabular}")
    return text.replace("{table}", "{table*}")


def _most(counts: Iterable[str]) -> int:
    """Of an editor's records; one that has none of this data set says "/"."""
    return max(int(n) for n in counts if n.isdigit())


def _escaped(text: str) -> str:
    """Names and labels are the user's, and may hold what LaTeX reads as its own."""
    return re.sub(r"([_%&#$])", r"\\\1", text).replace(">", "$>$")
