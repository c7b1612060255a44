"""What an edit achieves once its values are rounded to the model's dtype, and what to do where rounding takes it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..config import HyperParams, PaCKEHyperParams
from ..model.config import max_tokens
from ..model.forward import answer_logits
from ..model.hooks import frozen
from ..requests import EditRequest, Encoded, collate, encode
from .objective import token_losses
from .rectify import Rectification

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOG = logging.getLogger(__name__)

LITTLE = 0.5
"""Share of a change, in the direction that was meant, below which a warning says so."""


@dataclass(frozen=True)
class Answer:
    """How a model takes one request.

    Attributes:
        loss: mean token loss of the target; None where the model overflows.
        said: whether every token of the target is the model's first choice.
    """

    loss: float | None
    said: bool


def note_rounding(
    model: PreTrainedModel, tok: Any, requests: Sequence[EditRequest], result: Rectification, hparams: HyperParams
) -> None:
    """Measure what an edit does before and after rounding, put it into the patch, and warn where it is lost.

    `patch.info["rounded"]` then has the `dtype` and, for each of the `requests`, an `Answer` of the model with the
    patch applied, and as `trained` one with the changes as they were before they were rounded. A model whose dtype
    holds what is trained costs nothing, and its patch says nothing.

    Args:
        model: as it was when the edit was trained; it comes out bit for bit as it went in.
        requests: that the edit was made for.
        result: the edit.
        hparams: its settings, for the remedy.
    """
    patch = result.patch
    if "rounding" not in patch.info or result.slices is None:
        return
    encoded = encode(tok, requests, max_tokens(model))
    with result.slices.attached(train=False):
        trained = answers(model, encoded)
    patch.apply(model)
    try:
        found = answers(model, encoded)
    finally:
        patch.revert(model)
    rows = [{**asdict(now), "trained": asdict(meant)} for now, meant in zip(found, trained, strict=True)]
    dtype = next(str(s.new.dtype) for s in patch.slices.values() if s.new.element_size() < 4)
    patch.info["rounded"] = {"dtype": dtype.removeprefix("torch."), "requests": rows}
    _warn(patch.info, hparams)


def answers(model: PreTrainedModel, requests: Sequence[Encoded]) -> list[Answer]:
    """How the model takes each request: one at a time, so that the others' padding changes no rounding."""
    found = []
    with frozen(model), torch.no_grad():
        for e in requests:
            batch = collate([e], model.get_input_embeddings().weight.device)
            logits = answer_logits(model, batch)
            loss = token_losses(logits, batch.targets).mean()
            said = bool((logits.argmax(-1) == batch.targets.to(logits.device)).all())
            found.append(Answer(loss.item() if loss.isfinite() else None, said))
    return found


def unsaid(info: dict[str, Any]) -> list[int]:
    """Of the requests of `info["rounded"]`, those whose target rounding has taken."""
    rows = info.get("rounded", {}).get("requests", [])
    return [i for i, r in enumerate(rows) if r["trained"]["said"] and not r["said"]]


def _warn(info: dict[str, Any], hparams: HyperParams) -> None:
    lost, gone = info["rounding"], len(unsaid(info))
    if not gone and lost["kept"] >= LITTLE:
        return
    dtype, n = info["rounded"]["dtype"], len(info["rounded"]["requests"])
    effect = (
        f"the target of {gone} of {n} requests is said with the change that was trained, and not with the rounded one"
        if gone
        else "so that the edit may do little of what it was trained for"
    )
    LOG.warning(
        "expected %s to hold the edit, but rounding leaves %.0f%% of its values as they were and keeps %.0f%% of the "
        "change; %s: %s.",
        dtype, 100 * lost["unmoved"], 100 * lost["kept"], effect, remedy(hparams),
    )  # fmt: skip


def remedy(hparams: HyperParams) -> str:
    """What makes an edit with these settings survive half precision."""
    if not isinstance(hparams, PaCKEHyperParams):
        return f"raise margin (now {getattr(hparams, 'margin', None)}), or load the model in float32"
    draw = "" if hparams.rounding == "stochastic" else "set rounding: stochastic, "
    return f"{draw}raise lr (now {hparams.lr}), or load the model in float32"
