"""RECT (Gu et al., 2024, "Model Editing Harms General Abilities"): MEMIT, of whose update only a part is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.files import FromYAML
from ..easyedit.host import host
from .memit_family import Weights, editor, memit_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MEMITHyperParams: Any = host("models.memit").MEMITHyperParams


@dataclass
class RECTHyperParams(FromYAML, MEMITHyperParams):
    """MEMIT's settings, and how much of its update is kept."""

    ALG = "RECT"

    rect_fraction: float = 0.4
    """Part of each matrix's entries that may change; the paper's is 40 percent."""


def largest_changes(update: Tensor, weight: Tensor, fraction: float) -> Tensor:
    """The update, zero but for its `fraction` of entries with the largest relative change |update / weight|."""
    relative = (update / weight).abs().nan_to_num(nan=0.0).flatten()
    keep = relative.topk(round(fraction * relative.numel()), sorted=False).indices
    mask = torch.zeros_like(relative, dtype=torch.bool)
    mask[keep] = True
    return torch.where(mask.view_as(update), update, torch.zeros_like(update))


def rect_weights(model: PreTrainedModel, tok: Any, requests: Any, hparams: RECTHyperParams, **_: Any) -> Weights:
    """W + update on the entries where |update / W| is among the largest `rect_fraction`, W elsewhere."""
    new = memit_weights(model, tok, requests, hparams)
    for name, value in new.items():
        weight = model.get_parameter(name).detach()
        new[name] = weight + largest_changes(value - weight, weight, hparams.rect_fraction)
    return new


apply_rect_to_model = editor(rect_weights)
