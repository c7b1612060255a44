"""Where the key and value vectors of a model live (paper, sections 2.3 and 3.1).

A feed-forward block is a memory `FFN(x) = sum_j g(x . k_j) v_j` with keys K [D, M] and values V [M, D];
D is the hidden size, M the intermediate size. A *node* is one `k_j` or one `v_j`. Which modules hold them in a
Hugging Face model is known by the form of its blocks (`blocks.py`); shapes only confirm it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import ModelError
from .behaviour import check_behaviour, check_gradients
from .blocks import EXPERTS, FORMS, Block, find_blocks, is_plain, shape_of
from .config import text_config
from .experts import Experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["key", "value"]


class Part(NamedTuple):
    """Where some nodes lie in the model's parameters.

    Attributes:
        weight, bias: the parameters' names; `...down_proj[3]` is expert 3's part of one.
        at: where on the axis that counts nodes [k'].
        size: of that axis.
        rows: which of the nodes asked for these are, an index of [k].
    """

    weight: str
    bias: str
    at: Tensor
    size: int
    rows: Any


@dataclass(frozen=True)
class FFNModule:
    """One key or value matrix of the model.

    Attributes:
        name: dotted module name, e.g. `model.layers.3.mlp.up_proj`.
        layer: index of the decoder layer.
        kind: "key" (maps D to M) or "value" (maps M to D).
        module: the `nn.Linear` or `Conv1D` itself.
        node_axis: axis of `module.weight` that counts nodes; the other axis has length D.
        first: where on that axis node 0 lies; what comes before, in a packed matrix, is a gate.
    """

    name: str
    layer: int
    kind: Kind
    module: Any
    node_axis: int
    first: int = 0

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def bias(self) -> Any:
        """One entry a row of a key module's weight, which belongs to that row's node; [D] for a value module, where it
        belongs to none."""
        return getattr(self.module, "bias", None)

    @property
    def has_node_bias(self) -> bool:
        return self.kind == "key" and self.bias is not None

    @property
    def num_nodes(self) -> int:
        """M."""
        return shape_of(self.module)[self.node_axis] - self.first

    def places(self, index: Tensor) -> Tensor:
        """Where the nodes `index` [k] lie on the axis of the weight that counts them, and in a key module's output."""
        return index + self.first if self.first else index

    def nodes(self, index: Tensor) -> Tensor:
        """Copy of the vectors of the nodes `index` [k], one a row: [k, D]."""
        rows = self.weight.detach().index_select(self.node_axis, self.places(index).to(self.weight.device))
        return rows if self.node_axis == 0 else rows.T.contiguous()

    def biases(self, index: Tensor) -> Tensor:
        """Copy of the nodes' bias entries [k], of a key module that has them."""
        return self.bias.detach()[self.places(index)]

    def parts(self, index: Tensor) -> Iterator[Part]:
        """Where the nodes `index` [k] lie, parameter by parameter."""
        size = shape_of(self.module)[self.node_axis]
        yield Part(f"{self.name}.weight", f"{self.name}.bias", self.places(index), size, slice(None))


@dataclass(frozen=True, kw_only=True)
class ExpertsModule(FFNModule):
    """All key, or all value vectors of a layer's experts: `module` only stands for them, see `experts.py`.

    `name` is a parameter's, `node_axis` that of one expert's matrix. The biases of value vectors, which belong to no
    node, are never trained.
    """

    experts: Experts

    @property
    def weight(self) -> Tensor:
        """[E, ., .]"""
        return getattr(self.experts.module, self.name.rpartition(".")[2])

    @property
    def bias(self) -> Any:
        """[E, .] for a key module with biases, else None."""
        return getattr(self.experts.module, f"{self.experts.key}_bias", None) if self.kind == "key" else None

    @property
    def num_nodes(self) -> int:
        """E M."""
        return self.experts.num_experts * self.experts.width

    def _at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The expert of each node [k], and its place in that expert's matrix."""
        index = index.to(self.weight.device)
        expert, node = index // self.experts.width, index % self.experts.width
        return expert, self.experts.up.to(index.device)[node] if self.kind == "key" else node

    def nodes(self, index: Tensor) -> Tensor:
        weight = self.weight.detach()
        return (weight if self.node_axis == 0 else weight.transpose(1, 2))[self._at(index)]

    def biases(self, index: Tensor) -> Tensor:
        return self.bias.detach()[self._at(index)]

    def parts(self, index: Tensor) -> Iterator[Part]:
        expert, at = self._at(index)
        for e in expert.unique().tolist():
            rows = (expert == e).nonzero().squeeze(1).cpu()
            names = f"{self.name}[{e}]", f"{self.name}_bias[{e}]"
            yield Part(*names, at[rows], self.weight.shape[1 + self.node_axis], rows)


@dataclass(frozen=True)
class FFNMap:
    """All key and value modules of a model, in the order the forward pass meets them.

    Attributes:
        has_weights: whether the weights may be read and changed; if not, an edit can only be put beside them.
    """

    modules: tuple[FFNModule, ...]
    hidden_size: int
    has_weights: bool = True

    @classmethod
    def of(cls, model: PreTrainedModel, quantised: bool = False) -> FFNMap:
        """Find the modules of a Hugging Face causal language model.

        Args:
            quantised: its weights may be (`has_weights` is False then, whether or not they are).

        Raises:
            ModelError: blocks of an unknown form, or that do not act like one; an adapter around the model or its
                modules; weights that are not in memory (offloaded to disk or the meta device), quantised, or made
                under `torch.inference_mode`.
        """
        _check_plain(model)
        blocks, hidden_size = find_blocks(model), text_config(model).hidden_size
        found: list[FFNModule] = []
        for other, b in itertools.combinations(blocks, 2):
            if other.module is b.module:
                raise ModelError(
                    f"expected each layer to have a feed-forward block of its own, got one for {other.name} and "
                    f"{b.name}: what is changed for one layer is changed for both, and no path leads through it twice."
                )
        for b in blocks:
            found += _experts(b, hidden_size) if b.form == EXPERTS else _dense(b, hidden_size, quantised)
        check_behaviour(model, blocks)
        check_gradients([(m.name, m.module) for m in found if not is_plain(m.weight)], model.dtype)
        return cls(tuple(found), hidden_size, has_weights=not quantised)

    @property
    def num_nodes(self) -> int:
        """M of the narrowest layer; in most models it is the same in all."""
        return min(m.num_nodes for m in self.modules)

    def require_dense(self, who: str) -> None:
        """Raises `ModelError` where a layer is a mixture of experts, for those who work on whole matrices [M, D]."""
        for m in self.modules:
            if isinstance(m, ExpertsModule):
                raise ModelError(
                    f"{who} works on dense models, got a mixture of experts ({m.name}); edit it with PaCKE, or choose "
                    "a dense model."
                )


def _dense(b: Block, hidden_size: int, quantised: bool) -> list[FFNModule]:
    form = FORMS[b.form]
    key = FFNModule(f"{b.name}.{form.key}", b.layer, "key", b[form.key], int(b.transposed))
    value = FFNModule(f"{b.name}.{form.value}", b.layer, "value", b[form.value], int(not b.transposed))
    for m in (key, value):
        _check_weight(m.name, m.module, "weight", m.node_axis, hidden_size, quantised)
    if form.packed:
        key = replace(key, first=key.num_nodes // 2)
    _check_shapes(b.name, key, value, None if form.gate is None else b[form.gate])
    return [key, value]


def _experts(b: Block, hidden_size: int) -> list[FFNModule]:
    experts = Experts(b.name, b.module)
    of: dict[str, Any] = {"layer": b.layer, "experts": experts}
    axis = int(experts.transposed)
    key = ExpertsModule(name=f"{b.name}.{experts.key}", kind="key", module=experts.keys, node_axis=axis, **of)
    value = ExpertsModule(name=f"{b.name}.down_proj", kind="value", module=experts.values, node_axis=1 - axis, **of)
    for m in (key, value):
        _check_weight(m.name, b.module, m.name.rpartition(".")[2], m.node_axis, hidden_size)
    return [key, value]


_MERGE = (
    "adapters that wrap a model must be merged first, model = model.merge_and_unload(); or pass the base model, loaded "
    "without its adapter."
)


def _check_plain(model: PreTrainedModel) -> None:
    if any(cls.__module__.partition(".")[0] == "peft" for cls in type(model).__mro__):
        raise ModelError(f"expected a plain Hugging Face model, got PEFT's {type(model).__name__}; {_MERGE}")


def _check_weight(
    name: str, module: Any, parameter: str, node_axis: int, hidden_size: int, quantised: bool = False
) -> None:
    weight: Any = getattr(module, parameter, None)
    if not (quantised or is_plain(weight)):
        found = type(weight).__name__ if isinstance(weight, Tensor) else type(module).__name__
        raise ModelError(
            f"expected a floating-point weight in {name}, got a quantised one ({found}), of which no single vector can "
            "be changed; load the model unquantised (float32, bfloat16 or float16), or make the edit as an adapter "
            "beside it (easyedit_packe.compute_adapter)."
        )
    if parameter not in module._parameters:
        raise ModelError(
            f"expected {name} to hold its own weight, got {type(module).__name__} from "
            f"{type(module).__module__}, which keeps it elsewhere; {_MERGE}"
        )
    if weight.device.type == "meta":
        raise ModelError(
            f"expected the weight of {name} in memory, but it is offloaded (meta device); "
            "load the model with a device_map that keeps every layer on a GPU or on the CPU."
        )
    if weight.is_inference():
        raise ModelError(f"{name} was made under torch.inference_mode and cannot be edited; load it outside.")
    if not is_plain(weight):
        return  # it has the shape of whatever holds the codes
    if weight.shape[-2:][1 - node_axis] != hidden_size or weight.ndim != (2 if parameter == "weight" else 3):
        raise ModelError(
            f"expected {name} with hidden size {hidden_size} on axis {1 - node_axis}, got "
            f"{tuple(weight.shape)}; the model's config and its weights disagree: load it again."
        )


def _check_shapes(block: str, key: FFNModule, value: FFNModule, gate: Any) -> None:
    """As many keys as values, and as many gates."""
    counts = [key.num_nodes, value.num_nodes, value.num_nodes if gate is None else shape_of(gate)[0]]
    if len(set(counts)) > 1 or (key.first and key.first != key.num_nodes):
        raise ModelError(
            f"expected as many keys as values and gates in {block}, got weights of {shape_of(key.module)} and "
            f"{shape_of(value.module)}; this block is none of the forms of easyedit_packe/model/blocks.py."
        )


PROBES = 64
"""Random inputs by which a norm is estimated, within a few per cent."""


@torch.no_grad()
def norm(m: FFNModule, dtype: torch.dtype) -> float:
    """Frobenius norm of a module's weight; of a quantised one, which cannot be read, by `E |W x|^2 = |W|^2` over
    standard normal inputs x, in the precision `dtype` that the module computes in."""
    if is_plain(m.weight):
        return torch.linalg.vector_norm(m.weight, dtype=slice_dtype(m.weight.dtype)).item()
    x = torch.randn(PROBES, shape_of(m.module)[1], generator=torch.Generator().manual_seed(0))
    x = x.to(m.weight.device, dtype)
    linear = m.module(x) - m.module(torch.zeros_like(x))
    return linear.float().norm().item() / PROBES**0.5


def slice_dtype(model_dtype: torch.dtype) -> torch.dtype:
    """Precision of gradients and updates: float32 for float16, bfloat16 and float32 models, float64 for float64."""
    return torch.promote_types(model_dtype, torch.float32)
