"""What a model's configuration says of the part that writes text, also where that is one part of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def text_config(model: PreTrainedModel) -> Any:
    """The model's own, or one inside it where images or sound go in as well."""
    return model.config.get_text_config(decoder=True)


def max_tokens(model: PreTrainedModel) -> int | None:
    """The longest text that the model can read; None if it does not say."""
    return getattr(text_config(model), "max_position_embeddings", None)
