"""What figures are quoted from: a study's rows, or a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

from easyedit_packe.bench.archive import SUFFIX, Row
from easyedit_packe.bench.editors import PROTOCOLS
from easyedit_packe.bench.report import harmonic
from easyedit_packe.bench.report.means import (
    COLUMNS,
    FAMILIES,
    HARMONIC,
    ORIGINAL,
    Group,
    Mean,
    by_record,
    comparable,
    difference,
    editors_cases,
    mean,
    percent,
    shared_records,
    verdict,
)
from easyedit_packe.bench.report.runs import Run, editor_place, find_runs
from easyedit_packe.bench.report.tables import costs

COSTS = {
    "seconds": ("seconds", 1, ".2f"),
    "peak MB": ("megabytes", 1, ",.0f"),
    "peak GB": ("megabytes", 1e-3, ".1f"),
    "weights": ("weights", 1, ",d"),
    "perplexity": ("perplexity", 1, ".3f"),
    "refused": ("refused", 1, "d"),
}
"""Column -> its name in `costs`, a factor, and its format."""
SUBJECT = ("kept", "drawn")
"""Columns of the family subject; the less is drawn the better, so none of these is the best."""
STATISTICS = ("se", "±", "verdict")
FORMAT = re.compile(r"[,+]?(\.\d+)?[dfg%]|,")
EXPRESSION = re.compile(r"(.+) ([-/*]) (.+)")


class QuoteError(ValueError):
    """A quote names nothing, or several things."""


class Missing(QuoteError, LookupError):
    """There is no such figure, although each term means something."""


@dataclass(frozen=True)
class Figure:
    """Attributes: text: as it stands in the document. rank: what the best of a column has most of; None where nothing
    is best."""

    text: str
    rank: float | None = None


@cache
def source(results: Path, name: str) -> Study | JsonFile:
    """A study or a JSON file below `benchmarks/results`.

    Raises:
        QuoteError: there is none of that name.
    """
    if name.endswith(".json"):
        if not (results / name).is_file():
            raise QuoteError(f"no file {name!r} in {results.name}.")
        return JsonFile(results / name)
    if not (results / f"{name}{SUFFIX}").is_file():
        known = sorted(p.name.removesuffix(SUFFIX) for p in results.glob(f"*{SUFFIX}"))
        raise QuoteError(f"no study {name!r}; known: {', '.join(known)}.")
    return Study(results / f"{name}{SUFFIX}")


class JsonFile:
    """Figures by their keys."""

    def __init__(self, file: Path) -> None:
        self.name, self.values = file.name, json.loads(file.read_text(encoding="utf-8"))

    def figure(self, terms: Sequence[str]) -> Figure:
        forms = [term for term in terms if FORMAT.fullmatch(term)]
        keys = [term for term in terms if term not in forms]
        if len(keys) != 1 or len(forms) > 1:
            raise QuoteError(f"{self.name}: expected one key and at most one format, got {'; '.join(terms)}.")
        value = self._value(keys[0])
        return Figure(format(value, forms[0]) if forms else str(value))

    def _value(self, term: str) -> object:
        parts = EXPRESSION.fullmatch(term)
        if parts:
            return calculated(float(str(self._value(parts[1]))), parts[2], float(str(self._value(parts[3]))))
        found: object = self.values
        try:
            for key in term.split("."):
                found = found[int(key)] if isinstance(found, list) else found[key]  # type: ignore[index]
        except (LookupError, TypeError, ValueError):
            try:
                return float(term)
            except ValueError:
                raise QuoteError(f"{self.name} has no {term!r}.") from None
        return found


def protocol(setting: str) -> str:
    return re.split(r"[ ,]", setting)[0]


def calculated(a: float, operation: str, b: float) -> float:
    return {"-": a - b, "/": a / b if b else float("nan"), "*": a * b}[operation]


class Study:
    """The rows of one archive, and the tables that they make."""

    AXES: ClassVar = ("model", "setting", "data", "editor")

    def __init__(self, file: Path) -> None:
        self.name, self.runs = file.name.removesuffix(SUFFIX), find_runs([file])

    @cached_property
    def cases(self) -> dict[Group, dict[str, list[Row]]]:
        """(model, setting, data) -> editor -> the rows that its figures in that table are means of."""
        groups = comparable(self.runs)
        return {group: editors_cases(runs, shared_records(runs)) for group, runs in groups.items()}

    def values(self, axis: str) -> list[str]:
        """In the order of the tables."""
        if axis == "editor":
            return sorted({name for editors in self.cases.values() for name in editors}, key=editor_place)
        found = {group[self.AXES.index(axis)] for group in self.cases}
        if axis == "setting":
            return sorted(found, key=lambda s: (PROTOCOLS.index(protocol(s)), s))
        return sorted(found, reverse=axis == "data")

    def matching(self, axis: str, term: str) -> list[str]:
        """The values that a term means: itself, or of a protocol all its settings; empty where it means none."""
        return [v for v in self.values(axis) if term == v or (axis == "setting" and term == protocol(v))]

    def resolved(self, terms: Sequence[str]) -> dict[str, str]:
        """Axis, family, column, statistic or format -> the term that means it.

        Raises:
            QuoteError: a term means nothing here, or two mean the same.
        """
        found: dict[str, str] = {}
        for term in terms:
            what = self._meaning(term)
            if what in found:
                raise QuoteError(f"{found[what]!r} and {term!r} are both a {what}.")
            found[what] = term
        return found

    def _meaning(self, term: str) -> str:
        for axis in self.AXES:
            parts = EXPRESSION.fullmatch(term) if axis == "editor" else None
            if all(self.matching(axis, name) for name in ((parts[1], parts[3]) if parts else (term,))):
                return axis
        for what, known in (
            ("family", FAMILIES),
            ("column", (*COLUMNS, HARMONIC, *SUBJECT, "n", *COSTS)),
            ("statistic", STATISTICS),
        ):
            if term in known:
                return what
        if FORMAT.fullmatch(term):
            return "format"
        known = ". ".join(f"{axis}: {'; '.join(self.values(axis))}" for axis in self.AXES)
        raise QuoteError(f"{self.name} knows no {term!r}; {known}.")

    def has(self, asked: dict[str, str]) -> bool:
        """Whether any table has this model, data, setting and editor."""
        return any(asked.get("editor", ORIGINAL) in self.cases[group] for group in self._groups(asked))

    def _groups(self, asked: dict[str, str]) -> list[Group]:
        """The tables of the model, setting and data asked for."""
        wanted = [self.matching(axis, asked[axis]) if axis in asked else None for axis in self.AXES[:3]]
        return [g for g in self.cases if all(v in ok for v, ok in zip(g, wanted, strict=True) if ok is not None)]

    def figure(self, terms: Sequence[str]) -> Figure:
        """Raises Missing where each term means something, but there is no such figure."""
        asked = self.resolved(terms)
        lacking = [what for what in ("editor", "column") if what not in asked]
        groups = self._groups(asked)
        if lacking or len(groups) > 1:
            detail = f"name {' and '.join(lacking)}" if lacking else f"it may be {' or '.join(map(str, groups))}"
            raise QuoteError(f"{self.name}; {'; '.join(terms)}: {detail}.")
        if not groups:
            raise Missing(f"{self.name}; {'; '.join(terms)}: no such table.")
        parts = EXPRESSION.fullmatch(asked["editor"])
        editors, operation = ([parts[1], parts[3]], parts[2]) if parts else ([asked["editor"]], "")
        self._require_sense(asked, operation)
        make = self._cost if asked["column"] in COSTS else self._h if asked["column"] == HARMONIC else self._metric
        return make(asked, groups[0], editors, operation)

    def _require_sense(self, asked: dict[str, str], operation: str) -> None:
        column, statistic = asked["column"], asked.get("statistic")
        if operation == "*":
            raise QuoteError(f"{self.name}: editors have a difference or a ratio, not {asked['editor']!r}.")
        if statistic and (operation == "/" or column == "n" or column in COSTS):
            raise QuoteError(f"{self.name}: {column} of {asked['editor']} has no {statistic!r}.")
        if statistic == "verdict" and operation != "-":
            raise QuoteError(f"{self.name}: a verdict is one on a difference, as 'A - B'; got {asked['editor']!r}.")

    def _metric(self, asked: dict[str, str], group: Group, editors: list[str], operation: str) -> Figure:
        family, column = asked.get("family", "easyedit"), asked["column"]
        records = [by_record(self.cases[group].get(editor, []), family) for editor in editors]
        if column == "n":
            return Figure(str(len(set.intersection(*map(set, records)))))
        for editor, found in zip(editors, records, strict=True):
            if not found or any(column not in values for values in found.values()):
                raise Missing(f"{editor} has no {column} among {', '.join(group)}, {family}.")
        means = [mean([values[column] for values in found.values()]) for found in records]
        if operation == "/":
            return Figure(format(calculated(means[0].mean, "/", means[1].mean), asked.get("format", ".2f")))
        value = difference(*records, column) if operation == "-" else means[0]
        return self._shown(value, asked, ranked=editors[0] != ORIGINAL and column != "drawn")

    def _h(self, asked: dict[str, str], group: Group, editors: list[str], operation: str) -> Figure:
        found = [harmonic.parts(self.cases[group].get(editor, [])) for editor in editors]
        if not all(found) or operation == "/":
            raise Missing(f"{asked['editor']} has no {HARMONIC} among {', '.join(group)}.")
        value = harmonic.difference(*found) if operation == "-" else harmonic.h(found[0])
        return self._shown(value, asked, ranked=True)

    @staticmethod
    def _shown(value: Mean, asked: dict[str, str], ranked: bool) -> Figure:
        form = asked.get("format")
        amounts = [format(100 * x, form) if form else percent(x) for x in (value.mean, value.error)]
        # One record has no error.
        texts = {"se": amounts[1], "±": " ± ".join(amounts[: value.n]), "verdict": verdict(value)}
        return Figure(texts.get(asked.get("statistic", ""), amounts[0]), value.mean if ranked else None)

    def _cost(self, asked: dict[str, str], group: Group, editors: list[str], operation: str) -> Figure:
        name, factor, form = COSTS[asked["column"]]
        values = [self._costs_of(editor, group)[name] for editor in editors]
        if None in values:
            raise Missing(f"{asked['column']} of {' or '.join(editors)} is not known.")
        value = calculated(values[0], operation, values[1]) if operation else values[0]
        form = ".2f" if operation == "/" else form
        return Figure(format(value if operation == "/" else value * factor, asked.get("format", form)))

    def _costs_of(self, editor: str, group: Group) -> dict[str, Any]:
        runs: list[Run] = [r for r in self.runs if (r.model, r.setting, r.data) == group and r.name == editor]
        found = costs(runs[0]) if len(runs) == 1 else None
        if found is None:
            raise Missing(f"{editor} has {len(runs)} runs among {', '.join(group)}; costs are those of one.")
        return found
