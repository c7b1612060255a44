"""What one run of all rows shows: how far the target leads, and by which tokens' gradients it can be moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..model.ffn import FFNModule
from ..packe.tracing import factors
from .moments import at_places


@dataclass
class Seen:
    """One forward pass over all rows, and a backward pass where a change follows.

    Attributes:
        lead: log-odds of every answer token [N], row after row.
        rows: the row of each token that the edit may write at [T].
        modules: that may change.
        inputs: of each at these tokens, [T, D] or [T, M].
        backward: for each piece of the rows, what gives the gradients of the modules' outputs at its tokens.
    """

    lead: Tensor
    rows: Tensor
    modules: Sequence[FFNModule]
    inputs: list[Tensor]
    backward: list[Callable[[], list[Tensor]]]

    @cached_property
    def tokens(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By module, (hidden [T, D], inner [T, M]): its gradient is `hidden^T inner`."""
        gradients = [torch.cat(parts) for parts in zip(*(run() for run in self.backward), strict=True)]
        self.backward = []  # and their activations
        return {m.name: factors(m, x, g) for m, x, g in zip(self.modules, self.inputs, gradients, strict=True)}


def gradients_at(of: Tensor, outputs: Sequence[Tensor], at: Tensor) -> list[Tensor]:
    """Gradients of a number by some modules' outputs, at the places [B, T] that are true."""
    return [at_places(g, at) for g in torch.autograd.grad(of, outputs)]
