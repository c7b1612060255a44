"""The forward pass that training and measuring share: the model's own logits at some positions, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..requests import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def require_finite(found: Tensor, what: str) -> None:
    """Raises `ModelError` where what an unedited model gives, `what`, is not a finite number."""
    finite = found.isfinite()
    if not finite.all():
        raise ModelError(
            f"expected finite {what} before editing, got {found[~finite][0].item()}; the model's weights hold NaN or "
            "infinite values, or overflow in its dtype: load it again, or in float32 or bfloat16."
        )


def answer_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits [N, V] (at least float32) at the N positions that predict the batch's answer tokens, and nowhere else."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    logits, _ = logits_at(model, batch.rows, batch.cols, **inputs, use_cache=False)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def logits_at(model: PreTrainedModel, rows: Tensor, cols: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
    """The model's own logits [N, V] at places (rows [N], cols [N]) of a batch, and all else that it returned.

    The vocabulary is the widest matrix of a model, so it is only multiplied at these places: the head is given their
    hidden states alone. What the model does with its logits (Gemma 2 caps, Cohere and Granite scale them) it still
    does.
    """
    given = False

    def pick(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal given
        given = True
        return (args[0][rows.to(args[0].device), cols.to(args[0].device)][None], *args[1:])

    head = model.get_output_embeddings()
    handle = None if head is None else head.register_forward_pre_hook(pick)
    try:
        out = model(**inputs)
    finally:
        if handle is not None:
            handle.remove()
    logits = out.logits[0] if given else out.logits[rows.to(out.logits.device), cols.to(out.logits.device)]
    return logits, out


def remembered(out: Any) -> dict[str, Any]:
    """What a model kept of the tokens it has seen, by the name under which its next forward pass takes it: transformers
    renames `past_key_values` to `cache` on the way to 5.40."""
    return {name: kept for name, kept in out.items() if name in ("cache", "past_key_values")}
