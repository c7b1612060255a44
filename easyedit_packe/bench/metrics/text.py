"""What the model still can: perplexity of held-out text of several kinds, which no editor sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ...easyedit import routed
from ...model.config import max_tokens
from ..content.held_out import held_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WINDOW = 512
PARTS = ("whole", "short")
SHORT = 40
"""Words of each kind that are read where every edit is measured by itself."""


@torch.no_grad()
def perplexity(model: PreTrainedModel, tok: Any, text: str) -> float | None:
    """exp of the mean loss per token, in windows; None where it is not finite: the model collapsed."""
    ids = tok(text, return_tensors="pt")["input_ids"][0]
    total, count = 0.0, 0
    for part in ids.split(min(WINDOW, max_tokens(model) or WINDOW)):
        if len(part) < 2:
            continue
        routed.ask_at(model, -1)
        logits = model(part[None].to(model.device)).logits[0, :-1].float()
        total += F.cross_entropy(logits, part[1:].to(logits.device), reduction="sum").item()
        count += len(part) - 1
    mean = total / max(count, 1)
    return math.exp(mean) if math.isfinite(mean) and mean < 700 else None


def perplexities(model: PreTrainedModel, tok: Any, part: str) -> dict[str, float | None]:
    """By kind of text.

    Args:
        part: "whole", or "short" for the first `SHORT` words of each kind.
    """
    texts = {kind: text if part == "whole" else _first_words(text, SHORT) for kind, text in held_out().items()}
    return {kind: perplexity(model, tok, text) for kind, text in texts.items()}


def _first_words(text: str, count: int) -> str:
    """With its spaces and line ends."""
    at = 0
    for _ in range(count):
        while at < len(text) and text[at].isspace():
            at += 1
        while at < len(text) and not text[at].isspace():
            at += 1
    return text[:at]
