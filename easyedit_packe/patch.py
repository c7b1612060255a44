"""`WeightPatch`: the slices of weights that an edit changes, apart from the model they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
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


@dataclass(frozen=True)
class WeightPatch:
    """An edit as data: for each touched parameter, which nodes change from what to what.

    Attributes:
        slices: by parameter name, e.g. `model.layers.0.mlp.up_proj.weight`.
        info: what is worth keeping about the edit, as plain values: `base_model`, `model_type`, `hparams`,
            `requests`, `losses` of each step, and `metrics` if they were measured.
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
        parameters = self.parameters_of(model)
        for name, s in self.slices.items():
            found = s.read(parameters[name])
            if same_bits(found, getattr(s, present)):
                continue
            if same_bits(found, getattr(s, wanted)):
                why = "the patch is already applied" if wanted == "new" else "the patch is not applied"
            elif wanted == "new":
                why = (
                    "it is another model, or an edit that this one was made on top of is missing: apply that one first"
                )
            else:
                why = "a later edit changed the same nodes: revert that one first, or use EditStack.revert"
            raise PatchError(f"{name}: the model does not hold this patch's {present} values; {why}.")
        done: list[str] = []
        try:
            for name, s in self.slices.items():
                done.append(name)
                s.write(parameters[name], getattr(s, wanted))
        except BaseException:
            for name in done:
                self.slices[name].write(parameters[name], getattr(self.slices[name], present))
            raise

    def parameters_of(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's parameters by name.

        Raises:
            PatchError: one that the patch touches is missing, or of another shape or dtype.
        """
        parameters = dict(model.named_parameters())
        for name, s in self.slices.items():
            p = parameters.get(name)
            if p is None:
                raise PatchError(f"the model has no parameter {name!r}; this patch belongs to another model.")
            if p.dtype != s.new.dtype or tuple(p.shape) != s.shape:
                raise PatchError(
                    f"{name}: the patch is for {s.new.dtype} values of shape {s.shape}, the model has {p.dtype} "
                    f"of shape {tuple(p.shape)}; load the model in the patch's dtype, or find the patch's model."
                )
        return parameters

    def norms(self) -> dict[str, float]:
        """L2 norm of the change of each parameter."""
        return {name: s.change.double().norm().item() for name, s in self.slices.items()}

    @property
    def num_weights(self) -> int:
        """How many single weights the patch touches."""
        return sum(s.new.numel() for s in self.slices.values())

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file; see `patch_file`."""
        from .patch_file import save

        return save(self, path)

    @staticmethod
    def load(path: str | Path) -> WeightPatch:
        """Read what `save` wrote; a damaged file raises `PatchError`. See `patch_file`."""
        from .patch_file import load

        return load(path)

    def to_lora(self, max_rank: int | None = None, uniform: bool = False) -> Any:
        """The same change as a PEFT LoRA adapter; see `lora.to_lora`."""
        from .lora import to_lora

        return to_lora(self, max_rank, uniform)

    @staticmethod
    def merge(patches: Iterable[WeightPatch]) -> WeightPatch:
        """One patch that does what these do one after another, in the order given.

        Where they touch the same node, the merged patch has the first one's old and the last one's new value.

        Raises:
            PatchError: a patch does not start, at a node it shares, from where those before it end; or there is none.
        """
        patches = list(patches)
        if not patches:
            raise PatchError("expected at least one patch to merge, got none.")
        merged: dict[str, Slice] = {}
        for patch in patches:
            for name, s in patch.slices.items():
                merged[name] = _merge_slices(name, merged[name], s) if name in merged else s
        infos = [p.info for p in patches]
        return WeightPatch(merged, infos[0] if len(infos) == 1 else _merge_infos(infos))

    @staticmethod
    def between(before: nn.Module, after: nn.Module) -> WeightPatch:
        """The difference of two models of one architecture as a patch, whatever editor made it.

        Each changed parameter is stored by its changed rows or columns, whichever are fewer. Where more than half
        of them changed the patch is no small thing; `info["dense"]` names these parameters.

        Raises:
            PatchError: the models' parameters differ in name, shape or dtype.
        """
        theirs = dict(after.named_parameters())
        slices, dense = {}, []
        for name, p in before.named_parameters():
            q = theirs.pop(name, None)
            if q is None or q.shape != p.shape or q.dtype != p.dtype:
                raise PatchError(f"{name}: the two models differ in more than values; compare models of one kind.")
            s = _difference(p.detach(), q.detach().to(p.device))
            if s is not None:
                slices[name] = s
                if len(s.index) > s.size / 2:
                    dense.append(name)
        if theirs:
            raise PatchError(f"only the second model has {sorted(theirs)[0]!r}; compare models of one kind.")
        return WeightPatch(slices, {**model_info(before), "dense": dense})


def model_info(model: nn.Module) -> dict[str, Any]:
    """What a patch keeps about the model it is for."""
    config = getattr(model, "config", None)
    return {
        "base_model": str(getattr(config, "_name_or_path", "") or ""),
        "model_type": getattr(config, "model_type", None),
    }


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit: -0.0 is not 0.0, and a NaN equals itself."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(_bits(a), _bits(b.to(a.device)))


def _bits(a: Tensor) -> Tensor:
    return a.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()])


def _difference(p: Tensor, q: Tensor) -> Slice | None:
    changed = _bits(p) != _bits(q)
    if not changed.any():
        return None
    lines = [changed.movedim(axis, 0).flatten(1).any(1) if p.ndim > 1 else changed for axis in range(min(p.ndim, 2))]
    axis = min(range(len(lines)), key=lambda a: int(lines[a].sum()))
    index = lines[axis].nonzero().squeeze(1)

    def take(t: Tensor) -> Tensor:
        return t.index_select(axis, index).movedim(axis, 0).contiguous()

    return Slice(axis, index, take(p), take(q), p.shape[axis])


def _merge_slices(name: str, first: Slice, second: Slice) -> Slice:
    if first.axis != second.axis or first.shape != second.shape or first.new.dtype != second.new.dtype:
        raise PatchError(f"{name}: the patches lay this parameter out differently; they are of different models.")
    index, where = torch.unique(torch.cat([first.index.cpu(), second.index.cpu()]), return_inverse=True)
    at_first, at_second = where[: len(first.index)], where[len(first.index) :]
    device = first.old.device
    old = first.old.new_empty(len(index), *first.old.shape[1:])
    old[at_second.to(device)] = second.old.to(device)
    expected = old.clone()
    expected[at_first.to(device)] = first.new
    if not same_bits(expected[at_second.to(device)], second.old):
        raise PatchError(f"{name}: a patch was not made on top of those before it; merge in the order of the edits.")
    old[at_first.to(device)] = first.old
    new = expected
    new[at_second.to(device)] = second.new.to(device)
    return Slice(first.axis, index.to(device), old, new, first.size)


def _merge_infos(infos: list[dict[str, Any]]) -> dict[str, Any]:
    merged = {k: infos[0].get(k) for k in ("base_model", "model_type", "hparams") if k in infos[0]}
    return {
        **merged,
        "requests": [r for i in infos for r in i.get("requests", [])],
        "merged": sum(i.get("merged", 1) for i in infos),
    }
