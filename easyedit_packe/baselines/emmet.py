"""EMMET (Gupta et al., 2024, "A Unified Framework for Model Editing"): MEMIT with equality constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.files import FromYAML
from ..easyedit.host import host
from .memit_family import Weights, editor, second_moment, spread

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MEMITHyperParams: Any = host("models.memit").MEMITHyperParams


@dataclass
class EMMETHyperParams(FromYAML, MEMITHyperParams):
    """MEMIT's settings, and two small weights that keep inverses stable."""

    ALG = "EMMET"

    update_norm_lambda: float = 0
    """Added to the diagonal of the weighted C."""
    emmet_lambda: float = 0.1
    """Added to the diagonal of K^T C^-1 K."""


def emmet_weights(model: PreTrainedModel, tok: Any, requests: Any, hparams: EMMETHyperParams, **_: Any) -> Weights:
    """Every key gets exactly its value, and ordinary keys change least:

    update = R (K^T A^-1 K + emmet_lambda I)^-1 K^T A^-1,
    A = mom2_update_weight C + update_norm_lambda I
    """

    def solve(layer: int, k: Tensor, r: Tensor) -> Tensor:
        k, r = k.double(), r.double()
        a = hparams.mom2_update_weight * second_moment(model, tok, hparams, layer)
        a += hparams.update_norm_lambda * torch.eye(len(a)).to(a)
        ak = torch.linalg.solve(a, k)
        gram = k.T @ ak + hparams.emmet_lambda * torch.eye(k.shape[1]).to(k)
        return r @ torch.linalg.solve(gram, ak.T)

    return spread(model, tok, requests, hparams, solve)


apply_emmet_to_model = editor(emmet_weights)
