"""`WeightPatch`: the slices of weights that an edit changes, apart from the model they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .errors import PatchError


@dataclass(frozen=True)
class Slice:
    """The touched nodes of one parameter.

    Attributes:
        axis: axis of the parameter that counts nodes (0 for a bias).
        index: which of them, int64 [k], without duplicates.
        old, new: their values before and after, in the parameter's dtype, one node a row: [k, D], or [k] for a bias.
    """

    axis: int
    index: Tensor
    old: Tensor
    new: Tensor

    def write(self, parameter: Tensor, values: Tensor) -> None:
        """Put `values` (shaped as `old`) at the touched nodes of `parameter`."""
        values = values.to(parameter.device)
        with torch.no_grad():
            parameter.index_copy_(self.axis, self.index.to(parameter.device), values.movedim(0, self.axis))

    def read(self, parameter: Tensor) -> Tensor:
        """The touched nodes of `parameter`, shaped as `old`."""
        found = parameter.detach().index_select(self.axis, self.index.to(parameter.device))
        return found.movedim(self.axis, 0)


@dataclass(frozen=True)
class WeightPatch:
    """An edit as data: for each touched parameter, which nodes change from what to what.

    Attributes:
        slices: by parameter name, e.g. `model.layers.0.mlp.up_proj.weight`.
        info: what is worth keeping about the edit: losses of each step, requests, hyper-parameters.
    """

    slices: dict[str, Slice]
    info: dict[str, Any] = field(default_factory=dict)

    def apply(self, model: nn.Module) -> None:
        """Change the model from old to new values.

        Raises:
            PatchError: the model's values at these nodes are not the old ones bit for bit; nothing is changed.
        """
        self._swap(model, "old", "new")

    def revert(self, model: nn.Module) -> None:
        """Change the model back from new to old values, bit for bit.

        Raises:
            PatchError: the model's values at these nodes are not the new ones bit for bit; nothing is changed.
        """
        self._swap(model, "new", "old")

    def _swap(self, model: nn.Module, present: str, wanted: str) -> None:
        parameters = self._parameters(model)
        for name, s in self.slices.items():
            if not same_bits(s.read(parameters[name]), getattr(s, present)):
                raise PatchError(
                    f"{name}: the model does not hold this patch's {present} values; "
                    + ("it is another model, or the patch is already applied." if present == "old"
                       else "the patch is not applied, or a later edit changed the same nodes: revert that one first.")
                )  # fmt: skip
        done: list[str] = []
        try:
            for name, s in self.slices.items():
                done.append(name)
                s.write(parameters[name], getattr(s, wanted))
        except BaseException:
            for name in done:
                self.slices[name].write(parameters[name], getattr(self.slices[name], present))
            raise

    def _parameters(self, model: nn.Module) -> dict[str, Tensor]:
        parameters = dict(model.named_parameters())
        for name, s in self.slices.items():
            p = parameters.get(name)
            if p is None:
                raise PatchError(f"the model has no parameter {name!r}; this patch belongs to another model.")
            if p.dtype != s.new.dtype or s.read(p[:0] if p.shape[s.axis] == 0 else p).shape != s.new.shape:
                raise PatchError(
                    f"{name}: the patch holds {s.new.dtype} values of shape {tuple(s.new.shape)}, "
                    f"the model {p.dtype} of shape {tuple(p.shape)}; this patch belongs to another model."
                )
        return parameters

    def norms(self) -> dict[str, float]:
        """L2 norm of the change of each parameter."""
        return {name: (s.new.double() - s.old.double()).norm().item() for name, s in self.slices.items()}

    @property
    def num_weights(self) -> int:
        """How many single weights the patch touches."""
        return sum(s.new.numel() for s in self.slices.values())

    @staticmethod
    def merge(patches: Iterable[WeightPatch]) -> WeightPatch:
        """One patch that does what these do one after another, in the order given.

        Where they touch the same node, the merged patch has the first one's old and the last one's new value.
        """
        merged: dict[str, Slice] = {}
        infos: list[dict[str, Any]] = []
        for patch in patches:
            infos.append(patch.info)
            for name, s in patch.slices.items():
                merged[name] = _merge_slices(merged[name], s) if name in merged else s
        return WeightPatch(merged, infos[0] if len(infos) == 1 else {"merged": infos})


def _merge_slices(first: Slice, second: Slice) -> Slice:
    if first.axis != second.axis:
        raise PatchError("the patches lay out the same parameter differently; they belong to different models.")
    index, where = torch.unique(torch.cat([first.index.cpu(), second.index.cpu()]), return_inverse=True)
    at_first, at_second = where[: len(first.index)], where[len(first.index) :]
    old = first.old.new_empty(len(index), *first.old.shape[1:])
    new = torch.empty_like(old)
    device = old.device
    old[at_second.to(device)] = second.old.to(device)
    old[at_first.to(device)] = first.old
    new[at_first.to(device)] = first.new
    new[at_second.to(device)] = second.new.to(device)
    return Slice(first.axis, index, old, new)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit: -0.0 is not 0.0, and a NaN equals itself."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    as_int = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.contiguous().view(as_int), b.to(a.device).contiguous().view(as_int))


class OriginalWeights(Mapping[str, Tensor]):
    """What EasyEdit restores from: parameter name -> the whole original tensor.

    Only the touched slices are held. A whole tensor is put together when it is asked for: the model's present
    one with this edit's nodes set back. The edit itself is at hand as `.patch`.
    """

    def __init__(self, model: nn.Module, patch: WeightPatch) -> None:
        self._model = model
        self.patch = patch

    def __getitem__(self, name: str) -> Tensor:
        s = self.patch.slices[name]
        full = self._model.get_parameter(name).detach().clone()
        s.write(full, s.old)
        return full

    def __iter__(self) -> Iterator[str]:
        return iter(self.patch.slices)

    def __len__(self) -> int:
        return len(self.patch.slices)

    def restore(self) -> None:
        """Set this edit's nodes back in place, without any whole copy."""
        for name, s in self.patch.slices.items():
            s.write(self._model.get_parameter(name).data, s.old)
