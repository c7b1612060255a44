"""Where the key and value vectors of a model live (paper, sections 2.3 and 3.1).

A feed-forward block is a memory `FFN(x) = sum_j g(x . k_j) v_j` with keys K [D, M] and values V [M, D];
D is the hidden size, M the intermediate size. A *node* is one `k_j` or one `v_j`. How a node lies in a
Hugging Face weight is a fact about each architecture, written down in `LAYOUTS` and never guessed from shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..errors import ModelError, one_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["key", "value"]


@dataclass(frozen=True)
class Layout:
    """How one architecture stores K and V.

    `key` and `value` are module names inside a decoder layer, `gate` that of a module that holds no nodes, where there
    is one. `transposed` tells `Conv1D` weights ([in, out], GPT-2) from `nn.Linear` weights ([out, in]).
    """

    key: str
    value: str
    gate: str | None = None
    transposed: bool = False

    @property
    def linear(self) -> list[str]:
        """The linear modules of a feed-forward block."""
        return [name for name in (self.key, self.value, self.gate) if name is not None]


_GATED = Layout("mlp.up_proj", "mlp.down_proj", "mlp.gate_proj")

# `config.model_type` -> layout. To support an architecture, add its line here and a tiny model to tests/conftest.py.
LAYOUTS: dict[str, Layout] = {
    "llama": _GATED,  # Llama 2, Llama 3, SmolLM 1 and 2
    "mistral": _GATED,
    "qwen2": _GATED,  # Qwen 2 and 2.5
    "qwen3": _GATED,
    "smollm3": _GATED,
    "gptj": Layout("mlp.fc_in", "mlp.fc_out"),
    "gpt2": Layout("mlp.c_fc", "mlp.c_proj", transposed=True),
}


@dataclass(frozen=True)
class FFNModule:
    """One key or value matrix of the model.

    Attributes:
        name: dotted module name, e.g. `model.layers.3.mlp.up_proj`.
        layer: index of the decoder layer.
        kind: "key" (maps D to M) or "value" (maps M to D).
        module: the `nn.Linear` or `Conv1D` itself.
        node_axis: axis of `module.weight` that counts nodes; the other axis has length D.
    """

    name: str
    layer: int
    kind: Kind
    module: Any
    node_axis: int

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def bias(self) -> Any:
        """[M] for a key module, where entry j belongs to node j; [D] for a value module, where it belongs to none."""
        return getattr(self.module, "bias", None)

    @property
    def has_node_bias(self) -> bool:
        return self.kind == "key" and self.bias is not None

    @property
    def num_nodes(self) -> int:
        """M."""
        return self.weight.shape[self.node_axis]

    def nodes(self, index: Tensor) -> Tensor:
        """Copy of the vectors of the nodes `index` [k], one a row: [k, D]."""
        rows = self.weight.detach().index_select(self.node_axis, index.to(self.weight.device))
        return rows if self.node_axis == 0 else rows.T.contiguous()


@dataclass(frozen=True)
class FFNMap:
    """All key and value modules of a model, in the order the forward pass meets them."""

    modules: tuple[FFNModule, ...]
    hidden_size: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> FFNMap:
        """Find the modules of a Hugging Face causal language model.

        Raises:
            ModelError: unknown architecture; an adapter around the model or its modules; weights that are not in
                memory (offloaded to disk or the meta device), not floating point (quantised), or made under
                `torch.inference_mode`.
        """
        _check_plain(model)
        model_type = getattr(getattr(model, "config", None), "model_type", None)
        layout = LAYOUTS.get(str(model_type))
        if layout is None:
            raise ModelError(
                f"expected a model whose feed-forward layout is known, got model_type={model_type!r} "
                f"({type(model).__name__}); {one_of(model_type, sorted(LAYOUTS))}. To add one, give its key and "
                "value module names in easyedit_packe/model/ffn.py: LAYOUTS."
            )
        hidden_size = model.config.hidden_size
        found: list[FFNModule] = []
        for name, module in model.named_modules():
            kinds: tuple[tuple[Kind, str], ...] = (("key", layout.key), ("value", layout.value))
            for kind, suffix in kinds:
                if name.endswith("." + suffix):
                    layer = int(name.removesuffix("." + suffix).rsplit(".", 1)[1])
                    node_axis = int((kind == "value") != layout.transposed)
                    found.append(FFNModule(name, layer, kind, module, node_axis))
        found.sort(key=lambda m: (m.layer, m.kind))
        if len(found) != 2 * model.config.num_hidden_layers:
            raise ModelError(
                f"expected {2 * model.config.num_hidden_layers} modules named *.{layout.key} and *.{layout.value} "
                f"in a {model_type} model, found {len(found)}; {_MERGE}"
            )
        for m in found:
            _check_weight(m, hidden_size)
        return cls(tuple(found), hidden_size)

    @property
    def num_nodes(self) -> int:
        """M, the same in every layer of the known architectures."""
        return self.modules[0].num_nodes


_MERGE = (
    "adapters that wrap a model must be merged first, model = model.merge_and_unload(); or pass the base model, loaded "
    "without its adapter."
)


def _check_plain(model: PreTrainedModel) -> None:
    if any(cls.__module__.partition(".")[0] == "peft" for cls in type(model).__mro__):
        raise ModelError(f"expected a plain Hugging Face model, got PEFT's {type(model).__name__}; {_MERGE}")


def _check_weight(m: FFNModule, hidden_size: int) -> None:
    weight = getattr(m.module, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise ModelError(
            f"expected a floating-point weight in {m.name}, got {getattr(weight, 'dtype', type(m.module).__name__)}; "
            "load the model unquantised (float32, bfloat16 or float16) to edit it."
        )
    if "weight" not in m.module._parameters:
        raise ModelError(
            f"expected {m.name} to hold its own weight, got {type(m.module).__name__} from "
            f"{type(m.module).__module__}, which keeps it elsewhere; {_MERGE}"
        )
    if weight.device.type == "meta":
        raise ModelError(
            f"expected the weight of {m.name} in memory, but it is offloaded (meta device); "
            "load the model with a device_map that keeps every layer on a GPU or on the CPU."
        )
    if weight.is_inference():
        raise ModelError(f"{m.name} was made under torch.inference_mode and cannot be edited; load it outside.")
    if weight.ndim != 2 or weight.shape[1 - m.node_axis] != hidden_size:
        raise ModelError(
            f"expected {m.name}.weight with hidden size {hidden_size} on axis {1 - m.node_axis}, got "
            f"{tuple(weight.shape)}; correct this architecture's entry in easyedit_packe/model/ffn.py: LAYOUTS."
        )


def slice_dtype(model_dtype: torch.dtype) -> torch.dtype:
    """Precision of gradients and updates: float32 for float16, bfloat16 and float32 models, float64 for float64."""
    return torch.promote_types(model_dtype, torch.float32)
