"""What the model still can: perplexity of held-out text of several kinds, which no editor sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ..content import held_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WINDOW = 512
SHORT = 120
"""Words of each kind that are read where every edit is measured by itself."""


@torch.no_grad()
def perplexity(model: PreTrainedModel, tok: Any, text: str) -> float | None:
    """exp of the mean loss per token, in windows; None where it is not finite: the model collapsed."""
    ids = tok(text, return_tensors="pt")["input_ids"][0]
    total, count = 0.0, 0
    for part in ids.split(WINDOW):
        if len(part) < 2:
            continue
        logits = model(part[None].to(model.device)).logits[0, :-1].float()
        total += F.cross_entropy(logits, part[1:].to(logits.device), reduction="sum").item()
        count += len(part) - 1
    mean = total / max(count, 1)
    return math.exp(mean) if math.isfinite(mean) and mean < 700 else None


def perplexities(model: PreTrainedModel, tok: Any, short: bool = False) -> dict[str, float | None]:
    """By kind of text."""
    texts = held_out()
    if short:
        texts = {kind: _first_words(text, SHORT) for kind, text in texts.items()}
    return {kind: perplexity(model, tok, text) for kind, text in texts.items()}


def ratio(now: dict[str, float | None], before: dict[str, float | None]) -> float:
    """The geometric mean over the kinds of text of the growth; infinite where the model collapsed on one."""
    logs = [math.log(n) - math.log(b) if n and b else math.inf for n, b in ((now[k], before[k]) for k in before)]
    return math.exp(sum(logs) / len(logs)) if all(map(math.isfinite, logs)) else math.inf


def _first_words(text: str, count: int) -> str:
    """With its spaces and line ends."""
    at = 0
    for _ in range(count):
        while at < len(text) and text[at].isspace():
            at += 1
        while at < len(text) and not text[at].isspace():
            at += 1
    return text[:at]
