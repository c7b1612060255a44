"""Which of many relations a prompt states, as the model reads it: there the edit has to hold, too, and in no other.

After texts that state the same relation of a subject, a model goes on alike. So no word of the prompt is looked at, and
nothing has to be known of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import PaCKEPlusHyperParams
from ..model.ffn import FFNMap, slice_dtype
from ..model.forward import answer_logits
from ..model.hooks import output_hooks
from ..requests import EditRequest, collate, encode
from .contexts import RELATIONS, about_subject, has_subject
from .moments import InputMoments, at_places
from .places import places

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def read_relations(
    model: PreTrainedModel, tok: Any, ffn: FFNMap, requests: Sequence[EditRequest], hparams: PaCKEPlusHyperParams
) -> tuple[list[list[str]], InputMoments]:
    """What the model makes of each request's subject in all `RELATIONS`.

    Returns:
        For each request, the relations after which the model goes on as after the prompt, likest first; none without a
        subject, or with a `likeness` of 1. And the moments of the modules' inputs in all others, where an edit would
        write: there it must not act.
    """
    others = InputMoments(sparse=True)
    if hparams.likeness == 1 and not (hparams.other_relations and hparams.null_space):
        return [[] for _ in requests], others
    return [_read(model, tok, ffn, r, hparams, others) if has_subject(r) else [] for r in requests], others


@torch.no_grad()
def _read(
    model: PreTrainedModel,
    tok: Any,
    ffn: FFNMap,
    request: EditRequest,
    hparams: PaCKEPlusHyperParams,
    others: InputMoments,
) -> list[str]:
    texts = [request, *(about_subject(request, relation) for relation in RELATIONS)]
    prompts = [e.begun for e in encode(tok, texts)]
    batch = collate(prompts, model.get_input_embeddings().weight.device)
    at = places(prompts, batch, hparams.write_at)
    inputs: list[Tensor] = []

    def keep(x: Tensor, _: Tensor) -> None:
        inputs.append(at_places(x, at))

    with output_hooks([(m.module, keep) for m in ffn.modules]):
        roots = answer_logits(model, batch).softmax(-1).sqrt()
    alike = (roots[1:] @ roots[0]).tolist()  # Bhattacharyya's coefficient of the next token's distributions, 0 to 1
    own = [i for i, value in enumerate(alike) if value >= hparams.likeness and hparams.likeness < 1]
    other = ~torch.isin(at.nonzero()[:, 0], torch.tensor([-1, *own]) + 1)
    for m, x in zip(ffn.modules, inputs, strict=True):
        others.add(m, x[other.to(x.device)].to(slice_dtype(x.dtype)))
    return [RELATIONS[i] for i in sorted(own, key=lambda i: (-alike[i], RELATIONS[i]))]
