"""What a change of a module's output does to all that a model says further on: the other side of a change's size.

A small change d of an output makes the model's text less likely by `d^T F d / 2` nats in the mean: the Kullback-Leibler
divergence to second order, with Fisher's information `F = E[g g^T]` and g the gradient by that output of the log
probability of a text. The texts are samples from the model itself, so the mean over them is the expectation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model.ffn import FFNMap, FFNModule
from ..model.progress import shown
from ..packe.tracing import factors, watch_outputs
from .moments import InputMoments, damping

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED = 96
"""Texts that are read: several times as many tokens as a small model's outputs have dimensions."""

TOGETHER = 4
"""Texts in one pass, whose activations are held for the way back."""


def output_moments(model: PreTrainedModel, ffn: FFNMap, texts: Tensor) -> dict[str, Tensor]:
    """By module, F of a token's output: [D, D] of a value module, of a key module the nodes' own [M], its diagonal.

    Args:
        texts: token ids [N, T]; the first token of each, where attention is parked, is left out.
    """
    sums: dict[str, Tensor] = {}
    device = model.get_input_embeddings().weight.device
    pieces = texts[:SAMPLED].split(TOGETHER)
    for ids in shown([piece.to(device) for piece in pieces], "what outputs are for, once"):
        with torch.enable_grad(), watch_outputs(ffn.modules) as seen:
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            said = logits.log_softmax(-1).gather(2, ids[:, 1:, None].to(logits.device)).sum()
            gradients = torch.autograd.grad(said, [y for _, y in seen])
        for m, (x, _), g in zip(ffn.modules, seen, gradients, strict=True):
            later = torch.arange(ids.numel(), device=g.device) % ids.shape[1] > 0
            hidden, inner = factors(m, x.flatten(0, -2)[later], g.flatten(0, -2)[later])
            found = inner.float().square().sum(0) if m.kind == "key" else hidden.float().T @ hidden.float()
            sums[m.name] = sums[m.name] + found if m.name in sums else found
    tokens = sum(len(piece) * (piece.shape[1] - 1) for piece in pieces)
    return {name: (total / tokens).cpu() for name, total in sums.items()}


def in_units(modules: Sequence[FFNModule], outputs: Mapping[str, Tensor], usual: InputMoments) -> dict[str, Tensor]:
    """The same, in units in which a value module's are 1 in the mean and a key module's can be held against them.

    A change of a node is as large as its inputs let it be, and both kinds are measured in units of their own usual
    input (`moments.damping`), so what a key node does per unit counts by the square of these.
    """
    found: dict[str, Tensor] = {}
    unit: dict[int, Tensor] = {}
    for m in modules:
        if m.kind == "value":
            size = outputs[m.name].diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
            found[m.name], unit[m.layer] = outputs[m.name] / size, usual.scale(m) * size
    for m in modules:
        if m.kind == "key":
            found[m.name] = outputs[m.name] * (usual.scale(m) / unit[m.layer].to(usual.scale(m)))
    return found


def onward(moment: Tensor, strength: float) -> Tensor:
    """What damps a module's outputs, `I + strength * moment`: a Cholesky factor [D, D], of a diagonal [M] itself."""
    return 1 + strength * moment if moment.ndim == 1 else damping(moment, moment.new_ones(()), strength)
