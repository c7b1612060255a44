"""Where an edit must not act, though the words are nearly the same: other subjects in the same relation, and the same
subject in other relations. What the modules see there counts when the size of a change is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..config import PaCKEPlusHyperParams
from ..model.ffn import FFNMap
from ..model.hooks import ends_with
from ..requests import EditRequest, Encoded, collate, encode
from .contexts import FRAGMENTS, NAMES, ORDERS, RELATIONS, about_subject, has_subject, in_other_orders, of_another
from .demands import alike, places
from .moments import InputMoments

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def contrasts(requests: Sequence[EditRequest], hparams: PaCKEPlusHyperParams) -> list[EditRequest]:
    """The texts, each with the request's target behind it, which is not looked at. None without a subject."""
    rng, found = random.Random(hparams.seed), []
    for request in filter(has_subject, requests):
        for i, name in enumerate(rng.sample(NAMES, min(hparams.contrast_names, len(NAMES)))):
            # each in the words of one text of every kind in which the target is asked for
            other = of_another(request, name)
            found.append(other)
            if hparams.orders:
                found.append(in_other_orders(other, len(ORDERS))[i % min(hparams.orders, len(ORDERS))])
            if hparams.subject_contexts:
                found.append(about_subject(other, FRAGMENTS[i % min(hparams.subject_contexts, len(FRAGMENTS))]))
        free = RELATIONS + FRAGMENTS[hparams.subject_contexts :]  # the others are where the target is asked for
        wanted = min(hparams.contrast_relations, len(free))
        found += [about_subject(request, relation) for relation in rng.sample(free, wanted)]
    return found


@torch.no_grad()
def contrast_moments(
    model: PreTrainedModel, tok: Any, ffn: FFNMap, requests: Sequence[EditRequest], hparams: PaCKEPlusHyperParams
) -> InputMoments:
    """Of the modules' inputs at the tokens of `contrasts` where an edit would write; empty without texts."""
    moments = InputMoments(sparse=True)
    texts = encode(tok, contrasts(requests, hparams), getattr(model.config, "max_position_embeddings", None))
    prompts = [Encoded(e.ids[: e.answer_start + 1], e.answer_start, e.subject) for e in texts]
    for piece in alike([e.answer_start for e in prompts], hparams.micro_batch_size):
        rows = [prompts[i] for i in piece]
        batch = collate(rows, model.get_input_embeddings().weight.device)
        at = places(rows, batch, hparams.write_at)
        with moments.watching(ffn.modules, at), ends_with(ffn.modules[-1].module):
            model.base_model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    return moments
