"""Where an edit must not act, though the words are the same: other subjects in the same relation. What the modules see
there counts when the size of a change is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config import PaCKEPlusHyperParams
from ..model.ffn import FFNMap
from ..requests import EditRequest
from .contexts import FRAGMENTS, NAMES, about_subject, has_subject, in_other_orders, of_another
from .moments import InputMoments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EACH = 2
"""Kinds of texts in which each name stands, of the four in which a target is asked for."""


def contrasts(
    requests: Sequence[EditRequest], same: Sequence[Sequence[str]], hparams: PaCKEPlusHyperParams
) -> list[EditRequest]:
    """The texts, each with the request's target behind it, which is not looked at. None without a subject.

    Args:
        same: for each request, what states its own relation (`relations.read_relations`).
    """
    rng, found = random.Random(hparams.seed), []
    for request, own in zip(requests, same, strict=True):
        if not has_subject(request):
            continue
        kinds = [
            [request],
            in_other_orders(request, hparams.orders),
            [about_subject(request, relation) for relation in own[: hparams.relations]],
            [about_subject(request, fragment) for fragment in FRAGMENTS[: hparams.subject_contexts]],
        ]
        asked = [texts for texts in kinds if texts]
        for i, name in enumerate(rng.sample(NAMES, min(hparams.contrast_names, len(NAMES)))):
            for kind in range(i, i + min(EACH, len(asked))):
                texts = asked[kind % len(asked)]
                found.append(of_another(texts[i // len(asked) % len(texts)], name))
    return found


def contrast_moments(
    model: PreTrainedModel, tok: Any, ffn: FFNMap, texts: Sequence[EditRequest], hparams: PaCKEPlusHyperParams
) -> InputMoments:
    """Of the modules' inputs at the tokens of `contrasts` where an edit would write; empty without texts."""
    moments = InputMoments(sparse=True)
    moments.count(model, tok, ffn, texts, hparams.write_at, hparams.micro_batch_size)
    return moments
