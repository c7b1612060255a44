"""Where to edit: score every node by its gradient and choose paths (paper, section 3.2, Eq. 6).

A path takes one key and one value node in every layer and its score is the sum over its nodes, so the N best
paths are made of the N best nodes of each kind in each layer: nothing has to be searched.

The gradient of a weight is the product of two small factors, `G = hidden^T inner` with hidden [T, D] and inner
[T, M] over the T tokens of a batch: for a key module the input and the output's gradient, for a value module the
output's gradient and the input. Scores are formed from the factors; see `scores_from_factors` for what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.packe import Score
from ..model.ffn import FFNMap, FFNModule, slice_dtype
from ..model.hooks import output_hooks


@dataclass(frozen=True)
class NodeSets:
    """Chosen nodes of each module, by module name, as int64 index tensors on the CPU, best (or worst) first.

    Attributes:
        critical: the nodes of T+, [|T+|] a module.
        negative: the nodes of T-, [|T-|] a module.
    """

    critical: dict[str, Tensor]
    negative: dict[str, Tensor]


NodeScores = dict[str, Tensor]
"""Score of every node, [M] by module name."""


def choose_nodes(scores: NodeScores, num_critical: int, num_negative: int) -> NodeSets:
    """T+ from the highest scores of each module, T- from the lowest of those that it leaves; ties go to the lower
    index."""
    critical, negative = {}, {}
    for name, score in scores.items():
        order = torch.argsort(score, descending=True, stable=True)[:num_critical]
        critical[name] = order.cpu()
        left = len(score) - len(order)
        negative[name] = torch.argsort(score, stable=True)[: min(num_negative, left)].cpu()
    return NodeSets(critical, negative)


def scores_from_factors(hidden: Tensor, inner: Tensor, score: Score, bias_grad: Tensor | None = None) -> Tensor:
    """Score of every node of `G = hidden^T inner` without keeping G.

    Args:
        hidden: [T, D].
        inner: [T, M].
        score: "gradient_sum" is `sum_d G[d, j]`, in O(T (D + M)). "gradient_norm" is `|G[:, j]|`, through the
            Gram matrix of `hidden` in O(T^2 (D + M)). "zscore" standardises each row of G over M (unbiased) and
            takes the mean of the absolute values of column j; mean and deviation of a row follow from the factors,
            so one block of the standardised G at a time is formed, reduced and dropped.
        bias_grad: gradient of the nodes' bias entries [M], part of the node for the two gradient scores.

    Returns:
        [M], in the factors' dtype.
    """
    if score == "gradient_sum":
        total = hidden.sum(1) @ inner
        return total if bias_grad is None else total + bias_grad
    if score == "gradient_norm":
        square = (inner * ((hidden @ hidden.T) @ inner)).sum(0)
        if bias_grad is not None:
            square = square + bias_grad.square()
        return square.clamp_min(0).sqrt()
    centred = inner - inner.mean(1, keepdim=True)
    variance = (hidden * ((centred @ centred.T) @ hidden)).sum(0) / (inner.shape[1] - 1)
    scaled = hidden * variance.clamp_min(0).rsqrt().nan_to_num(posinf=0.0)
    result = inner.new_empty(inner.shape[1])
    for block, out in zip(centred.T.split(_BLOCK), result.split(_BLOCK), strict=True):
        out.copy_((block @ scaled).abs_().mean(1))
    return result


def module_scores(m: FFNModule, hidden: Tensor, inner: Tensor, score: Score) -> Tensor:
    """Score of every node of a module [M], its bias entries included where they belong to nodes."""
    return scores_from_factors(hidden, inner, score, inner.sum(0) if m.has_node_bias else None)


_BLOCK = 1024
"""Nodes whose columns of G are formed at a time; a block of a 7B model is 16 MB."""


def scores_from_gradient(gradient: Tensor, score: Score, bias_grad: Tensor | None = None) -> Tensor:
    """The same scores from G itself [D, M], which is overwritten."""
    if score == "gradient_sum":
        total = gradient.sum(0)
        return total if bias_grad is None else total + bias_grad
    if score == "gradient_norm":
        square = gradient.square_().sum(0)
        return (square if bias_grad is None else square + bias_grad.square()).sqrt()
    std = gradient.std(1, keepdim=True)
    gradient.sub_(gradient.mean(1, keepdim=True)).mul_(std.reciprocal_().nan_to_num_(posinf=0.0))
    return gradient.abs_().mean(0)


def factors(m: FFNModule, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden [T, D], inner [T, M]) from a module's input and its output's gradient, in at least float32."""
    dtype = slice_dtype(x.dtype)
    x, grad = x.flatten(0, -2).to(dtype), grad.flatten(0, -2).to(dtype)
    return (x, grad[:, m.first :]) if m.kind == "key" else (grad, x)


