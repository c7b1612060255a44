"""Where an edit must not act, though the words are nearly the same: other subjects in the same relation, and the same
subject in other relations. What the modules see there counts when the size of a change is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config import PaCKEPlusHyperParams
from ..model.ffn import FFNMap
from ..requests import EditRequest
from .contexts import FRAGMENTS, ORDERS, RELATIONS, about_subject, has_subject, in_other_orders, of_another
from .moments import InputMoments

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def contrasts(
    requests: Sequence[EditRequest],
    same: Sequence[Sequence[str]],
    names: Sequence[Sequence[str]],
    hparams: PaCKEPlusHyperParams,
) -> list[EditRequest]:
    """The texts, each with the request's target behind it, which is not looked at. None without a subject.

    Args:
        same: for each request, what states its own relation (`relations.same_relation`).
        names: for each request, other subjects (`names.of_a_kind`).
    """
    rng, found = random.Random(hparams.seed), []
    stated: dict[str | None, set[str]] = {}  # what is asked of a subject, also by another request about it
    for request, own in zip(requests, same, strict=True):
        stated.setdefault(request.subject, set()).update(own)
    for request, own, subjects in zip(requests, same, names, strict=True):
        if not has_subject(request):
            continue
        for i, name in enumerate(subjects):
            # each in the words of one text of every kind in which the target is asked for
            other = of_another(request, name)
            found.append(other)
            if hparams.orders:
                found.append(in_other_orders(other, len(ORDERS))[i % min(hparams.orders, len(ORDERS))])
            if asked := own[: hparams.relations]:
                found.append(about_subject(other, asked[i % len(asked)]))
            if hparams.subject_contexts:
                found.append(about_subject(other, FRAGMENTS[i % min(hparams.subject_contexts, len(FRAGMENTS))]))
        others = (*RELATIONS, *FRAGMENTS[hparams.subject_contexts :])  # the first are where the target is asked for
        free = [relation for relation in others if relation not in stated[request.subject]]
        wanted = min(hparams.contrast_relations, len(free))
        found += [about_subject(request, relation) for relation in rng.sample(free, wanted)]
    return found


def contrast_moments(
    model: PreTrainedModel, tok: Any, ffn: FFNMap, texts: Sequence[EditRequest], hparams: PaCKEPlusHyperParams
) -> InputMoments:
    """Of the modules' inputs at the tokens of `contrasts` where an edit would write; empty without texts."""
    moments = InputMoments(sparse=True)
    moments.count(model, tok, ffn, texts, hparams.write_at, hparams.micro_batch_size)
    return moments
