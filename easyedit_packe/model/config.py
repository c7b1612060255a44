"""What a model says of the part that writes text, also where that is one part of several."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def text_config(model: PreTrainedModel) -> Any:
    """The model's own, or one inside it where images or sound go in as well."""
    return model.config.get_text_config(decoder=True)


def max_tokens(model: PreTrainedModel) -> int | None:
    """The longest text that the model can read; None if it does not say."""
    return getattr(text_config(model), "max_position_embeddings", None)


def can_unsay(model: PreTrainedModel) -> bool:
    """Whether a token that the model has seen leaves no trace once it is masked. In a window it takes the place of
    another, without position ids it counts as one, and what a layer remembers that does not attend cannot be unread."""
    config = text_config(model)
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)  # the latter of GPT-Neo
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    attends = set(kinds) <= {"full_attention", "global"} if kinds else not any(windows)
    return attends and not model._is_stateful and "position_ids" in inspect.signature(model.forward).parameters