@contextmanager
def watch_outputs(modules: Sequence[FFNModule]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """While active, collects each module's (input, output) in the order of the forward pass.

    No weight needs a gradient: where nothing before a module asks for one, its output becomes a leaf that does.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(x: Tensor, y: Tensor) -> Tensor:
        if not y.requires_grad:
            y = y.detach().requires_grad_()
        seen.append((x.detach(), y))
        return y

    with output_hooks((m.module, hook) for m in modules):
        yield seen


def gradients_of(modules: Sequence[FFNModule], loss_part: Callable[[], Tensor], use: UseGradient) -> None:
    """Run a forward pass that returns a loss and its backward pass; `use` sees each module as backward reaches it."""
    with watch_outputs(modules) as seen:
        loss = loss_part()
    for m, (x, y) in zip(modules, seen, strict=True):
        y.register_hook(lambda grad, m=m, x=x: use(m, x, grad))
    del seen
    loss.backward()


Sums = dict[str, tuple[Tensor, Tensor | None]]
"""By module name, a sum of gradients [D, M], and of its nodes' bias entries [M] where it has these."""

UseGradient = Callable[[FFNModule, Tensor, Tensor], None]
"""Called with a module, its input and its output's gradient."""


def trace(ffn: FFNMap, loss_parts: Sequence[Callable[[], Tensor]], score: Score, matrices: int = 1) -> NodeScores:
    """Score every node by the gradient of the sum of `loss_parts` (Eq. 6).

    Each part is called to run a forward pass and return a scalar loss. With one part the scores are formed as
    backward passes each module, and nothing of a weight's size is kept. With several parts G has to be summed
    before it is reduced: `matrices` modules are summed at a time, in [D, M] float32 each, and all parts are run
    again for the next ones.
    """
    scores: NodeScores = {}
    if len(loss_parts) == 1:

        def reduce(m: FFNModule, x: Tensor, grad: Tensor) -> None:
            hidden, inner = factors(m, x, grad)
            scores[m.name] = module_scores(m, hidden, inner, score)

        gradients_of(ffn.modules, loss_parts[0], reduce)
        return scores

    for start in range(0, len(ffn.modules), matrices):
        group = ffn.modules[start : start + matrices]
        sums: Sums = {}

        def add(m: FFNModule, x: Tensor, grad: Tensor, sums: Sums = sums) -> None:
            hidden, inner = factors(m, x, grad)
            bias = inner.sum(0) if m.has_node_bias else None
            if m.name not in sums:
                sums[m.name] = (hidden.T @ inner, bias)
            else:
                total, total_bias = sums[m.name]
                total.addmm_(hidden.T, inner)
                if total_bias is not None and bias is not None:
                    total_bias.add_(bias)

        for part in loss_parts:
            gradients_of(group, part, add)
        for name in list(sums):
            gradient, bias = sums.pop(name)
            scores[name] = scores_from_gradient(gradient, score, bias)
            del gradient
    return scores
