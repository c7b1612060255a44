"""The editors that the benchmark compares, and what each can and cannot do.

What loads torch is imported where an editor is at work: reports and figures name editors and load no model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HyperParamsError, PaCKEError, RequestError, one_of

if TYPE_CHECKING:
    from .data import Record

PROTOCOLS = ("single", "batch", "consecutive", "epochs")

_ONE_FACT = "its closed form writes one fact at a time"
_NO_EPOCHS = "it solves for its changes, there are no passes to repeat"


class BenchError(PaCKEError, ValueError):
    """A benchmark run was asked for that cannot be done."""


@dataclass
class InContext:
    """What `Session` sets for every editor; there is nothing else to set."""

    device: Any = None
    model_name: str = ""


@dataclass(frozen=True)
class Editor:
    """One row of the tables.

    Attributes:
        name: as the tables show it.
        alg_name: its name in EasyEdit's `ALG_DICT`.
        cannot: protocol -> reason, for those that it does not support.
        needs_subject: it looks for the subject in the prompt.
        refuses: what it raises for a request that it cannot take; anything else is a failure, and stops a run.
        folder: of its shipped YAML files under `hparams/`.
        simie: inside SimIE, which makes any editor one for many edits in a row.
        told: it edits nothing: the fact stands before each question. What an editor has to be better than.
    """

    name: str
    alg_name: str
    cannot: dict[str, str]
    needs_subject: bool = True
    refuses: tuple[type[Exception], ...] = (RequestError,)
    folder: str = ""
    simie: bool = False
    told: bool = False

    def takes(self, record: Record) -> bool:
        """Whether the record has what the editor looks for."""
        return not self.needs_subject or record.stated_subject is not None

    def check(self, protocol: str) -> None:
        """Raises BenchError if the protocol is unknown or this editor does not support it."""
        if protocol not in PROTOCOLS:
            raise BenchError(f"protocol: {one_of(protocol, list(PROTOCOLS))}; got {protocol!r}.")
        if protocol in self.cannot:
            able = ", ".join(e.name for e in EDITORS.values() if protocol not in e.cannot)
            raise BenchError(
                f"{self.name} has no protocol {protocol!r}: {self.cannot[protocol]}; editors that have it: {able}."
            )

    def absent(self) -> str:
        """Why it is not there: the installed EasyEdit has none; empty where it is."""
        from ..registry import missing_editor

        return "" if self.told else missing_editor(self.alg_name)

    def load_hparams(self, model: str, hparams_file: str | None, overrides: dict[str, Any]) -> Any:
        """Hyper-parameters of EasyEdit's class, with single fields changed.

        Raises:
            HyperParamsError: no such file, or no such field.
        """
        from ..registry import load_hparams
        from .simie import settings

        if self.told:
            return InContext()
        name = hparams_file or Path(model).name
        hparams = load_hparams(self.folder or self.alg_name, name)
        if hparams.alg_name != self.alg_name:
            raise HyperParamsError(
                f"{name}: alg_name: expected {self.alg_name!r} for the editor {self.name}, got {hparams.alg_name!r}; "
                f"give hparams_file a file of hparams/{self.folder or self.alg_name}/."
            )
        hparams = settings(hparams, model) if self.simie else hparams
        known = {f.name for f in dataclasses.fields(hparams)}
        for key, value in overrides.items():
            if key not in known:
                raise HyperParamsError(f"{self.name} has no hyper-parameter {key!r}; {one_of(key, sorted(known))}.")
            setattr(hparams, key, value)
        return dataclasses.replace(hparams)  # checks the changed fields


_ROUTER = "it adds one fact at a time to its router"
_TOLD = "the model is told one fact at a time, and forgets it"
_SEVERAL = {"epochs": _NO_EPOCHS}
_SINGLE = {"batch": _ONE_FACT, "epochs": _NO_EPOCHS}
EDITORS = {
    e.name: e
    for e in (
        Editor("In-context", "", dict.fromkeys(PROTOCOLS[1:], _TOLD), needs_subject=False, told=True),
        Editor("FT-C", "FT", {}, needs_subject=False, folder="FT-C"),
        Editor("LoRA", "LoRA", {}, needs_subject=False),
        Editor("KN", "KN", {**_SINGLE, "batch": "it searches the neurons of one fact"}, needs_subject=False),
        Editor("ROME", "ROME", _SINGLE),
        Editor("R-ROME", "R-ROME", _SINGLE),
        Editor("MEMIT", "MEMIT", _SEVERAL),
        Editor("PMET", "PMET", _SEVERAL),
        Editor("EMMET", "EMMET", _SEVERAL),
        Editor("PRUNE", "PRUNE", _SEVERAL),
        Editor("RECT", "RECT", _SEVERAL),
        Editor("AlphaEdit", "AlphaEdit", _SEVERAL),
        Editor("SPHERE", "SPHERE", _SEVERAL),
        Editor("UltraEdit", "ULTRAEDIT", _SEVERAL, needs_subject=False, folder="UltraEdit"),
        Editor("GRACE", "GRACE", {**_SINGLE, "batch": _ROUTER}, needs_subject=False),
        Editor("WISE", "WISE", {**_SINGLE, "batch": _ROUTER}, needs_subject=False),
        Editor("SimIE-ROME", "ROME", _SINGLE, simie=True),
        Editor("PaCKE", "PaCKE", {}, needs_subject=False),
        Editor("PaCKE+", "PaCKE+", {"epochs": _NO_EPOCHS}, needs_subject=False),
    )
}
"""In the order of the tables."""

_SIMIE = "SimIE-"


def _outside_simie(editor: Editor) -> str:
    """Why SimIE cannot correct an editor's edits; empty where it can."""
    if editor.told:
        return "it edits nothing"
    if editor.simie:
        return "it is inside SimIE already"
    return "it wraps the model, and leaves its weights as they are" if editor.alg_name in ("GRACE", "WISE") else ""


def find_editor(name: str) -> Editor:
    """The editor of that name, in any case; "SimIE-" before any other's name puts that one inside SimIE.

    Raises:
        BenchError: unknown; the message names the nearest. Or one that cannot be inside SimIE.
    """
    asked = str(name).lower()
    for known, editor in EDITORS.items():
        if known.lower() == asked:
            return editor
    if asked.startswith(_SIMIE.lower()):
        inner = find_editor(str(name)[len(_SIMIE) :])
        if reason := _outside_simie(inner):
            raise BenchError(f"editor: expected SimIE- before an editor that changes weights; {inner.name}: {reason}.")
        return dataclasses.replace(inner, name=_SIMIE + inner.name, cannot=_SINGLE, simie=True)
    raise BenchError(f"editor: {one_of(name, list(EDITORS))}; got {name!r}.")
