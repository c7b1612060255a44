"""Which of many relations a prompt states, as the model reads it: there the edit has to hold, too, and nowhere else.

After texts that state the same relation of a subject, a model goes on alike. So no word of the prompt is looked at, and
nothing has to be known of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import PaCKEPlusHyperParams
from ..model.forward import answer_logits
from ..requests import EditRequest, collate, encode
from .contexts import RELATIONS, about_subject, has_subject
from .places import alike

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


@torch.no_grad()
def _same(model: PreTrainedModel, tok: Any, request: EditRequest, hparams: PaCKEPlusHyperParams) -> list[str]:
    texts = [request, *(about_subject(request, relation) for relation in RELATIONS)]
    prompts = [e.begun for e in encode(tok, texts)]
    device = model.get_input_embeddings().weight.device
    roots: dict[int, Tensor] = {}
    for piece in alike([e.answer_start for e in prompts], hparams.micro_batch_size):
        logits = answer_logits(model, collate([prompts[i] for i in piece], device))
        roots |= zip(piece, logits.softmax(-1).sqrt(), strict=True)
    # Bhattacharyya's coefficient of the next token's distributions, 0 to 1
    found = [(roots[i] @ roots[0]).item() for i in range(1, len(texts))]
    ordered = sorted(zip(found, RELATIONS, strict=True), reverse=True)
    return [relation for value, relation in ordered if value >= hparams.likeness]
