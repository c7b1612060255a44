"""A patch as an ordinary PEFT LoRA adapter.

Changing k nodes of a matrix is a rank-k update: with E the columns of the identity at the touched nodes and C [k, D]
their changes, a key module (weight [M, D]) changes by `E C` and a value module (weight [D, M]) by `C^T E^T`. These are
LoRA's `B A` exactly, with rank k and alpha = k so that its scale is 1. A bias change is LoRA's bias of B.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cache import written_whole
from ..errors import PatchError
from ..model.fetch import hub_name
from . import lora_gguf
from .layout import layout_of
from .parameters import whole_and_part
from .slice import Slice

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `--max-lora-rank` (its vllm/config/lora.py); its newer versions take 1 as well."""


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter in PEFT's terms.

    Attributes:
        tensors: float32 `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r], and
            `.lora_B.bias` [out] where the patch changes biases.
        config: keyword arguments of `peft.LoraConfig`.
        errors: by module, the relative Frobenius error of its update; 0 unless the rank was capped.
        model_type: that of the model's configuration, if the patch says it.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    errors: dict[str, float]
    model_type: str | None = None

    @property
    def ranks(self) -> list[int]:
        """Each that a module has, in ascending order."""
        return sorted({self.config["r"], *self.config["rank_pattern"].values()})

    def save(self, folder: str | Path) -> Path:
        """Write `adapter_config.json` and `adapter_model.safetensors`, as `PeftModel.from_pretrained` reads them."""
        from peft import LoraConfig
        from safetensors.torch import save as to_bytes

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / "adapter_model.safetensors") as part:
            part.write_bytes(to_bytes(self.tensors, {"format": "pt"}))
        LoraConfig(**self.config).save_pretrained(folder)
        return folder

    def save_gguf(self, path: str | Path) -> Path:
        """Write the GGUF file that llama.cpp loads; see `lora_gguf.py`."""
        return lora_gguf.write(self.tensors, self.config, self.model_type, path)


def to_lora(
    slices: dict[str, Slice],
    info: dict[str, Any],
    max_rank: int | None = None,
    uniform: bool = False,
    vllm: bool = False,
) -> LoraAdapter:
    """Turn an edit into an adapter.

    Args:
        slices, info: of a patch that says how its model's feed-forward blocks lie (`layout.py`), touching weights of
            their linear modules and their biases.
        max_rank: no module gets a higher rank; each is then the best approximation of its rank (truncated SVD).
        uniform: give every module the same rank by adding zeros, for programs that know no `rank_pattern`.
        vllm: uniform, with the smallest rank of `VLLM_RANKS` that holds all modules.

    Raises:
        PatchError: the patch says nothing of its architecture, touches something that LoRA, or vLLM, cannot hold, or
            nothing.
    """
    linear, transposed = layout_of(info)
    if max_rank is not None and max_rank < 1:
        raise PatchError(f"max_rank: expected at least 1, got {max_rank}.")
    tensors, ranks, errors = {}, {}, {}
    biases: dict[str, Slice] = {}
    for name, s in slices.items():
        module, _, kind = name.rpartition(".")
        if whole_and_part(name)[1] is not None:
            raise PatchError(
                f"{name}: LoRA here holds linear modules, and those of a mixture of experts are none; keep this change "
                "as a patch (WeightPatch.save), or apply it and save the whole model (model.save_pretrained)."
            )
        # PEFT loads an adapter of any other module without a word, and some of them, such as embeddings, it never uses.
        if kind not in ("weight", "bias") or not any(fnmatchcase(module, m) for m in linear):
            raise PatchError(
                f"{name}: expected changes of {', '.join(linear)} only: LoRA here holds the linear modules of "
                "feed-forward blocks; keep this change as a patch (WeightPatch.save), or apply it and save the whole "
                "model (model.save_pretrained)."
            )
        if kind == "bias":
            biases[module] = s
            continue
        a, b, errors[module] = _factors(s, transposed, max_rank)
        ranks[module] = len(a)
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    if not ranks:
        raise PatchError("the patch changes no linear weight, so there is nothing to export.")
    for module in [m for m in biases if m not in ranks]:
        raise PatchError(f"{module}.bias changes but its weight does not; LoRA's bias needs a change of the weight.")
    if biases:
        for module in ranks:
            out_features = len(tensors[f"base_model.model.{module}.lora_B.weight"])
            bias = torch.zeros(out_features)
            if module in biases:
                bias[biases[module].index.cpu()] = biases[module].change.float().cpu()
            tensors[f"base_model.model.{module}.lora_B.bias"] = bias
    if uniform or vllm:
        highest = max(ranks.values())
        ranks = dict.fromkeys(ranks, _allowed_by_vllm(highest, bool(biases)) if vllm else highest)
        for module, rank in ranks.items():
            down, up = (f"base_model.model.{module}.lora_{x}.weight" for x in "AB")
            missing = rank - len(tensors[down])
            tensors[down] = torch.nn.functional.pad(tensors[down], (0, 0, 0, missing))
            tensors[up] = torch.nn.functional.pad(tensors[up], (0, missing))
    common = max(set(ranks.values()), key=list(ranks.values()).count)
    pattern = {m: r for m, r in ranks.items() if r != common}
    config = {
        "task_type": "CAUSAL_LM",
        "r": common,
        "lora_alpha": common,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "lora_bias": bool(biases),
        "fan_in_fan_out": transposed,
        "base_model_name_or_path": hub_name(str(info.get("base_model") or "")) or None,
        "inference_mode": True,
    }
    return LoraAdapter(tensors, config, errors, info.get("model_type"))


def _allowed_by_vllm(rank: int, biases: bool) -> int:
    if biases:
        raise PatchError(
            "expected changes of weights alone, got changes of biases, which vLLM's adapters cannot hold; edit with "
            "value_bias: frozen, or export the whole model (packe export model)."
        )
    if rank > VLLM_RANKS[-1]:
        raise PatchError(
            f"vLLM's adapters have a rank of at most {VLLM_RANKS[-1]}, and this edit one of {rank}; cap it (--max-rank "
            f"{VLLM_RANKS[-1]}), which says how wrong the adapter then is, or export the whole model (packe export "
            "model)."
        )
    return min(r for r in VLLM_RANKS if r >= rank)


def _factors(s: Slice, transposed: bool, max_rank: int | None) -> tuple[Tensor, Tensor, float]:
    """(A [r, in], B [out, r], relative error) of one weight's change."""
    change = s.change.float().cpu()
    nodes, vector = change.shape
    error = 0.0
    if max_rank is not None and min(nodes, vector) > max_rank:
        # E has orthonormal columns, so the best approximation of E C is E times that of C.
        u, sigma, vh = torch.linalg.svd(change, full_matrices=False)
        error = (sigma[max_rank:].norm() / sigma.norm().clamp_min(1e-30)).item()
        of_nodes, change = u[:, :max_rank], sigma[:max_rank, None] * vh[:max_rank]
    elif nodes > vector:  # E C itself is smaller than E, and as exact
        of_nodes, change = change, torch.eye(vector)
    else:
        of_nodes = torch.eye(nodes)
    outer = torch.zeros(s.size, of_nodes.shape[1]).index_copy_(0, s.index.cpu(), of_nodes)  # E times it
    nodes_are_outputs = (s.axis == 0) != transposed
    if nodes_are_outputs:
        return change.contiguous(), outer, error
    return outer.T.contiguous(), change.T.contiguous(), error
