"""Edits as data: how to see that one is in force, what later ones need of it, and how it is written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from ..model.bits import bits
from ..model.ffn import FFNModule
from ..patch import WeightPatch
from ..requests import Encoded
from .moments import InputMoments


@dataclass(frozen=True)
class Mark:
    """How to see that an edit is in force at one parameter: its nodes [k], and a checksum of each one's value [k]."""

    axis: int
    index: Tensor
    sums: Tensor

    def under(self, later: Mark) -> Mark:
        """Of the nodes of both, after the later edit."""
        mine = ~torch.isin(self.index, later.index)
        order = torch.cat([self.index[mine], later.index]).sort()
        return Mark(self.axis, order.values, torch.cat([self.sums[mine], later.sums])[order.indices])

    def read(self, parameter: Tensor) -> Tensor:
        """What the checksums [k] would be now."""
        found = parameter.detach().index_select(self.axis, self.index.to(parameter.device))
        return checksums(found.movedim(self.axis, 0))


@dataclass(frozen=True)
class Edit:
    """One call's edit, as far as later calls need it.

    Attributes:
        name: a digest of its new values; its patch, and every patch that holds it, has it in `info["edits"]`.
        requests: what it was made for.
        marks: by parameter name.
        inputs: what the modules saw where the edit wrote.
        subjects: of the requests, where they are known.
    """

    name: str
    requests: list[Encoded]
    marks: dict[str, Mark]
    inputs: InputMoments = field(default_factory=lambda: InputMoments(sparse=True))
    subjects: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Past:
    """All edits before those that are told apart: of a size that does not grow with their number, but for their texts.

    Attributes:
        marks: by parameter name, of every node that any of them touched, as the last of them left it.
        inputs: the sum of the edits' moments, whole.
        requests: with the subjects that they are about.
    """

    marks: dict[str, Mark] = field(default_factory=dict)
    inputs: InputMoments = field(default_factory=InputMoments)
    requests: tuple[tuple[frozenset[str], Encoded], ...] = ()

    def and_then(self, edit: Edit, modules: Iterable[FFNModule]) -> Past:
        """With the edit that came next."""
        marks = {n: mark.under(edit.marks[n]) if n in edit.marks else mark for n, mark in self.marks.items()}
        inputs = self.inputs.copied()
        for m in modules:
            if m.name in edit.inputs.counts:
                inputs.accumulate(m, edit.inputs.of_nodes(m, torch.arange(m.num_nodes)))
        return Past(edit.marks | marks, inputs, (*self.requests, *((edit.subjects, e) for e in edit.requests)))


Parts = dict[str, dict[str, Tensor]]
_Marked = TypeVar("_Marked", Edit, Past)


def lines(subjects: Iterable[str]) -> tuple[str, str]:
    return "subjects", "\n".join(sorted(subjects))


def marks_and_requests(marks: Mapping[str, Mark], requests: Iterable[Encoded]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for j, e in enumerate(requests):
        found |= {f"ids|{j}": e.ids, f"places|{j}": torch.tensor([e.answer_start, *(e.subject or ())])}
    for name, mark in marks.items():
        found |= {f"index|{name}": mark.index, f"checksums|{name}": mark.sums, f"axis|{name}": torch.tensor(mark.axis)}
    return found


def _read_requests(part: Parts) -> list[Encoded]:
    requests = []
    for j, ids in sorted(part["ids"].items(), key=lambda item: int(item[0])):
        start, *subject = part["places"][j].tolist()
        requests.append(Encoded(ids, start, (subject[0], subject[1]) if subject else None))
    return requests


def _read_marks(part: Parts) -> dict[str, Mark]:
    return {n: Mark(int(part["axis"][n]), index, part["checksums"][n]) for n, index in part["index"].items()}


def _read_subjects(text: Tensor) -> frozenset[str]:
    return frozenset(_as_text(text).split("\n") if len(text) else ())


def read_edit(part: Parts, devices: Mapping[str, torch.device]) -> Edit:
    inputs = InputMoments(sparse=True)
    inputs.load(part.get("inputs", {}), devices)
    name, subjects = _as_text(part["text"]["name"]), _read_subjects(part["text"]["subjects"])
    return Edit(name, _read_requests(part), _read_marks(part), inputs, subjects)


def read_past(part: Parts, devices: Mapping[str, torch.device]) -> Past:
    inputs = InputMoments()
    inputs.load(part["inputs"], devices)
    requests = [(_read_subjects(part["text"][str(j)]), e) for j, e in enumerate(_read_requests(part))]
    return Past(_read_marks(part), inputs, tuple(requests))


def _as_text(t: Tensor) -> str:
    return bytes(t.tolist()).decode()


def as_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def holds(mark: Mark, parameter: Tensor | None, covered: Tensor | None) -> bool:
    if parameter is None:
        return False
    if covered is not None:
        free = ~torch.isin(mark.index, covered)
        mark = Mark(mark.axis, mark.index[free], mark.sums[free])
    return not len(mark.index) or torch.equal(mark.read(parameter), mark.sums)


def marked_anew(edit: _Marked, patch: WeightPatch, parameters: Mapping[str, Tensor]) -> _Marked:
    """The same, whose marks at the nodes of `patch` are what the model holds there now."""
    marks = dict(edit.marks)
    for name, mark in edit.marks.items():
        if name in patch.slices:
            touched = torch.isin(mark.index, patch.slices[name].index.cpu())
            marks[name] = replace(mark, sums=torch.where(touched, mark.read(parameters[name]), mark.sums))
    return replace(edit, marks=marks)


def checksums(values: Tensor) -> Tensor:
    """One number for each node's bits [k], int64: equal for equal bits, different for practically all others."""
    rows = bits(values).flatten(1).long().cpu()
    return (rows * (2 * torch.arange(rows.shape[1]) + 1)).sum(1)
