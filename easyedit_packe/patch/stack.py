"""Several edits on one model, any of which can be taken back while the others stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import PatchError
from ..model.bits import same_bits
from .parameters import find_parameters
from .slice import Slice
from .watchers import told
from .weight_patch import WeightPatch, merged_info


class EditStack:
    """The edits that are in force on a model, oldest first.

    What it means to revert one of them: every node it touched gets the value that the base model and the *other*
    edits give it, replayed in their order. A node that no other edit touched gets its old value, bit for bit. A node
    that others touched too gets the base value with the others' changes added one after another, each rounded to the
    model's dtype; where an edit finds the very value it was made on, its own new value is taken, bit for bit. So
    reverting the newest edit is exact, reverting all is exact in any order, and edits without common nodes never
    disturb each other.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.edits: list[WeightPatch] = []
        self._base: dict[str, dict[int, Tensor]] = {}  # parameter -> node -> its value in the base model

    def apply(self, patch: WeightPatch) -> None:
        """Put an edit on top; raises `PatchError` if it was not made for the model as it stands."""
        self._check(patch)
        patch.apply(self.model)
        self.push(patch)

    def push(self, patch: WeightPatch) -> None:
        """Take note of an edit that is already in force, e.g. one that `apply_packe_to_model` has just made."""
        self._check(patch)
        for name, s in patch.slices.items():
            base = self._base.setdefault(name, {})
            for node, value in zip(s.index.tolist(), s.old, strict=True):
                base.setdefault(node, value.cpu())
        self.edits.append(patch)

    def revert(self, patch: WeightPatch) -> None:
        """Take one edit back, whether or not it is the newest; the others stay.

        Raises:
            PatchError: the edit is not in force here, or its nodes hold what none of the stack's edits wrote.
        """
        position = next((i for i, p in enumerate(self.edits) if p is patch), None)
        if position is None:
            raise PatchError("this edit is not among those in force; EditStack.edits lists them.")
        others = self.edits[:position] + self.edits[position + 1 :]
        parameters = patch.parameters_of(self.model)
        for name, s in patch.slices.items():
            if not same_bits(s.read(parameters[name]).cpu(), self._replayed(name, s, self.edits)):
                raise PatchError(
                    f"{name}: expected what the stack's edits leave there, got other values: something else has "
                    "changed this model. Take that back first, or `push` its patch to this stack."
                )
        values = {name: self._replayed(name, s, others) for name, s in patch.slices.items()}
        with told(self.model, patch):
            for name, s in patch.slices.items():
                s.write(parameters[name], values[name])
        self.edits = others
        for name, base in self._base.items():  # of nodes that no edit touches now, later edits find what is there then
            touched = {i for p in others if name in p.slices for i in p.slices[name].index.tolist()}
            self._base[name] = {node: value for node, value in base.items() if node in touched}

    def _check(self, patch: WeightPatch) -> None:
        for name, s in patch.slices.items():
            first = next((p.slices[name] for p in self.edits if name in p.slices), s)
            first.require_alike(name, s)  # all others are like it

    def _replayed(self, name: str, s: Slice, others: list[WeightPatch]) -> Tensor:
        """The touched nodes' values [k, ...] under the other edits alone."""
        nodes = s.index.tolist()
        rows = {node: self._base[name][node].clone() for node in nodes}
        for other in others:
            theirs = other.slices.get(name)
            if theirs is None:
                continue
            old, new, change = theirs.old.cpu(), theirs.new.cpu(), theirs.change.cpu()
            for i, node in enumerate(theirs.index.tolist()):
                if node in rows:
                    exact = same_bits(rows[node], old[i])
                    moved = (rows[node].to(change.dtype) + change[i]).to(new.dtype)
                    rows[node] = new[i] if exact else moved
        return torch.stack([rows[node] for node in nodes])

    def merged(self) -> WeightPatch:
        """All edits in force as one patch on the base model."""
        slices: dict[str, Slice] = {}
        parameters = find_parameters(self.model, self._base)
        for name, base in self._base.items():
            theirs = [p.slices[name] for p in self.edits if name in p.slices]
            if not theirs:
                continue
            of, index = theirs[0], torch.cat([s.index.cpu() for s in theirs]).unique()
            old = torch.stack([base[i] for i in index.tolist()])
            s = Slice(of.axis, index, old, old, of.size)
            slices[name] = Slice(of.axis, index, old, s.read(parameters[name]).contiguous().cpu(), of.size)
        infos = [p.info for p in self.edits]
        return WeightPatch(slices, {**(infos[0] if infos else {}), **merged_info(infos)})
