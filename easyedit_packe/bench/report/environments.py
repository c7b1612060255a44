"""Where the rows of a table were made: every version, commit and machine, and whose rows they made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..archive import Row
from .means import ORIGINAL
from .runs import Run, editor_place

Maker = tuple[str, str]
"""Editor and data set."""

UNKNOWN = "not recorded"
SEED = "seed"


def provenance(runs: Sequence[Run]) -> str:
    """One line of what all rows have in common, and a line for each thing in which they differ."""
    facts = list(_facts(runs))
    everyone = {maker for maker, _ in facts}
    common, different = [], []
    for what in dict.fromkeys(what for _, found in facts for what in found):
        whose: dict[str, set[Maker]] = {}
        for maker, found in facts:
            if what in found or what != SEED:  # the unedited model has none
                whose.setdefault(found.get(what, UNKNOWN), set()).add(maker)
        if len(whose) == 1:
            common += [f"{what} {value}" for value in whose]
        else:
            values = [f"{value} ({_names(whose[value], everyone)})" for value in sorted(whose)]
            different.append(f"- {what}: {'; '.join(values)}.")
    first = [f"{'; '.join(common)}."] if common else []
    return "\n".join([*first, *([""] if first and different else []), *different])


def versions(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Every version, commit and machine that rows name, by what it is of."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for environment in _environments([*run.edits, *run.cases], run.about):
            for what, value in environment.items():
                found.setdefault(what, set()).add(value)
    return {what: sorted(values) for what, values in found.items()}


def _facts(runs: Sequence[Run]) -> Iterator[tuple[Maker, dict[str, str]]]:
    """Each editor, and each environment that rows of it name."""
    for run in runs:
        seed = {SEED: str(run.identity["seed"])}
        for environment in _environments([*run.edits, *run.cases], run.about):
            yield (run.name, run.data), environment | seed
        for environment in _environments(run.unedited.values(), run.about_unedited):
            yield (ORIGINAL, run.data), environment


def _environments(rows: Iterable[Row], about: Row) -> Iterator[dict[str, str]]:
    """Each that rows name, as `run.json` describes it."""
    for name in sorted({row.get("environment") for row in rows}, key=str):
        yield _described(about.get("environments", {}).get(name, {}))


def _described(environment: dict[str, Any]) -> dict[str, str]:
    hardware = environment.get("hardware", {})
    counts = {what: hardware.get(key) for what, key in (("CPU core", "cpus"), ("thread", "threads"))}
    cores = ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items() if n)
    return {
        "EasyEdit": environment.get("easyedit", UNKNOWN).removeprefix("EasyEdit "),
        **{package: version or UNKNOWN for package, version in sorted(environment.get("versions", {}).items())},
        "Python": hardware.get("python", UNKNOWN),
        "commit": environment.get("commit") or UNKNOWN,
        "machine": hardware.get("gpu") or cores or UNKNOWN,
    }


def _names(makers: set[Maker], everyone: set[Maker]) -> str:
    """An editor whose rows are meant on all its data sets stands by its name alone."""
    names = []
    for editor in sorted({name for name, _ in makers}, key=editor_place):
        here = sorted(data for name, data in makers if name == editor)
        everywhere = sorted(data for name, data in everyone if name == editor)
        names.append(editor if here == everywhere else f"{editor} on {' and '.join(here)}")
    return ", ".join(names)
