"""Runs, read from live folders and from archives alike."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..archive import SUFFIX, Row, read, rows, unedited_folder
from ..editors import EDITORS, BenchError

JUDGED_BY = ", judged by "
"""Behind the protocol in a run's setting; two judges never stand in one column."""


@dataclass(frozen=True)
class Run:
    """One folder of `packe bench`.

    Attributes:
        folder: MODEL/DATA/PROTOCOL/NAME.
        about: `run.json`.
        cases, edits: measured records and calls of the editor, in order.
        unedited: what the unedited model says, by record.
        about_unedited: its `run.json`; empty where nobody measured it.
        model, data: names that differ where weights or records differ.
        repeats: how many more folders or archives hold the same run.
    """

    folder: str
    about: Row
    cases: list[Row]
    edits: list[Row]
    unedited: dict[Any, Row]
    about_unedited: Row
    model: str = ""
    data: str = ""
    repeats: int = field(default=0, compare=False)

    @property
    def identity(self) -> Row:
        return self.about["identity"]

    @property
    def setting(self) -> str:
        """What must be equal for two runs to stand in one table, besides model and data."""
        protocol, n, first = self.identity["protocol"], self.about["num_records"], self.identity.get("start")
        asked = ", chat template" if "chat_template" in self.identity else ""
        if "judge" in self.identity:
            asked += f"{JUDGED_BY}{self.identity['judge']}"
        if protocol == "batch":
            size = min(self.identity["batch_size"], n)
            begun = f" from record {first} on" if first else ""
            return f"batch of {size}" + (f", the last of {n % size}" if n % size else "") + begun + asked
        if protocol == "single":
            return protocol + asked
        return f"{protocol}, {n} edits" + (f" from record {first} on" if first else "") + asked

    @property
    def last(self) -> int:
        """Number of edits after which the final measurement is made; 0 where edits are rolled back."""
        return self.about["num_records"] if self.identity["protocol"] == "consecutive" else 0

    @property
    def final(self) -> list[Row]:
        return [c for c in self.cases if c["after"] == self.last]

    @property
    def measured(self) -> set[Any]:
        """Records that the final measurement has."""
        return {c["case_id"] for c in self.final}

    @property
    def is_complete(self) -> bool:
        return len(self.final) == self.about["num_records"]

    @property
    def is_shown(self) -> bool:
        """Edits that are rolled back mean something before the run is complete; a run without a row never does."""
        return bool(self.final) and (self.is_complete or self.identity["protocol"] == "single")

    @property
    def refused(self) -> dict[str, str]:
        return {case: why for e in self.edits for case, why in e["refused"].items()}

    @property
    def name(self) -> str:
        label = self.identity.get("label") or ""
        return self.identity["editor"] + (f" ({label})" if label else "")

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it stands in every table and list."""
        return (self.model, self.setting, editor_place(self.name), self.data, self.identity["seed"], self.folder)


def editor_place(name: str) -> tuple[int, str]:
    """The order of the tables: the unedited model, then editors as in `EDITORS`, each before its labelled variants."""
    editor, _, label = name.partition(" (")
    known = list(EDITORS)
    return (known.index(editor) if editor in known else -1), label


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Every run at or below the paths, each of which is a folder, or an archive of `packe pack`.

    A run that is found twice counts once, with the rows of the place that has most of them.

    Raises:
        BenchError: a path does not exist, or there is no run at all.
        StoreError: an archive is damaged.
    """
    places = [Path(path) for path in paths]
    found = runs_of(found_lines(places))
    if not found:
        raise BenchError(f"no run in {', '.join(map(str, places))}; make one with `packe bench`.")
    return found


def found_lines(places: Iterable[Path]) -> list[list[Row]]:
    """The lines of each folder and each archive at or below the paths.

    Raises:
        BenchError: a path does not exist. StoreError: an archive is damaged.
    """
    found: list[list[Row]] = []
    for path in places:
        if not path.exists():
            raise BenchError(
                f"no folder or archive {str(path)!r}; give the out= folder of `packe bench`, folders in it, or files "
                "of `packe pack`."
            )
        if path.is_dir():
            found.append(list(rows(path)))
        found += [read(file) for file in (sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path])]
    return found


def runs_of(places: Iterable[Iterable[Row]]) -> list[Run]:
    """Every run among the lines of some folders and archives, once."""
    found = [run for lines in places for run in _assembled(lines)]
    return sorted(_told_apart(_once(found)), key=lambda run: run.place)


def tracings_of(places: Iterable[Iterable[Row]]) -> list[Run]:
    """What `packe importance` has traced, once: as runs without edits, whose cases are the facts."""
    found = []
    for lines in places:
        for name, kinds in _by_folder(lines).items():
            if "tracing" in kinds:
                about = kinds["tracing"][0]
                found.append(Run(name, {**about, "identity": about["tracing"]}, kinds.get("traced", []), [], {}, {}))
    return sorted(_told_apart(_once(found)), key=lambda t: (t.model, t.data, t.folder))


def _by_folder(lines: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows by folder and kind."""
    parts: dict[str, dict[str, list[Row]]] = {}
    for line in lines:
        row = {k: v for k, v in line.items() if k not in ("kind", "run")}
        parts.setdefault(line["run"], {}).setdefault(line["kind"], []).append(row)
    return parts


def _assembled(lines: Iterable[Row]) -> list[Run]:
    """From the lines of one archive."""
    parts = _by_folder(lines)
    runs = []
    for name, kinds in parts.items():
        if "run" not in kinds:
            continue
        identity = kinds["run"][0]["identity"]
        unedited = unedited_folder("chat_template" in identity)
        beside = parts.get("/".join([*name.split("/")[:-2], unedited]), {})
        # A record may have been measured twice, at first without generation.
        own = [row for row in beside.get("unedited_case", []) if row.get("judge") == identity.get("judge")]
        known = sorted(own, key=lambda row: bool({"generation", "free"} & row.keys()))
        runs.append(
            Run(
                name,
                kinds["run"][0],
                kinds.get("case", []),
                kinds.get("edit", []),
                {row["case_id"]: row for row in known},
                (beside.get("unedited") or [{}])[0],
            )
        )
    return runs


def _once(runs: Sequence[Run]) -> list[Run]:
    """The same run, found in several places, has the same identity and label."""
    best: dict[str, Run] = {}
    for run in sorted(runs, key=lambda r: (-len(r.cases), -len(r.edits), json.dumps(r.about, sort_keys=True))):
        key = json.dumps(run.identity, sort_keys=True)
        known = best.get(key)
        best[key] = dataclasses.replace(known, repeats=known.repeats + 1) if known else run
    return list(best.values())


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """With the names of models and data as in `identity`, and more where one name means several weights or files."""

    def named(run: Run, what: str) -> str:
        name, digest = str(run.identity[what]), run.identity.get(f"{what}_sha256")
        others = {r.identity.get(f"{what}_sha256") for r in runs if r.identity[what] == run.identity[what]}
        file = f"{run.folder.split('/')[-3]}" if what == "data" else name
        return name if len(others) == 1 else f"{file}@{str(digest)[:6]}"

    return [dataclasses.replace(run, model=named(run, "model"), data=named(run, "data")) for run in runs]
