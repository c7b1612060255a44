"""Which of many relations a prompt states, as the model reads it: there the edit has to hold, too, and nowhere else.

After texts that state the same relation of a subject, a model goes on alike. So no word of the prompt is looked at, and
nothing has to be known of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config import PaCKEPlusHyperParams
from ..requests import EditRequest
from .contexts import RELATIONS, about_subject, has_subject
from .said_next import said_next

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def same_relation(
    model: PreTrainedModel, tok: Any, requests: Sequence[EditRequest], hparams: PaCKEPlusHyperParams
) -> list[list[str]]:
    """For each request, those of `RELATIONS` after which the model goes on as after the prompt, likest first.

    None without a subject, or with a `likeness` of 1.
    """
    asks = hparams.likeness < 1
    return [_same(model, tok, r, hparams) if asks and has_subject(r) else [] for r in requests]


def _same(model: PreTrainedModel, tok: Any, request: EditRequest, hparams: PaCKEPlusHyperParams) -> list[str]:
    texts = [request, *(about_subject(request, relation) for relation in RELATIONS)]
    own, *others = said_next(model, tok, texts, hparams.micro_batch_size)
    ordered = sorted(zip([(other @ own).item() for other in others], RELATIONS, strict=True), reverse=True)
    return [relation for value, relation in ordered if value >= hparams.likeness]
