"""AlphaEdit (Fang et al., 2025): MEMIT inside the null space of what the model knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.files import FromYAML
from ..easyedit.host import host
from ..easyedit.null_space import projection_file
from ..easyedit.state import accumulated, forget, weights_written
from ..model.bits import as_bytes, as_text, digest_of
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
    """File with P [layers, M, M]; where there is none, it is made and kept in the cache."""


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

    The sum Kp Kp^T grows from call to call until `forget("AlphaEdit")` or `reset_cache=True`, or until these matrices
    are found changed: the edits have been rolled back, or it is another model.
    """
    past = accumulated("AlphaEdit")
    if reset_cache or ("left" in past and as_text(past["left"]) != weights_written(model, hparams)):
        forget("AlphaEdit")
    stored = torch.load(projection_file(model, hparams), weights_only=True)
    projections = dict(zip(hparams.layers, stored, strict=True))

    def solve(layer: int, k: Tensor, r: Tensor) -> Tensor:
        k, r = k.float(), r.float()  # no system of equations is solved in half precision
        p = projections[layer].to(k)
        grams = k @ k.T + past.get(str(layer), torch.zeros(1)).to(k)
        return torch.linalg.solve(p @ grams + hparams.L2 * torch.eye(len(p)).to(p), p @ k @ r.T)

    def remember(layer: int, k: Tensor) -> None:
        past[str(layer)] = past.get(str(layer), 0) + (k @ k.T).cpu()

    new = spread(model, tok, requests, hparams, solve, remember=remember)
    past["left"] = as_bytes(digest_of(new.items()))
    return new


apply_alphaedit_to_model = editor(alphaedit_weights)
