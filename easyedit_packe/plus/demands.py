"""What PaCKE+ asks of a model: in which texts the target has to lead, by how much, and where the edit may write."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import PaCKEPlusHyperParams
from ..requests import Batch, EditRequest, Encoded
from .background import Background
from .contexts import FRAGMENTS, about_subject, has_subject, in_other_orders, prefixes, with_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SURPLUS = 0.5
"""Log-odds beyond `margin` that a step aims for, so that it does not fall just short."""

PADDING = 2.0
"""By how much the longest text run together may exceed the shortest."""


def stated(
    requests: Sequence[EditRequest],
    hparams: PaCKEPlusHyperParams,
    background: Background,
    model: PreTrainedModel,
    tok: Any,
) -> list[EditRequest]:
    """The same facts, asked in other words that state the relation."""
    rng, found = random.Random(hparams.seed), []
    if hparams.prefix_contexts:
        background.prepare_texts(model, tok, hparams.seed)
    for request in requests:
        if hparams.prefix_contexts:
            texts = prefixes(tok, background.texts, hparams.prefix_contexts, hparams.prefix_tokens, rng)
            found += [with_prefix(request, text) for text in texts]
        if has_subject(request):
            found += in_other_orders(request, hparams.orders)
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


def places(rows: Sequence[Encoded], batch: Batch, write_at: str) -> Tensor:
    """True at the tokens [B, T] where the edit may write: the subject's, or all where it is not known.

    Never the first one, unless it is alone: models park attention on it, and what they hold there is the same in
    all texts. Where a subject of one or two tokens begins the text, what follows it stands in.
    """
    found = torch.zeros(batch.ids.shape, dtype=torch.bool)
    for i, e in enumerate(rows):
        length = len(e.ids) - 1
        first, after = (None if write_at == "all" else e.subject) or (0, length)
        if write_at == "from_subject":
            first, after = after - 1 if e.subject else 1, length
        elif first == 0:  # a single token would have to change so much that other texts notice
            after = min(max(after, 3), length)
        found[i, min(max(first, 1), length - 1) : after] = True
        if write_at == "subject_and_target":
            found[i, e.answer_start : length] = True
    return found


def alike(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices in groups of similar length, of at most `most` where that is not 0: less padding to compute with."""
    pieces: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not pieces or len(pieces[-1]) == most or lengths[i] > PADDING * lengths[pieces[-1][0]]:
            pieces.append([])
        pieces[-1].append(i)
    return pieces
