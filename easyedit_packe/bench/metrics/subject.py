"""Other questions about the edited subject: what an edit must leave alone, and no editor ever sees.

An edit that turns the subject into the target scores well everywhere else: this is where it shows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ..content.questions import questions_about
from ..data import Record

LIKELIEST = 32
"""Tokens of the unedited model's answer that are told apart in the divergence; the others count together."""


def questions(record: Record) -> list[str]:
    """The data set's own where it has some, and the fixed ones for the subject's kind; none without a subject."""
    own = [probe.prompt for probe in record.same_subject]
    return own + (questions_about(record.subject, record.prompt) if record.subject else [])


def before(chances: Tensor) -> list[dict[str, list]]:
    """What is kept of the unedited model's first answer tokens [N, V], as plain values."""
    top = chances.topk(min(LIKELIEST, chances.shape[-1]), dim=-1)
    return [
        {"ids": ids, "log_probs": [round(p, 5) for p in log_probs]}
        for ids, log_probs in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def family(chances: Tensor, unedited: Sequence[dict[str, Any]], targets: Collection[int]) -> dict[str, float]:
    """Means over the questions.

    Args:
        chances: log-probabilities of the first answer token after the edit [N, V].
        unedited: `before` the edit.
        targets: the new target's first token, and any other that begins it.

    Returns:
        kept: the likeliest token is the unedited model's. drawn: it is the new target's, and was not before. kl:
        divergence of the edited from the unedited answer, in nats, over the unedited model's likeliest tokens and the
        rest as one: a lower bound of the whole.
    """
    said, was = chances.argmax(-1).tolist(), [row["ids"][0] for row in unedited]
    kept = [a == b for a, b in zip(said, was, strict=True)]
    drawn = [a in targets and b not in targets for a, b in zip(said, was, strict=True)]
    ids = torch.tensor([row["ids"] for row in unedited])
    p = _with_rest(torch.tensor([row["log_probs"] for row in unedited], dtype=torch.float64))
    q = _with_rest(chances.double().gather(1, ids))
    kl = (p.exp() * (p - q)).sum(-1)
    return {"kept": sum(kept) / len(kept), "drawn": sum(drawn) / len(drawn), "kl": kl.mean().clamp(min=0).item()}


def _with_rest(log_probs: Tensor) -> Tensor:
    """Log-probabilities [N, K], and that of all other tokens [N, K + 1]."""
    rest = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp(min=1e-9)
    return torch.cat([log_probs, rest.log()], -1)
