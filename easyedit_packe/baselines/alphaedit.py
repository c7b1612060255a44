"""AlphaEdit (Fang et al., 2025): MEMIT inside the null space of what the model knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.files import FromYAML
from ..easyedit.host import host
from ..easyedit.null_space import projection_file
from ..easyedit.state import accumulated, forget
from .memit_family import Weights, editor, spread

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MEMITHyperParams: Any = host("models.memit").MEMITHyperParams


@dataclass
class AlphaEditHyperParams(FromYAML, MEMITHyperParams):
    """MEMIT's settings, the null space and a ridge."""

    ALG = "AlphaEdit"

    nullspace_threshold: float = 2e-2
    """Eigenvalues of C below this span the null space."""
    L2: float = 10
    """Weight of the update's own norm."""
    P_loc: str = ""
    """File with P [layers, M, M]; empty makes and keeps it in the cache."""


def alphaedit_weights(
    model: PreTrainedModel,
    tok: Any,
    requests: Any,
    hparams: AlphaEditHyperParams,
    reset_cache: bool = False,
    **_: Any,
) -> Weights:
    """P projects onto the null space of C, and Kp holds the keys of the edits made so far:

        update^T = (P (K K^T + Kp Kp^T) + L2 I)^-1 P K R^T

    The sum Kp Kp^T grows from call to call until `forget("AlphaEdit")` or `reset_cache=True`.
    """
    if reset_cache:
        forget("AlphaEdit")
    past = accumulated("AlphaEdit")
    file = hparams.P_loc or projection_file(model, hparams)
    projections = dict(zip(hparams.layers, torch.load(file, weights_only=True), strict=True))

    def solve(layer: int, k: Tensor, r: Tensor) -> Tensor:
        p = projections[layer].to(k)
        grams = k @ k.T + past.get(str(layer), torch.zeros(1)).to(k)
        return torch.linalg.solve(p @ grams + hparams.L2 * torch.eye(len(p)).to(p), p @ k @ r.T)

    def remember(layer: int, k: Tensor) -> None:
        past[str(layer)] = past.get(str(layer), 0) + (k @ k.T).cpu()

    return spread(model, tok, requests, hparams, solve, remember=remember)


apply_alphaedit_to_model = editor(alphaedit_weights)
