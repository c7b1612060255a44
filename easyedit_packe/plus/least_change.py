"""The least change of the chosen nodes that gives every row what it lacks, to first order.

Rows are texts; each has a number f_r that shall change by `wanted_r`. Over all changes that do it, the one is taken
that disturbs the model least elsewhere: it minimises, summed over modules, `tr(B change A change^T)`, where A is what a
module's inputs usually are and B what its outputs are for, each a multiple of the identity plus a moment
(`moments.damping`). By duality the size of the problem is one unknown a row, made of inner products of tokens; no
gradient of a weight's size is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import HyperParamsError


@dataclass
class Writes:
    """Gradients of the rows' numbers for the chosen nodes of one module: the sum over a row's tokens of
    `nodes[t]^T hidden[t]`, a matrix [k, D].

    Attributes:
        nodes: [T, k], of a key module the gradients of its outputs, of a value module its inputs.
        hidden: [T, D], the other way round.
        of_nodes: what damps the nodes' side: a Cholesky factor [k, k], a diagonal [k], or None for the identity.
        of_hidden: the same of the other side, [D, D] or [D].
    """

    nodes: Tensor
    hidden: Tensor
    of_nodes: Tensor | None = None
    of_hidden: Tensor | None = None

    def __post_init__(self) -> None:
        self._nodes, self._hidden = damped(self.nodes, self.of_nodes), damped(self.hidden, self.of_hidden)

    def kernel(self) -> Tensor:
        """Inner products of the tokens' gradients under A^-1 and B^-1 [T, T]."""
        return (self._nodes @ self.nodes.T) * (self._hidden @ self.hidden.T)

    def change(self, weights: Tensor) -> Tensor:
        """The change [k, D] that is these weights' [T] sum of the tokens' damped gradients."""
        return (self._nodes * weights.to(self._nodes)[:, None]).T @ self._hidden


def damped(x: Tensor, by: Tensor | None) -> Tensor:
    """`x M^-1` [T, n], where `by` is M's Cholesky factor [n, n] or M's diagonal [n]."""
    if by is None:
        return x
    return x / by.to(x) if by.ndim == 1 else torch.cholesky_solve(x.T, by.to(x)).T


def least_change(writes: Sequence[Writes], rows: Tensor, wanted: Tensor, ridge: float) -> list[Tensor]:
    """The change [k, D] of each module's nodes.

    Args:
        writes: one for each module, over the same T tokens.
        rows: which row each token belongs to, int64 [T].
        wanted: by how much each row's number shall change [R].
        ridge: how much is conceded of what rows want against each other, as a share of each row's own squared gradient
            (Marquardt's scaling): a row that hardly moves by now is not given up for others that move easily.
    """
    kernel = torch.zeros(len(rows), len(rows), dtype=wanted.dtype, device=wanted.device)
    for w in writes:
        kernel += w.kernel().to(kernel)
    rows = rows.to(wanted.device)
    of_rows = wanted.new_zeros(len(wanted), len(wanted))
    of_rows.index_add_(0, rows, kernel.new_zeros(len(rows), len(wanted)).index_add_(1, rows, kernel))
    squares = of_rows.diagonal()  # a view: what is done to it is done to the matrix
    moved = squares > 0  # a row whose number nothing here can move asks for nothing
    if not moved.any():
        return [w.change(wanted.new_zeros(len(rows))) for w in writes]
    squares.mul_(1 + ridge).add_((~moved).to(wanted))
    try:
        duals = torch.linalg.solve(of_rows, wanted * moved)
    except torch.linalg.LinAlgError as e:
        raise HyperParamsError(
            f"ridge: expected enough to tell texts apart that ask for the same, got {ridge}; raise it."
        ) from e
    return [w.change(duals[rows]) for w in writes]
