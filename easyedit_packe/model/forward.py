"""The forward pass that training and measuring share: logits at answer positions, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..requests import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def answer_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits [N, V] (at least float32) at the N positions that predict the batch's answer tokens, and nowhere else.

    The vocabulary is the widest matrix of a model, so it is only multiplied where the loss looks.
    """
    hidden = model.base_model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
    picked = hidden[batch.rows.to(hidden.device), batch.cols.to(hidden.device)]
    logits = model.get_output_embeddings()(picked)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
