"""PRUNE (Ma et al., 2025, "Perturbation-Restrained Sequential Model Editing"), on MEMIT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.files import FromYAML
from ..easyedit.host import host
from ..easyedit.state import accumulated
from .memit_family import Weights, edited_weights, editor, memit_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MEMITHyperParams: Any = host("models.memit").MEMITHyperParams


@dataclass
class PRUNEHyperParams(FromYAML, MEMITHyperParams):
    """MEMIT's settings, and how strongly large singular values are held back."""

    ALG = "PRUNE"

    prune_alpha: float = math.e
    """Base of the logarithm; the authors' program offers e, 1.2 and 1.5."""


def restrained(update: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """The update with its singular values s above m, the largest of `weight`, replaced by log_alpha(s / m) + m."""
    largest = torch.linalg.matrix_norm(weight.double(), 2)
    u, s, v = torch.linalg.svd(update.double(), full_matrices=False)
    if s[0] <= largest:
        return update
    held = torch.where(s > largest, torch.log(s / largest) / math.log(alpha) + largest, s)
    return (u * held @ v).to(update)


def prune_weights(model: PreTrainedModel, tok: Any, requests: Any, hparams: PRUNEHyperParams, **_: Any) -> Weights:
    """W0 + restrained(sum of all updates since W0).

    The paper restrains the sum once, after the last edit. Here the model is left so after every call: the next
    call starts from the unrestrained weights, so that after any number of calls the result is the paper's. A matrix
    that was changed or rolled back in between begins a new sequence.
    """
    past = accumulated("PRUNE")  # of each matrix: before the first edit, unrestrained, and as it was left
    names = [f"{hparams.rewrite_module_tmp.format(layer)}.weight" for layer in hparams.layers]
    new = {}
    with edited_weights(model, names) as weights:
        base = {}
        for name, w in weights.items():
            left = past.get(f"{name}:left")
            goes_on = left is not None and torch.equal(left.to(w.device), w)
            base[name] = past[f"{name}:base"].to(w.device) if goes_on else w.clone()
            if goes_on:
                w.copy_(past[f"{name}:unrestrained"])
        for name, value in memit_weights(model, tok, requests, hparams).items():
            new[name] = base[name] + restrained(value - base[name], base[name], hparams.prune_alpha)
            past |= {f"{name}:base": base[name], f"{name}:unrestrained": value, f"{name}:left": new[name]}
    return new


apply_prune_to_model = editor(prune_weights)
