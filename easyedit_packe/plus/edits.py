"""Edits as data: how to see that one is in force, what later ones need of it, and how it is written down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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

    def without(self, covered: Tensor | None) -> Mark:
        """Of the nodes that are not among these."""
        free = slice(None) if covered is None else ~torch.isin(self.index, covered)
        return Mark(self.axis, self.index[free], self.sums[free])

    def holds(self, parameter: Tensor) -> bool:
        """Whether the nodes have these values; where there are none, nothing is read."""
        return not len(self.index) or torch.equal(self.read(parameter), self.sums)

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

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, for `load`."""
        texts = {"text|name": _as_bytes(self.name), "text|subjects": _as_bytes("\n".join(sorted(self.subjects)))}
        return texts | _written(self.requests, self.marks, self.inputs)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Edit:
        """What `tensors` gave."""
        parts = _by_kind(tensors)
        name, subjects = _as_text(parts["text"]["name"]), _subjects(parts["text"]["subjects"])
        return cls(name, *_read(parts, InputMoments(sparse=True)), subjects)


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
                inputs.accumulate(m, edit.inputs)
        return Past(edit.marks | marks, inputs, (*self.requests, *((edit.subjects, e) for e in edit.requests)))

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, for `load`."""
        texts = {f"text|{j}": _as_bytes("\n".join(sorted(about))) for j, (about, _) in enumerate(self.requests)}
        return texts | _written([e for _, e in self.requests], self.marks, self.inputs)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Past:
        """What `tensors` gave; without any, nothing is past."""
        parts = _by_kind(tensors)
        requests, marks, inputs = _read(parts, InputMoments())
        return cls(marks, inputs, tuple((_subjects(parts["text"][str(j)]), e) for j, e in enumerate(requests)))


_Marked = TypeVar("_Marked", Edit, Past)


def in_force(marks: Mapping[str, Mark], parameters: Mapping[str, Tensor], covered: Mapping[str, Tensor]) -> bool:
    """Whether the parameters hold what the marks say, apart from the nodes of each that are covered."""
    return all(n in parameters and mark.without(covered.get(n)).holds(parameters[n]) for n, mark in marks.items())


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


def _written(requests: Sequence[Encoded], marks: Mapping[str, Mark], inputs: InputMoments) -> dict[str, Tensor]:
    found = {f"inputs|{k}": t for k, t in inputs.tensors().items()}
    for j, e in enumerate(requests):
        found |= {f"ids|{j}": e.ids, f"places|{j}": torch.tensor([e.answer_start, *(e.subject or ())])}
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
) -> tuple[list[Encoded], dict[str, Mark], InputMoments]:
    requests = []
    for j, ids in sorted(parts["ids"].items(), key=lambda item: int(item[0])):
        start, *subject = parts["places"][j].tolist()
        requests.append(Encoded(ids, start, (subject[0], subject[1]) if subject else None))
    marks = {n: Mark(int(parts["axis"][n]), index, parts["checksums"][n]) for n, index in parts["index"].items()}
    inputs.load(parts["inputs"])
    return requests, marks, inputs


def _as_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _as_text(t: Tensor) -> str:
    return bytes(t.tolist()).decode()


def _subjects(text: Tensor) -> frozenset[str]:
    return frozenset(_as_text(text).split("\n") if len(text) else ())
