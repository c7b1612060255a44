"""Where the rows of a table were made: every version, commit and machine, and whose rows they made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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


def _facts(runs: Sequence[Run]) -> Iterator[tuple[Maker, dict[str, str]]]:
    """Each editor, and each environment that rows of it name."""
    for run in runs:
        seed = {SEED: str(run.identity["seed"])}
        used = {row.get("environment") for row in [*run.edits, *run.cases]}
        for name in sorted(used, key=str):
            yield (run.name, run.data), _described(run.about.get("environments", {}).get(name, {})) | seed
        for name in sorted({row.get("environment") for row in run.unedited.values()}, key=str):
            yield (ORIGINAL, run.data), _described(run.about_unedited.get("environments", {}).get(name, {}))


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
