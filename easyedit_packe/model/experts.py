"""Mixtures of experts: those of a layer together are one memory, and a node belongs to an expert.

With the router's weights w, `FFN(x) = sum_e w_e(x) sum_j g(x . k_ej) v_ej`. Node `e M + j` is node j of expert e; its
activation is `w_e(x) g(x . k_ej)`, and nought where the router did not choose the expert. What all tokens share beside
(shared experts) and the router itself are no part of it.

transformers keeps a layer's experts in one module with three-dimensional weights, in which no module has the nodes'
outputs or inputs. So while somebody looks, the experts compute as they do here, and pass both through `ExpertNodes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError


class ExpertNodes(nn.Module):
    """Stands for the linear map of all key, or of all value vectors of a layer's experts, for hooks on its output.

    Called with (input, output): [T, D] and [T, E M] for keys, the other way round for values.
    """

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.shown = experts.shown

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y


class Experts:
    """The experts of one layer.

    Attributes:
        module: transformers' own, with `gate_up_proj` (or `up_proj`) and `down_proj` [E, ., .].
        key: the name of the first of them.
        width: M, of one expert.
        up: where the keys' outputs lie among those of `key` [M]; the others are gates.
        keys, values: what can be hooked.

    Raises:
        ModelError: a gate that is combined with the keys' outputs in no known order.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.module, self.transposed = module, bool(module.is_transposed)
        self.key = "gate_up_proj" if module.has_gate else "up_proj"
        self.num_experts = len(module.down_proj)
        self.width = module.down_proj.shape[1 if self.transposed else 2]
        self.up = _places_of_keys(name, module, self.width) if module.has_gate else torch.arange(self.width)
        self.keys, self.values = ExpertNodes(self), ExpertNodes(self)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While active, `keys` and `values` see what the experts compute."""
        before = self.module.__dict__.get("forward")
        self.module.forward = self._forward
        try:
            yield
        finally:
            if before is None:
                del self.module.forward
            else:
                self.module.forward = before

    def _forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """What the module gives for tokens [T, D], the experts chosen for each [T, K], and the router's weights."""
        module, shape = self.module, (len(hidden), self.num_experts, self.width)
        experts = [(e, *(chosen == e).nonzero(as_tuple=True)) for e in chosen.unique().tolist() if e < self.num_experts]
        token = torch.cat([t for _, t, _ in experts])
        place = token, torch.cat([torch.full_like(t, e) for e, t, _ in experts])
        share = torch.cat([weights[t, slot] for _, t, slot in experts])[:, None]
        up = self.up.to(hidden.device)

        gates_and_keys = torch.cat([self._linear(self.key, e, hidden[t]) for e, t, _ in experts])
        every = hidden.new_zeros(shape).index_put(place, gates_and_keys[:, up])
        seen = self.keys(hidden, every.flatten(1)).view(shape)[place]
        gates_and_keys = gates_and_keys.index_copy(1, up, seen)
        active = module._apply_gate(gates_and_keys) if module.has_gate else module.act_fn(gates_and_keys)
        active = (active * share).to(hidden.dtype)

        inner = hidden.new_zeros(shape).index_put(place, active).flatten(1)
        parts = active.split([len(t) for _, t, _ in experts])
        found = torch.cat([self._linear("down_proj", e, a, False) for (e, _, _), a in zip(experts, parts, strict=True)])
        if module.has_bias:
            found = found + (share * module.down_proj_bias[place[1]]).to(found.dtype)
        return self.values(inner, torch.zeros_like(hidden).index_add(0, token, found))

    def _linear(self, name: str, expert: int, x: Tensor, with_bias: bool = True) -> Tensor:
        weight = getattr(self.module, name)[expert]
        bias = getattr(self.module, f"{name}_bias")[expert] if self.module.has_bias and with_bias else None
        return F.linear(x, weight.T if self.transposed else weight, bias)


def find_experts(layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules of a layer that hold experts the way transformers has them since 5.0, and their names in it."""
    return [
        (name, module)
        for name, module in layer.named_modules()
        if hasattr(module, "_apply_gate") and getattr(getattr(module, "down_proj", None), "ndim", 0) == 3
    ]


def _places_of_keys(name: str, module: Any, width: int) -> Tensor:
    """Of gates and keys in one vector, where the keys lie: tried, as families differ in it.

    What comes out at j moves with key j alone, and in proportion to it.
    """
    z = torch.randn(1, 2 * width, generator=torch.Generator().manual_seed(0)) / 2
    for at in (torch.arange(width, 2 * width), torch.arange(1, 2 * width, 2)):
        step = torch.zeros(2 * width).index_fill_(0, at[::3], 0.25)
        plain, up, down = (module._apply_gate(z + times * step)[0] for times in (0, 1, -2))
        up, down = up - plain, down - plain
        still = torch.ones(width, dtype=torch.bool).index_fill_(0, torch.arange(0, width, 3), False)
        if not up[still].any() and (down + 2 * up).norm() < 1e-3 * down.norm():
            return at
    raise ModelError(
        f"expected the experts of {name} to multiply each key's output by its gate, got a {type(module).__name__} that "
        "does something else, so they cannot be edited; choose another model."
    )
