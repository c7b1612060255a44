"""What PaCKE+ asks of a model: in which texts the target has to lead, and by how much."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import PaCKEPlusHyperParams
from ..requests import EditRequest, Encoded
from .background import Background
from .contexts import FRAGMENTS, about_subject, has_subject, in_other_orders, prefixes, with_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SURPLUS = 0.5
"""Log-odds beyond `margin` that a step aims for, so that it does not fall just short."""


def stated(
    requests: Sequence[EditRequest],
    same: Sequence[Sequence[str]],
    hparams: PaCKEPlusHyperParams,
    background: Background,
    model: PreTrainedModel,
    tok: Any,
) -> list[EditRequest]:
    """The same facts, asked in other words that state the relation: `same` has some for each request."""
    rng, found = random.Random(hparams.seed), []
    if hparams.prefix_contexts or hparams.prefix_reworded:
        background.prepare_texts(model, tok, hparams.seed)
    for request, own in zip(requests, same, strict=True):
        reworded = in_other_orders(request, hparams.orders) if has_subject(request) else []
        reworded += [about_subject(request, relation) for relation in own[: hparams.relations]]
        # those of relations, which come last and share no word with the prompt, before those of orders
        behind = [request] * hparams.prefix_contexts + reworded[::-1][: hparams.prefix_reworded]
        texts = prefixes(tok, background.texts, len(behind), hparams.prefix_tokens, rng)
        found += [with_prefix(words, text) for words, text in zip(behind, texts, strict=False)]
        found += reworded
    return found


def neutral(requests: Sequence[EditRequest], hparams: PaCKEPlusHyperParams) -> list[EditRequest]:
    """The targets after words that name no relation."""
    return [about_subject(r, f) for r in filter(has_subject, requests) for f in FRAGMENTS[: hparams.subject_contexts]]


def leads(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-odds of each answer token [N]: `log p / (1 - p)`. Above 0 the token is the arg-max."""
    targets = targets.to(logits.device)[:, None]
    others = logits.scatter(1, targets, -torch.inf).logsumexp(1)
    return logits.gather(1, targets).squeeze(1) - others


def lacks(lead: Tensor, margin: float | Tensor) -> Tensor:
    """What each answer token's lead lacks, 0 where it reaches the margin [N]; a lead that is no number stays none."""
    return torch.where(lead >= margin, 0.0, margin + SURPLUS - lead)


def asked(lead: Tensor, rows: Sequence[Encoded], margin: float | Tensor) -> Tensor:
    """True at the answer tokens [N] whose lead a change is about: those that lack something; in a row where none
    does, all, which have to stay."""
    by_row = (lead < margin).split([len(e.answer) for e in rows])
    return torch.cat([part if part.any() else ~part for part in by_row])
