"""The least change of the chosen nodes that gives every row what it lacks, to first order.

Rows are texts; each has a number f_r that shall change by `wanted_r`. Over all changes that do it, the one is taken
that disturbs the feed-forward blocks' outputs least on the inputs that are usual elsewhere: it minimises, summed over
modules, `tr(change M change^T)` with `M = I + strength * moment / scale`, M on the side of the module's inputs; a key
node's share counts `reach` times, for what its activation does to the block's output. By duality the size of the
problem is one unknown a row, made of inner products of tokens; no gradient of a weight's size is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.ffn import Kind


@dataclass
class Writes:
    """Gradients of the rows' numbers for the chosen nodes of one module: the sum over a row's tokens of
    `nodes[t]^T hidden[t]`, a matrix [k, D].

    Attributes:
        kind: of the module. A key module's inputs are `hidden`, a value module's are `nodes`.
        nodes: [T, k].
        hidden: [T, D].
        damping: Cholesky factor of M (`moments.damping`), [D, D] of a key module, [k, k] of a value module; None where
            M is the identity.
        reach: of a key module's nodes [k] (`moments.reach`); None for ones.
    """

    kind: Kind
    nodes: Tensor
    hidden: Tensor
    damping: Tensor | None = None
    reach: Tensor | None = None

    def __post_init__(self) -> None:
        inputs = self.hidden if self.kind == "key" else self.nodes
        self._damped = inputs
        if self.damping is not None:
            self._damped = torch.cholesky_solve(inputs.T, self.damping.to(inputs)).T
        self._nodes = self.nodes if self.reach is None else self.nodes / self.reach.to(self.nodes)

    def kernel(self) -> Tensor:
        """Inner products of the tokens' gradients under M^-1 [T, T]."""
        if self.kind == "key":
            return (self._nodes @ self.nodes.T) * (self._damped @ self.hidden.T)
        return (self._damped @ self.nodes.T) * (self.hidden @ self.hidden.T)

    def change(self, weights: Tensor) -> Tensor:
        """The change [k, D] that is these weights' [T] sum of the tokens' damped gradients."""
        weights = weights.to(self.hidden)[:, None]
        if self.kind == "key":
            return (self._nodes * weights).T @ self._damped
        return (self._damped * weights).T @ self.hidden


def least_change(writes: Sequence[Writes], rows: Tensor, wanted: Tensor, ridge: float) -> list[Tensor]:
    """The change [k, D] of each module's nodes.

    Args:
        writes: one for each module, over the same T tokens.
        rows: which row each token belongs to, int64 [T].
        wanted: by how much each row's number shall change [R].
        ridge: as a share of the rows' mean squared gradient, how much is conceded of what rows want against each other.
    """
    kernel = torch.zeros(len(rows), len(rows), dtype=wanted.dtype, device=wanted.device)
    for w in writes:
        kernel += w.kernel().to(kernel)
    rows = rows.to(wanted.device)
    of_rows = wanted.new_zeros(len(wanted), len(wanted))
    of_rows.index_add_(0, rows, kernel.new_zeros(len(rows), len(wanted)).index_add_(1, rows, kernel))
    moved = of_rows.diagonal() > 0  # a row whose number nothing here can move asks for nothing
    if not moved.any():
        return [w.change(wanted.new_zeros(len(rows))) for w in writes]
    of_rows.diagonal().add_(ridge * of_rows.diagonal()[moved].mean() + (~moved).to(wanted))
    duals = torch.linalg.solve(of_rows, wanted * moved)
    return [w.change(duals[rows]) for w in writes]
