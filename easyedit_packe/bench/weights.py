"""A model before any edit: what changed since, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Weights:
    """A copy of all parameters, and the modules that had them, beside the model, which any editor may change anywhere.

    It costs the model's memory once more; in return no editor's own bookkeeping has to be trusted. Parameters are
    found through the modules of the start, so that an adapter which took one's place hides nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.base = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.flags = {n: p.requires_grad for n, p in model.named_parameters()}
        self.training = model.training

    def parameters(self) -> dict[str, nn.Parameter]:
        """Those of the start, by the names that they had then."""
        owners = {name: name.rpartition(".") for name in self.base}
        return {name: getattr(self.modules[owner], leaf) for name, (owner, _, leaf) in owners.items()}

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Put every module in its place, and every parameter back as it was, bit for bit, with its `requires_grad`;
        and the train or eval mode."""
        self._rebuild()
        for name, p in self.parameters().items():
            if not torch.equal(p, self.base[name]):
                p.copy_(self.base[name])
            p.requires_grad_(self.flags[name])
        model.train(self.training)

    def _rebuild(self) -> None:
        for name, module in self.modules.items():
            owner, _, leaf = name.rpartition(".")
            if name and self.modules[owner]._modules.get(leaf) is not module:
                self.modules[owner]._modules[leaf] = module

    def changed(self) -> dict[str, Tensor]:
        """The parameters that differ from the copy in any entry, detached, not copied."""
        return {n: p.detach() for n, p in self.parameters().items() if not torch.equal(p, self.base[n])}

    def count_changed(self) -> int:
        """How many single weights differ from the copy."""
        return sum(int((p != self.base[n]).sum()) for n, p in self.changed().items())

    def growth(self) -> float:
        """The largest ratio, over all changed matrices, of a matrix's norm to what it was; 1 where none changed."""
        changed = {n: p for n, p in self.changed().items() if p.ndim > 1}
        return max((p.norm().item() / self.base[n].norm().item() for n, p in changed.items()), default=1.0)

    @torch.no_grad()
    def load(self, model: nn.Module, changed: Mapping[str, Tensor]) -> None:
        """Set the model to the copy plus the `changed` parameters of an earlier run."""
        self.restore(model)
        parameters = self.parameters()
        for name, value in changed.items():
            parameters[name].copy_(value)
