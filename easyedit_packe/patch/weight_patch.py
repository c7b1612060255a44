"""`WeightPatch`: the slices of weights that an edit changes, apart from the model they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from ..errors import PatchError
from ..model.bits import same_bits
from . import file, lora
from .layout import layout_info
from .parameters import find_parameters
from .slice import Slice

Side = Literal["old", "new"]


@dataclass(frozen=True)
class WeightPatch:
    """An edit as data: for each touched parameter, which nodes change from what to what.

    Attributes:
        slices: by parameter name, e.g. `model.layers.0.mlp.up_proj.weight`, or, of one expert,
            `model.layers.0.mlp.experts.down_proj[3]`.
        info: what is worth keeping about the edit, as plain values: `base_model`, `model_type`, `ffn`
            (see `layout.py`), `hparams`, `requests`, `losses` of each step, where the dtype is narrower than float32
            `rounding` and `rounded` (see `packe/rounding.py` and `achieved.py`), and `metrics` if they were measured.
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

    def _swap(self, model: nn.Module, present: Side, wanted: Side) -> None:
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
        """The parameters that the patch touches, by name.

        Raises:
            PatchError: the model does not have one, or it is of another shape or dtype, or not in memory.
        """
        parameters = find_parameters(model, self.slices)
        for name, s in self.slices.items():
            p = parameters.get(name)
            if p is None:
                raise PatchError(f"the model has no parameter {name!r}; this patch belongs to another model.")
            if p.dtype != s.new.dtype or tuple(p.shape) != s.shape:
                raise PatchError(
                    f"{name}: the patch is for {s.new.dtype} values of shape {s.shape}, the model has {p.dtype} "
                    f"of shape {tuple(p.shape)}; load the model in the patch's dtype, or find the patch's model."
                )
            if p.device.type == "meta":
                raise PatchError(
                    f"expected {name} in memory, but it is offloaded (meta device); load the model with a device_map "
                    "that keeps every layer on a GPU or on the CPU."
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
        """Write one safetensors file; see `patch/file.py`."""
        return file.save(self.slices, self.info, path)

    @staticmethod
    def load(path: str | Path) -> WeightPatch:
        """Read what `save` wrote; a damaged file raises `PatchError`. See `patch/file.py`."""
        return WeightPatch(*file.load(path))

    def to_lora(self, max_rank: int | None = None, uniform: bool = False, vllm: bool = False) -> lora.LoraAdapter:
        """The same change as a PEFT LoRA adapter; see `patch/lora.py`."""
        return lora.to_lora(self.slices, self.info, max_rank, uniform, vllm)

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
                merged[name] = merged[name].then(name, s) if name in merged else s
        infos = [p.info for p in patches]
        return WeightPatch(merged, infos[0] if len(infos) == 1 else merged_info(infos))

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
            if not p.ndim and not same_bits(p, q):
                raise PatchError(f"{name}: a patch holds rows or columns, and this parameter is one number.")
            s = Slice.between(p.detach(), q.detach().to(p.device)) if p.ndim else None
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
        **layout_info(model),
    }


def merged_info(infos: list[dict[str, Any]]) -> dict[str, Any]:
    """The first one's model and settings; the requests, the edits' names, and what each edit achieved, rounded, of all,
    as it was when that edit was made; what rounding took of the one that lost most."""
    first = infos[0] if infos else {}
    merged: dict[str, Any] = {k: first[k] for k in ("base_model", "model_type", "ffn", "hparams") if k in first}
    edits = [e for i in infos for e in i.get("edits", [])]
    lost = [i["rounding"] for i in infos if "rounding" in i]
    rounded = [i["rounded"] for i in infos if "rounded" in i]
    if len(rounded) < len(infos):  # one of an older version, whose requests would have no row
        rounded = []
    return {
        **merged,
        "requests": [r for i in infos for r in i.get("requests", [])],
        **({"edits": edits} if edits else {}),
        **({"rounding": max(lost, key=lambda r: r["error"])} if lost else {}),
        **(
            {"rounded": {**first["rounded"], "requests": [r for i in rounded for r in i["requests"]]}}
            if rounded
            else {}
        ),
        "merged": sum(i.get("merged", 1) for i in infos),
    }
