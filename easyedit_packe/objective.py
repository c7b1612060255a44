"""What an edit is optimised for: the terms of Eq. 7, and the forward pass that serves them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .requests import Batch


def answer_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits [N, V] (at least float32) at the N positions that predict the batch's answer tokens, and nowhere else.

    The vocabulary is the widest matrix of a model, so it is only multiplied where the loss looks.
    """
    hidden = model.base_model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
    picked = hidden[batch.rows.to(hidden.device), batch.cols.to(hidden.device)]
    logits = model.get_output_embeddings()(picked)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each answer token [N]. With the new target: first term of Eq. 7; with y: the second."""
    return F.cross_entropy(logits, labels.to(logits.device), reduction="none")


def leads(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-odds of each answer token [N]: `log p / (1 - p)`. Above 0 the token is the arg-max."""
    targets = targets.to(logits.device)[:, None]
    others = logits.scatter(1, targets, -torch.inf).logsumexp(1)
    return logits.gather(1, targets).squeeze(1) - others
