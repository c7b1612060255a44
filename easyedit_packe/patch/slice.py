"""`Slice`: the nodes of one parameter that an edit changes, before and after."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PatchError
from ..model.bits import bits, same_bits


@dataclass(frozen=True)
class Slice:
    """The touched nodes of one parameter.

    Attributes:
        axis: axis of the parameter that counts nodes (0 for a bias).
        index: which of them, int64 [k], without duplicates.
        old, new: their values before and after, in the parameter's dtype, one node a row: [k, D], or [k] for a bias.
        size: length of the parameter along `axis`.
    """

    axis: int
    index: Tensor
    old: Tensor
    new: Tensor
    size: int

    @property
    def change(self) -> Tensor:
        """new - old in at least float32, shaped as they are."""
        dtype = torch.promote_types(self.new.dtype, torch.float32)
        return self.new.to(dtype) - self.old.to(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole parameter."""
        rest = list(self.new.shape[1:])
        rest.insert(self.axis, self.size)
        return tuple(rest)

    def write(self, parameter: Tensor, values: Tensor) -> None:
        """Put `values` (shaped as `old`) at the touched nodes of `parameter`."""
        values = values.to(parameter.device)
        with torch.no_grad():
            parameter.index_copy_(self.axis, self.index.to(parameter.device), values.movedim(0, self.axis))

    def read(self, parameter: Tensor) -> Tensor:
        """The touched nodes of `parameter`, shaped as `old`."""
        found = parameter.detach().index_select(self.axis, self.index.to(parameter.device))
        return found.movedim(self.axis, 0)

    def require_alike(self, name: str, other: Slice) -> None:
        """Raises `PatchError` where two edits do not hold the parameter `name` alike."""
        if self.axis != other.axis or self.shape != other.shape or self.new.dtype != other.new.dtype:
            raise PatchError(
                f"{name}: one patch holds it in {'columns' if self.axis else 'rows'} of {self.shape} {self.new.dtype}, "
                f"another in {'columns' if other.axis else 'rows'} of {other.shape} {other.new.dtype}; only edits of "
                "one kind of model and of the same vectors can be combined."
            )

    def then(self, name: str, later: Slice) -> Slice:
        """Both, one after the other: where they share a node, this one's old and the later one's new value.

        Raises:
            PatchError: they lay the parameter `name` out differently, or the later one does not start where this ends.
        """
        self.require_alike(name, later)
        index, where = torch.unique(torch.cat([self.index.cpu(), later.index.cpu()]), return_inverse=True)
        device = self.old.device
        at_first, at_later = where[: len(self.index)].to(device), where[len(self.index) :].to(device)
        old = self.old.new_empty(len(index), *self.old.shape[1:])
        old[at_later] = later.old.to(device)
        expected = old.clone()
        expected[at_first] = self.new
        if not same_bits(expected[at_later], later.old):
            raise PatchError(
                f"{name}: a patch was not made on top of those before it; merge in the order of the edits."
            )
        old[at_first] = self.old
        expected[at_later] = later.new.to(device)
        return Slice(self.axis, index.to(device), old, expected, self.size)

    @staticmethod
    def between(before: Tensor, after: Tensor) -> Slice | None:
        """What turns one value of a parameter into another, by changed rows or columns, whichever are fewer."""
        changed = bits(before) != bits(after)
        if not changed.any():
            return None
        axes = range(min(before.ndim, 2))
        lines = [changed.movedim(a, 0).flatten(1).any(1) if before.ndim > 1 else changed for a in axes]
        axis = min(axes, key=lambda a: int(lines[a].sum()))
        index = lines[axis].nonzero().squeeze(1)
        old, new = (t.index_select(axis, index).movedim(axis, 0).contiguous() for t in (before, after))
        return Slice(axis, index, old, new, before.shape[axis])
