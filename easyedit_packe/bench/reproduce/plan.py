"""The paper's parts as runs of `packe bench`, and what cannot be run, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import PaCKEError, one_of
from ..data import DataError, read_records
from ..editors import BenchError, find_editor
from ..report.runs import find_runs
from ..settings import Settings
from .parts import Part, parts

CHECKPOINTS = 10
"""Times that a run of consecutive edits saves its weights: some editors change 20 GB of a model of 8 billion."""


def every(n: int) -> int:
    """Consecutive edits after which the weights are saved."""
    return max(10, n // CHECKPOINTS)


@dataclass(frozen=True)
class Where:
    """What is where on this machine.

    Attributes:
        name: of the model, as its hyper-parameters and the paper's file have it.
        weights: a folder, a fetched model's name or a hub name; None: nobody has said.
        files: data set -> file, or a folder with it.
        out: folder of the runs.
        dtype: in which the model is loaded.
        stats_dir: folder of second moments; None: this package's cache.
        device: of every run; None: whichever GPU is free, or the CPU where there is none.
    """

    name: str
    weights: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    out: str = "reproduce"
    dtype: str = "float32"
    stats_dir: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Item:
    """One run."""

    part: Part
    editor: str
    data: str
    n: int

    @property
    def call(self) -> int:
        """Requests in one call of the editor."""
        whole = {"batch": min(100, self.n), "epochs": self.n}
        return whole.get(self.part.protocol, 1)

    def settings(self, where: Where) -> Settings:
        """As `packe bench` runs it; not checked, so that a plan can be made before everything is here."""
        return Settings(
            model=where.weights or where.name,
            editor=self.editor,
            data=self.data,
            data_dir=where.files.get(self.data, "data"),
            protocol=self.part.protocol,
            n=self.n,
            checkpoint_every=every(self.n),
            generation=self.part.generation,
            share=self.part.share,
            hparams=changes(self.editor, where),
            hparams_file=where.name,
            dtype=where.dtype,
            device=where.device,
            out=where.out,
        )

    def is_done(self, where: Where) -> bool:
        """Whether all its records have been measured; of a shorter or longer run in the same folder, this run's."""
        try:
            folder = self.settings(where).folder
            runs = find_runs([folder]) if (folder / "run.json").is_file() else []
        except DataError:
            return False
        if not runs or not runs[0].is_complete:
            return False
        n = runs[0].about["num_records"]
        return n >= self.n or n == len(read_records(where.files.get(self.data, "data"), self.data))


@dataclass(frozen=True)
class LeftOut:
    """Runs that are not made."""

    part: Part
    editor: str
    reason: str


def hyper_parameters(editor: str, where: Where) -> Any:
    """Of the model's shipped file, here or in EasyEdit's checkout, with what the plan changes in it.

    Raises:
        PaCKEError: there is no such file, or it does not fit.
    """
    return find_editor(editor).load_hparams(where.name, None, changes(editor, where))


def changes(editor: str, where: Where) -> dict[str, Any]:
    """Hyper-parameters that are not those of the file: one folder of statistics for all editors, and a kind of adapter
    that present versions of peft train.

    Raises:
        PaCKEError: see `hyper_parameters`.
    """
    given = find_editor(editor).load_hparams(where.name, None, {})
    changed: dict[str, Any] = {}
    if getattr(given, "mom2_adjustment", False):
        changed["stats_dir"] = where.stats_dir
    if getattr(given, "lora_type", "lora") != "lora":
        changed["lora_type"] = "lora"
    return changed


def planned(where: Where, wanted: Sequence[str] = (), editors: Sequence[str] = ()) -> tuple[list[Part], list[LeftOut]]:
    """The parts with those editors that can be run, and the others.

    Args:
        wanted: keys of parts; none takes all that the paper has of the model.
        editors: only these; none takes all.

    Raises:
        BenchError: there is no such part or editor.
    """
    known = {part.key: part for part in parts(where.name)}
    for key in wanted:
        if key not in known:
            raise BenchError(f"--parts: {one_of(key, list(known))}; got {key!r}. The paper has these of {where.name}.")
    names = {find_editor(name).name for name in editors}
    every = {name for part in known.values() for name in part.editors}
    for name in sorted(names - every):
        raise BenchError(f"--editors: {one_of(name, sorted(every))}; got {name!r}, which the paper does not compare.")
    chosen, left = [], []
    for part in (part for key, part in known.items() if not wanted or key in wanted):
        able = []
        for name in part.editors:
            reason = _why_not(name, part, where) if not names or name in names else ""
            if reason:
                left.append(LeftOut(part, name, reason))
            elif not names or name in names:
                able.append(name)
        if able:
            chosen.append(replace(part, editors=tuple(able)))
    return chosen, left


def _why_not(editor: str, part: Part, where: Where) -> str:
    found = find_editor(editor)
    if part.protocol in found.cannot:
        return f"{found.cannot[part.protocol]}; the paper's figure is not of one call either"
    if reason := found.absent():
        return reason
    try:
        hyper_parameters(editor, where)
    except PaCKEError as e:
        return str(e)
    return ""


def items(part: Part, n: int) -> list[Item]:
    """The runs of a part, the data sets of an editor together, PaCKE's first: they are what is reproduced."""
    own = sorted(part.editors, key=lambda name: name != "PaCKE")
    return [Item(part, editor, data, n) for editor in own for data in part.data]


def as_folder(path: str | Path) -> str:
    """A file or folder that a process elsewhere finds as well."""
    return str(Path(path).expanduser().resolve())
