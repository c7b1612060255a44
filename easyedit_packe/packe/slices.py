"""The trainable part of an edit: a few vectors beside the frozen feed-forward matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config.packe import Rounding
from ..model.ffn import FFNMap, FFNModule, slice_dtype
from ..model.hooks import OutputHook, output_hooks
from ..patch.slice import Slice
from ..patch.weight_patch import WeightPatch
from .rounding import round_to, rounded_patch
from .tracing import NodeSets


class Slices:
    """Changes of the nodes ever chosen in an edit, added to the frozen modules' outputs by hooks.

    For a key module with input x, node j's output is `x . (k_j + change_j)`; for a value module with input a,
    `a_j change_j` is added to the output. So autograd sees the changes as the only leaves, and their gradients are
    those of the dense matrices at these nodes, exactly.

    Attributes:
        weight: all changes, one node a row, module after module [N, D].
        key_bias: changes of the nodes' bias entries [N_key], empty where the keys have no bias.
        value_bias: changes of the value modules' biases [layers, D], empty unless they are trained.
    """

    def __init__(self, ffn: FFNMap, train_value_bias: bool = False) -> None:
        self.ffn = ffn
        first = ffn.modules[0].weight
        options: dict[str, Any] = {"dtype": slice_dtype(first.dtype), "device": first.device}
        self.index: dict[str, Tensor] = {m.name: torch.empty(0, dtype=torch.long) for m in ffn.modules}
        self.weight = torch.zeros(0, ffn.hidden_size, **options)
        self.key_bias = torch.zeros(0, **options)
        self.biased = [m for m in ffn.modules if train_value_bias and m.kind == "value" and m.bias is not None]
        self.value_bias = torch.zeros(len(self.biased), ffn.hidden_size, **options)
        self.critical = torch.zeros(0, 1, **options)
        self.negative = torch.zeros(0, 1, **options)

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors that an optimiser moves: weight, key_bias, value_bias, without the empty ones."""
        return [t for t in (self.weight, self.key_bias, self.value_bias) if t.numel()]

    def choose(self, nodes: NodeSets) -> dict[str, Tensor]:
        """Make these nodes the ones that are trained; nodes chosen before keep their changes.

        Returns:
            By leaf name, the row [old N] at which each old row of the leaf now stands.
        """
        index, moved, moved_key, row, key_row = {}, [], [], 0, 0
        for m in self.ffn.modules:
            old = self.index[m.name]
            wanted = torch.cat([nodes.critical[m.name], nodes.negative[m.name]])
            index[m.name] = torch.cat([old, wanted[~torch.isin(wanted, old)].unique()])
            moved.append(torch.arange(row, row + len(old)))
            row += len(index[m.name])
            if m.has_node_bias:
                moved_key.append(torch.arange(key_row, key_row + len(old)))
                key_row += len(index[m.name])
        self.index = index
        places = {
            "weight": torch.cat(moved).to(self.weight.device),
            "key_bias": torch.cat(moved_key or [torch.arange(0)]).to(self.weight.device),
            "value_bias": torch.arange(len(self.value_bias), device=self.weight.device),
        }
        self.weight = spread(self.weight, places["weight"], row).requires_grad_()
        self.key_bias = spread(self.key_bias, places["key_bias"], key_row).requires_grad_()
        self.value_bias = self.value_bias.detach().requires_grad_()
        self.critical = self._mask(nodes.critical)
        self.negative = self._mask(nodes.negative)
        return places

    def _mask(self, chosen: dict[str, Tensor]) -> Tensor:
        """1 at the rows of `weight` that are among the chosen nodes, else 0: [N, 1]."""
        rows = torch.cat([torch.isin(self.index[m.name], chosen[m.name]) for m in self.ffn.modules])
        return rows.to(self.weight)[:, None]

    def key_rows(self, mask: Tensor) -> Tensor:
        """The rows of a mask [N, 1] that belong to key modules with a bias: [N_key]."""
        parts = mask.squeeze(1).split([len(i) for i in self.index.values()])
        rows = [p for m, p in zip(self.ffn.modules, parts, strict=True) if m.has_node_bias]
        return torch.cat(rows) if rows else mask.new_zeros(0)

    def _by_module(self, weight: Tensor, key_bias: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The rows of each module, and the bias entries of those key modules that have any, as views by name."""
        sizes = {name: len(index) for name, index in self.index.items()}
        keys = [m.name for m in self.ffn.modules if m.has_node_bias]
        return (
            dict(zip(sizes, weight.split(list(sizes.values())), strict=True)),
            dict(zip(keys, key_bias.split([sizes[name] for name in keys]), strict=True)),
        )

    @contextmanager
    def attached(self, train: bool = True) -> Iterator[None]:
        """While active, the model computes with the changes; with `train`, gradients flow into the leaves.

        Open anew for each forward pass: the leaves are split here once, so that one gradient comes back for all.
        """
        weight, key_bias, value_bias = (
            t if train else t.detach() for t in (self.weight, self.key_bias, self.value_bias)
        )
        weights, key_biases = self._by_module(weight, key_bias)
        value_biases = dict(zip((m.name for m in self.biased), value_bias.unbind(), strict=True))
        hooks = [
            (m.module, _add(m, self.index[m.name], weights[m.name], key_biases.get(m.name), value_biases.get(m.name)))
            for m in self.ffn.modules
        ]
        with output_hooks(hooks):
            yield

    @torch.no_grad()
    def absorb(self, other: Slices) -> None:
        """Add the changes of an edit, of some of these modules and the same biases, that was made on top of these."""
        none = torch.empty(0, dtype=torch.long)
        added_to = {name: other.index.get(name, none) for name in self.index}
        self.choose(NodeSets(added_to, dict.fromkeys(added_to, none)))
        mine, theirs = (s._by_module(s.weight, s.key_bias) for s in (self, other))
        for ours, changes in zip(mine, theirs, strict=True):
            for name, change in changes.items():
                at = _places(self.index[name], other.index[name]).to(self.weight.device)
                ours[name].index_add_(0, at, change.to(ours[name]))
        self.value_bias.add_(other.value_bias.to(self.value_bias))

    def patch(self, rounding: Rounding = "nearest", seed: int = 0) -> WeightPatch:
        """The changes as a patch on the model's weights, rounded to the model's dtype; see `rounded_patch`.

        Meant for the model as it stood while the changes were trained. Stochastic rounding draws from `seed`.
        """
        generator = torch.Generator().manual_seed(seed) if rounding == "stochastic" else None
        stored = self._stored() if self.ffn.has_weights else iter(())
        return rounded_patch({s.name: _slice(s, generator) for s in stored})

    def changes(self) -> dict[str, Slice]:
        """The changes by parameter name as they were trained, from nought: what an adapter adds beside the weights."""
        found = {}
        for s in self._stored():
            change = s.change.cpu()
            found[s.name] = Slice(s.axis, s.at.cpu(), torch.zeros_like(change), change, s.size)
        return found

    def _stored(self) -> Iterator[_Stored]:
        """Every change, by the parameter that it belongs to."""
        changes, key_biases = self._by_module(self.weight.detach(), self.key_bias.detach())
        for m in self.ffn.modules:
            change, biases = changes[m.name], key_biases.get(m.name)
            index = self.index[m.name].to(m.weight.device)
            for p in m.parts(index) if len(index) else ():
                nodes = index[p.rows]
                yield _Stored(p.weight, m.node_axis, p.at, p.size, partial(m.nodes, nodes), change[p.rows])
                if biases is not None:
                    yield _Stored(p.bias, 0, p.at, p.size, partial(m.biases, nodes), biases[p.rows])
        for m, change in zip(self.biased, self.value_bias.detach(), strict=True):
            index = torch.arange(len(change), device=m.bias.device)
            yield _Stored(f"{m.name}.bias", 0, index, len(change), m.bias.detach().clone, change)


class NodeGradients:
    """Gradients of chosen nodes, collected module by module before the nodes have their place among the slices."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}  # module -> (nodes, [k, D], biases [k])
        self.value_bias: dict[str, Tensor] = {}

    def take(self, m: FFNModule, index: Tensor, hidden: Tensor, inner: Tensor) -> None:
        """Nodes `index` [k] of a gradient `hidden^T inner`, and what it says of biases."""
        picked = inner.index_select(1, index.to(inner.device))
        self.rows.setdefault(m.name, []).append((index, picked.T @ hidden, picked.sum(0)))
        if m.kind == "value":
            self.value_bias[m.name] = self.value_bias.get(m.name, 0) + hidden.sum(0)

    def as_leaves(self, slices: Slices) -> list[Tensor]:
        """The gradients shaped as `slices.leaves`, zero at all other nodes."""
        weight, key_bias = torch.zeros_like(slices.weight), torch.zeros_like(slices.key_bias)
        weights, key_biases = slices._by_module(weight, key_bias)
        for m in slices.ffn.modules:
            for index, rows, biases in self.rows[m.name]:
                places = _places(slices.index[m.name], index).to(weight.device)
                weights[m.name].index_copy_(0, places, rows.to(weight))
                if m.has_node_bias:
                    key_biases[m.name].index_copy_(0, places, biases.to(weight))
        value_bias = [self.value_bias[m.name].to(weight) for m in slices.biased]
        leaves = [weight, key_bias, torch.stack(value_bias) if value_bias else slices.value_bias]
        return [t.detach() for t in leaves if t.numel()]


def _places(known: Tensor, index: Tensor) -> Tensor:
    """Where each of the nodes `index` [k] stands among the known ones, which have them all."""
    order = known.argsort()
    return order[torch.searchsorted(known[order], index)]


def spread(rows: Tensor, places: Tensor, total: int) -> Tensor:
    """A tensor of `total` rows with `rows` at `places` and zeros elsewhere."""
    out = rows.new_zeros(total, *rows.shape[1:])
    return out.index_copy_(0, places.to(out.device), rows.detach())


class _Stored(NamedTuple):
    """What changes in one parameter: where (as in `Slice`), from what, and by how much."""

    name: str
    axis: int
    at: Tensor
    size: int
    old: Callable[[], Tensor]
    change: Tensor


def _slice(s: _Stored, generator: torch.Generator | None) -> tuple[Slice, Tensor]:
    old = s.old()
    new = round_to(old.to(s.change.dtype) + s.change.to(old.device), old.dtype, generator)
    return Slice(s.axis, s.at, old, new, s.size), s.change


def _add(m: FFNModule, index: Tensor, change: Tensor, key_bias: Tensor | None, value_bias: Tensor | None) -> OutputHook:
    device = m.weight.device
    index, change = index.to(device), change.to(device)
    key_bias = None if key_bias is None else key_bias.to(device)

    def key(x: Tensor, y: Tensor) -> Tensor:
        added = x.to(change.dtype) @ change.T
        if key_bias is not None:
            added = added + key_bias
        return y.index_add(-1, m.places(index), added.to(y.dtype))

    def value(a: Tensor, y: Tensor) -> Tensor:
        added = a.index_select(-1, index).to(change.dtype) @ change
        if value_bias is not None:
            added = added + value_bias.to(device)
        return y + added.to(y.dtype)

    return key if m.kind == "key" else value
