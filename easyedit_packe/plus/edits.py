"""Edits as data: how to see that one is in force, what later ones need of it, and how it is written down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from ..model.bits import as_bytes, as_text, bits
from ..patch import WeightPatch
from ..patch.slice import Slice
from ..requests import Encoded
from .moments import InputMoments


@dataclass(frozen=True)
class Mark:
    """How to see that an edit is in force at one parameter: the nodes that it changed [k], and a checksum of each one's
    value [k]."""

    axis: int
    index: Tensor
    sums: Tensor

    def under(self, later: Mark) -> Mark:
        """Of the nodes of both, after the later edit."""
        mine = ~torch.isin(self.index, later.index)
        order = torch.cat([self.index[mine], later.index]).sort()
        return Mark(self.axis, order.values, torch.cat([self.sums[mine], later.sums])[order.indices])

    def without(self, covered: Tensor | None) -> Mark:
        """Of the nodes that are not among these."""
        free = slice(None) if covered is None else ~torch.isin(self.index, covered)
        return Mark(self.axis, self.index[free], self.sums[free])

    def held(self, parameter: Tensor) -> int:
        """How many of the nodes have these values; where there are none, nothing is read."""
        return int((self.read(parameter) == self.sums).sum()) if len(self.index) else 0

    def read(self, parameter: Tensor) -> Tensor:
        """What the checksums [k] would be now."""
        found = parameter.detach().index_select(self.axis, self.index.to(parameter.device))
        return checksums(found.movedim(self.axis, 0))


@dataclass(frozen=True)
class Fact:
    """One request of an edit.

    Attributes:
        text: its tokens.
        subject: what it is about; empty where that is not known.
        edit: the edit's name.
    """

    text: Encoded
    subject: str
    edit: str


@dataclass(frozen=True)
class Edit:
    """One call's edit, as far as later calls need it.

    Attributes:
        name: a digest of its new values; its patch, and every patch that holds it, has it in `info["edits"]`.
        facts: what it was made for.
        marks: by parameter name.
        inputs: what the modules saw where the edit wrote.
    """

    name: str
    facts: tuple[Fact, ...]
    marks: dict[str, Mark]
    inputs: InputMoments = field(default_factory=lambda: InputMoments(sparse=True))

    @property
    def subjects(self) -> set[str]:
        """What its facts are about, as far as that is known."""
        return {fact.subject for fact in self.facts} - {""}

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, for `load`."""
        return {"name|": as_bytes(self.name)} | _written(self.facts, self.marks, self.inputs)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Edit:
        """What `tensors` gave."""
        parts = _by_kind(tensors)
        return cls(as_text(parts["name"][""]), *_read(parts, InputMoments(sparse=True)))


@dataclass(frozen=True)
class Past:
    """All edits before those that are told apart: of a size that does not grow with their number, but for their texts.

    Attributes:
        facts: what they were made for, apart from those that were taken out.
        marks: by parameter name, of every node that any of them touched, as the last of them left it.
        inputs: the sum of the edits' moments, whole.
    """

    facts: tuple[Fact, ...] = ()
    marks: dict[str, Mark] = field(default_factory=dict)
    inputs: InputMoments = field(default_factory=InputMoments)

    def and_then(self, edit: Edit) -> Past:
        """With the edit that came next."""
        marks = {n: mark.under(edit.marks[n]) if n in edit.marks else mark for n, mark in self.marks.items()}
        inputs = self.inputs.copied()
        inputs.accumulate(edit.inputs)
        return Past((*self.facts, *edit.facts), edit.marks | marks, inputs)

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, for `load`."""
        return _written(self.facts, self.marks, self.inputs)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Past:
        """What `tensors` gave; without any, nothing is past."""
        return cls(*_read(_by_kind(tensors), InputMoments()))


_Marked = TypeVar("_Marked", Edit, Past)


def shows(marks: Mapping[str, Mark], covered: Mapping[str, Tensor]) -> bool:
    """Whether there is a node by which one could see that the marks hold: one that is not covered."""
    return any(len(mark.without(covered.get(n)).index) for n, mark in marks.items())


def in_force(marks: Mapping[str, Mark], parameters: Mapping[str, Tensor], covered: Mapping[str, Tensor]) -> bool:
    """Whether most of the nodes that are not covered hold what the marks say.

    All do after the edit, and none after it was rolled back. Some may be what another editor has made of them since.
    """
    if not marks.keys() <= parameters.keys():
        return False
    free = {n: mark.without(covered.get(n)) for n, mark in marks.items()}
    nodes = sum(len(mark.index) for mark in free.values())
    return not nodes or 2 * sum(mark.held(parameters[n]) for n, mark in free.items()) > nodes


def marked_anew(edit: _Marked, patch: WeightPatch, parameters: Mapping[str, Tensor]) -> _Marked:
    """The same, whose marks at the nodes of `patch` are what the model holds there now."""
    marks = dict(edit.marks)
    for name, mark in edit.marks.items():
        if name in patch.slices:
            touched = torch.isin(mark.index, patch.slices[name].index.cpu())
            marks[name] = replace(mark, sums=torch.where(touched, mark.read(parameters[name]), mark.sums))
    return replace(edit, marks=marks)


def marked(s: Slice) -> Mark:
    """How to see that a slice's new values are there; rounding to the model's dtype may have changed few nodes."""
    old, new = checksums(s.old), checksums(s.new)
    changed = old != new
    return Mark(s.axis, s.index.cpu()[changed], new[changed])


def checksums(values: Tensor) -> Tensor:
    """One number for each node's bits [k], int64: equal for equal bits, different for practically all others."""
    rows = bits(values).flatten(1).long().cpu()
    return (rows * (2 * torch.arange(rows.shape[1]) + 1)).sum(1)


def _written(facts: Sequence[Fact], marks: Mapping[str, Mark], inputs: InputMoments) -> dict[str, Tensor]:
    found = {f"inputs|{k}": t for k, t in inputs.tensors().items()}
    for j, fact in enumerate(facts):
        found[f"ids|{j}"] = fact.text.ids
        found[f"places|{j}"] = torch.tensor([fact.text.answer_start, *(fact.text.subject or ())])
        found[f"about|{j}"] = as_bytes(f"{fact.edit}\n{fact.subject}")
    for name, mark in marks.items():
        found |= {f"index|{name}": mark.index, f"checksums|{name}": mark.sums, f"axis|{name}": torch.tensor(mark.axis)}
    return found


def _by_kind(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, t in tensors.items():
        kind, name = key.split("|", 1)
        parts[kind][name] = t
    return parts


def _read(
    parts: Mapping[str, dict[str, Tensor]], inputs: InputMoments
) -> tuple[tuple[Fact, ...], dict[str, Mark], InputMoments]:
    facts = []
    for j, ids in sorted(parts["ids"].items(), key=lambda item: int(item[0])):
        start, *at = parts["places"][j].tolist()
        edit, subject = as_text(parts["about"][j]).split("\n", 1)
        facts.append(Fact(Encoded(ids, start, (at[0], at[1]) if at else None), subject, edit))
    marks = {n: Mark(int(parts["axis"][n]), index, parts["checksums"][n]) for n, index in parts["index"].items()}
    inputs.load(parts["inputs"])
    return tuple(facts), marks, inputs
