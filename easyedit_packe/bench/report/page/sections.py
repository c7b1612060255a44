"""What one model's runs of one setting have to show, in the order of the text report, and from the same tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paper
from ..environments import provenance
from ..highest import TIES, highest
from ..means import FAMILIES, ORIGINAL, comparable, shared_records, tidy
from ..notes import OWN_RECORDS, few_shared, notes
from ..runs import Run
from ..tables import cost_table, curve_table, main_table
from .cells import Table, family_table, plain_table
from .figures import Picture, figures

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Settings:
    """Of one run: everything by which it is known, and where its rows were made."""

    name: str
    facts: dict[str, str]
    hparams: dict[str, str]
    environments: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Section:
    """Runs that may stand together.

    Attributes:
        facts: what was compared, by its name.
        different: what is not the same for all, a line each.
        warnings: what must be read before the tables.
        figures: None where nothing can draw them.
    """

    model: str
    setting: str
    facts: dict[str, str]
    different: list[str]
    warnings: list[str]
    tables: list[Table]
    notes: list[str]
    settings: list[Settings]
    figures: list[Picture] | None

    @property
    def title(self) -> str:
        return f"{Path(self.model).name}, {self.setting}"


def sections(runs: Sequence[Run]) -> list[Section]:
    """One for each model and setting."""
    frame = tidy(runs)
    found = []
    for model, setting in places(runs):
        here = [r for r in runs if (r.model, r.setting) == (model, setting)]
        part = frame[(frame.model == model) & (frame.setting == setting)]
        said = [line for line in provenance(here).split("\n") if line]
        different = [line.removeprefix("- ") for line in said if line.startswith("- ")]
        common = [line for line in said if not line.startswith("- ")]
        facts = _facts(here) | ({"Versions": common[0]} if common else {})
        tables, below = _tables(here, part)
        others = [line.removeprefix("- ") for line in notes(here)]
        settings = [_settings(run) for run in here]
        found.append(
            Section(
                model, setting, facts, different, few_shared(here), tables, [*below, *others], settings, figures(here)
            )
        )
    return found


def places(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Model and setting of each section, in order."""
    return sorted({(run.model, run.setting) for run in runs})


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    shown = comparable(runs)
    data = [
        f"{data}, n = {len(shared_records(members))}" for (_, _, data), members in sorted(shown.items(), reverse=True)
    ]
    editors = dict.fromkeys(run.name for run in sorted(runs, key=lambda r: r.place))
    return {
        "Model": Path(runs[0].model).name,
        "Protocol": runs[0].setting,
        "Data sets": "; ".join(data) or "none measured yet",
        "Editors": ", ".join(editors),
    }


def _tables(runs: Sequence[Run], part: pd.DataFrame) -> tuple[list[Table], list[str]]:
    """The tables, and what they need explained."""
    tables, below = [], []
    for family, title in FAMILIES.items():
        if (part.family == family).any():
            best = highest(runs, family)
            below += [TIES] if any(h.ties for h in best) else []
            heading, _, meaning = title.partition(": ")
            unit = "Percent ± standard error."
            about = f"{meaning[:1].upper()}{meaning[1:]}. {unit}"
            tables.append(family_table(main_table(part, family), part, family, heading, about, best))
    if any(paper.NOT_COMPARABLE in cell.error for table in tables for row in table.rows for cell in row):
        below.append(paper.NOTE)
    if few_shared(runs):
        own = tidy(runs, common=False)
        own = own[own.editor != ORIGINAL]
        tables.append(
            family_table(main_table(own, "easyedit", bold="{}"), own, "easyedit", "All records", OWN_RECORDS, [])
        )
    tables += list(_plain(runs))
    return tables, list(dict.fromkeys(below))


def _plain(runs: Sequence[Run]) -> Iterator[Table]:
    costs, curves = cost_table(runs), curve_table(runs)
    if not costs.empty:
        yield plain_table(costs, "Costs", "What an edit costs. Times are of one machine: read them as ratios.")
    if not curves.empty:
        yield plain_table(curves, "On the way", "EasyEdit's metrics of all records edited so far. Percent.")


def _settings(run: Run) -> Settings:
    seed = run.identity["seed"]
    identity = {k: v for k, v in run.identity.items() if k != "hparams"}
    environments = {
        name: _flat({k: v for k, v in about.items() if k != "versions"} | about.get("versions", {}))
        for name, about in sorted(run.about.get("environments", {}).items())
    }
    name = f"{run.name}, {run.data}, seed {seed}"
    facts = _flat({"folder": run.folder, **identity, "records": run.about["num_records"], "measured": len(run.final)})
    return Settings(name, facts, _flat(run.identity.get("hparams", {})), environments)


def _flat(values: dict[str, Any]) -> dict[str, str]:
    """As text, those of a dictionary inside under their own names."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value)
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
