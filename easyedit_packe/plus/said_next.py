"""How a model goes on after a text: texts after which it goes on alike say the same, as it reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..model.config import max_tokens
from ..model.forward import answer_logits
from ..requests import EditRequest, Encoded, collate, encode
from .places import alike

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def said_next(model: PreTrainedModel, tok: Any, texts: Sequence[EditRequest], most: int) -> Tensor:
    """Square roots of the next token's chances after each prompt [N, V], on the CPU; of one that is longer than the
    model can read, after its last tokens.

    The inner product of two rows is Bhattacharyya's coefficient of the two distributions, 0 to 1.

    Args:
        most: texts in one forward pass; 0 sets no limit.
    """
    prompts = [_readable(e.begun, max_tokens(model)) for e in encode(tok, texts)]
    device = model.get_input_embeddings().weight.device
    found: dict[int, Tensor] = {}
    for piece in alike([e.answer_start for e in prompts], most):
        logits = answer_logits(model, collate([prompts[i] for i in piece], device))
        found |= zip(piece, logits.softmax(-1).sqrt().cpu(), strict=True)
    return torch.stack([found[i] for i in range(len(texts))])


def _readable(text: Encoded, most: int | None) -> Encoded:
    over = 0 if most is None else max(0, len(text.ids) - 1 - most)  # its last token is not read
    return Encoded(text.ids[over:], text.answer_start - over)
