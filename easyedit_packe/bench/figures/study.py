"""What the figures take from saved rows, and how they name it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..report.environments import versions
from ..report.runs import Run
from ..report.typeset import DATA_NAMES

SHOWN = ("easyedit_packe", "EasyEdit", "torch", "transformers", "machine", "commit")
"""Of what a row's environment has, in a figure's small line."""
MANY = 2
"""Values beyond which they are counted, and not named."""


class Study(NamedTuple):
    """Attributes: runs: of `packe bench`. tracings: of `packe importance`; their cases are traced facts."""

    runs: list[Run]
    tracings: list[Run]


class Missing(NamedTuple):
    """What a figure needs and did not find, and the command that makes it."""

    rows: str
    command: str


def title(data: str) -> str:
    """A data set's name as people write it."""
    return DATA_NAMES.get(data, data)


def in_order(data: Iterable[str]) -> list[str]:
    """Data sets as the tables have them, ZsRE before CounterFact."""
    return sorted(set(data), reverse=True)


def side_by_side(data: Iterable[str], crowded: bool = False) -> list[tuple[str, list[str]]]:
    """The data sets of each figure, and what its name says of them: two share one, unless each is full by itself; of
    more each has its own."""
    known = in_order(data)
    return [("", known)] if len(known) <= (1 if crowded else 2) else [(name, [name]) for name in known]


def slug(*parts: str) -> str:
    """A file name of a model's name and whatever tells its figures apart."""
    return "-".join(re.sub(r"[^a-z0-9.+]+", "-", part.lower()).strip("-") for part in parts if part)


def counted(numbers: Iterable[int], what: str = "records") -> str:
    """n = 50 records; n = 8 to 50 records where not all have as many."""
    known = sorted(set(numbers))
    return f"n = {' to '.join(map(str, dict.fromkeys((known[0], known[-1]))))} {what}"


def provenance(model: str, setting: str, n: str, runs: Sequence[Run]) -> str:
    """A figure's small line: what was run, on how many records, by which versions, and where."""
    found = versions(runs)
    parts = [f"{Path(model).name}, {setting}; {n}"]
    for what in SHOWN:
        values = found.get(what, [])
        if len(values) > MANY:
            parts.append(f"{len(values)} {what}s")
        elif values:
            text = " and ".join(values)
            parts.append(text if what == "machine" else f"{what} {text}")
    return "; ".join(parts) + "."
