"""Backward passes of Eq. 7's two terms: one batched pass for both where that works."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
T = TypeVar("T")


class Backward:
    """Gradients of one or two losses of one forward pass.

    Attributes:
        batched: take both from one backward pass, in which the frozen weights are read once. Switched off for good
            when it fails: some attention kernels have no batched backward pass, and batching needs more memory.
    """

    def __init__(self, batched: bool) -> None:
        self.batched = batched

    def __call__(self, losses: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """Each loss's gradients for the inputs."""
        if len(losses) > 1 and self.batched:
            both = torch.stack(list(losses))
            rows = torch.eye(len(losses), dtype=both.dtype, device=both.device)
            found = torch.autograd.grad(both, inputs, rows, is_grads_batched=True)
            return [[g[i] for g in found] for i in range(len(losses))]
        return [
            list(torch.autograd.grad(loss, inputs, retain_graph=i + 1 < len(losses))) for i, loss in enumerate(losses)
        ]

    def if_possible(self, run: Callable[[], T]) -> T:
        """`run()`; once more, with one backward pass a term, if the batched one fails."""
        try:
            return run()
        except RuntimeError as e:
            if not self.batched:
                raise
            LOG.warning("gradients of both terms one after the other from here on: %s", str(e).split("\n")[0])
            self.batched = False
        # Outside `except`: the exception holds the failed pass's frames, and with them its whole graph.
        return run()
