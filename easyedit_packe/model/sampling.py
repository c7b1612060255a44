"""Texts that a model writes by itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .forward import remembered, require_finite
from .progress import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def beginning(tok: Any) -> list[int]:
    """The token that this tokeniser puts before every text, if it has one."""
    first = tok("a")["input_ids"][:1]
    return first if first and first[0] in set(tok.all_special_ids) else []


@torch.no_grad()
def continued(
    model: PreTrainedModel,
    ids: Tensor,
    length: int,
    generator: torch.Generator,
    never: Collection[int] = (),
    desc: str | None = None,
) -> Tensor:
    """Texts drawn from the model at temperature 1, from the `generator` alone; the global one is not touched.

    Args:
        ids: how they begin, int64 [rows, T].
        length: tokens in each, the beginning's included.
        never: tokens that are not drawn.
        desc: of a progress bar, in a terminal; None shows none.

    Returns:
        int64 [rows, length], on the CPU.

    Raises:
        ModelError: the model's logits are not finite.
    """
    device = model.get_input_embeddings().weight.device
    past: dict[str, Any] = {}
    step = ids
    for _ in shown(range(length - ids.shape[1]), desc):
        out = model(input_ids=step.to(device), use_cache=True, **past)
        past = remembered(out)
        logits = out.logits[:, -1].float().cpu()
        chances = logits.softmax(-1)
        require_finite(chances, "logits")
        unsaid = [i for i in never if i < chances.shape[1]]
        chances[:, unsaid] = 0
        sure = chances.sum(1) == 0  # that the text ends here: of what else it might say, each as likely as it is
        if sure.any():
            logits[:, unsaid] = -torch.inf
            chances[sure] = logits[sure].softmax(-1)
        step = torch.multinomial(chances, 1, generator=generator)
        ids = torch.cat([ids, step], 1)
    return ids
