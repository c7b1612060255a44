"""A model's weights before any edit: what changed since, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Weights:
    """A copy of all parameters, beside the model, which any editor may change in any place.

    It costs the model's memory once more; in return no editor's own bookkeeping has to be trusted.
    """

    def __init__(self, model: nn.Module) -> None:
        self.base = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.flags = {n: p.requires_grad for n, p in model.named_parameters()}
        self.training = model.training

    def fits(self, model: nn.Module) -> bool:
        """The model still has the parameters that were copied: no adapter is left inside it."""
        return {n for n, _ in model.named_parameters()} == self.base.keys()

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Put every parameter back as it was, bit for bit, with its `requires_grad`; and the train or eval mode."""
        for name, p in model.named_parameters():
            if not torch.equal(p, self.base[name]):
                p.copy_(self.base[name])
            p.requires_grad_(self.flags[name])
        model.train(self.training)

    def changed(self, model: nn.Module) -> dict[str, Tensor]:
        """The parameters that differ from the copy in any entry, detached, not copied."""
        return {n: p.detach() for n, p in model.named_parameters() if not torch.equal(p, self.base[n])}

    def count_changed(self, model: nn.Module) -> int:
        """How many single weights differ from the copy."""
        return sum(int((p != self.base[n]).sum()) for n, p in self.changed(model).items())

    def growth(self, model: nn.Module) -> float:
        """The largest ratio, over all changed matrices, of a matrix's norm to what it was; 1 where none changed."""
        changed = {n: p for n, p in self.changed(model).items() if p.ndim > 1}
        return max((p.norm().item() / self.base[n].norm().item() for n, p in changed.items()), default=1.0)

    @torch.no_grad()
    def load(self, model: nn.Module, changed: Mapping[str, Tensor]) -> None:
        """Set the model to the copy plus the `changed` parameters of an earlier run."""
        self.restore(model)
        parameters = dict(model.named_parameters())
        for name, value in changed.items():
            parameters[name].copy_(value)
