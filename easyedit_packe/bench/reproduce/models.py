"""How large a model is, before anything of it is on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache import cache_dir
from ...errors import FetchError
from ...model.fetch import SOURCES
from .plan import Where

_LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "tie_word_embeddings": False,
}  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {
    "gpt-j-6B": {
        "model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64, "vocab_size": 50400,
        "n_positions": 2048, "tie_word_embeddings": False,
    },
    "llama-7b": {**_LLAMA, "intermediate_size": 11008, "num_key_value_heads": 32, "vocab_size": 32000},
    "llama3-8b": {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
"""The configurations of the paper's models, as far as shapes go: a plan needs no file of theirs."""


@dataclass(frozen=True)
class Sizes:
    """What costs depend on.

    Attributes:
        layers, hidden, intermediate, vocabulary: L, D, M and the number of tokens.
        weights: all of them.
        used: those that a token is multiplied with: all but the embedding that it is looked up in.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    weights: int
    used: int


def configuration(where: Where) -> Any:
    """The model's configuration: that of the weights where they are here, else the known one. Nothing is downloaded.

    Raises:
        FetchError: neither is there.
    """
    from transformers import AutoConfig

    for place in _places(where):
        if (place / "config.json").is_file():
            return AutoConfig.from_pretrained(place, local_files_only=True)
    if where.name in KNOWN:
        return AutoConfig.for_model(**KNOWN[where.name])
    try:
        return AutoConfig.from_pretrained(where.weights or where.name, local_files_only=True)
    except (OSError, ValueError):
        raise FetchError(
            f"the size of {where.name!r} is not known; give --weights a folder with its config.json, which alone is "
            f"enough for a plan and a dry run. Known without one: {', '.join(KNOWN)}."
        ) from None


def weights_here(where: Where) -> str | None:
    """The folder with the model's weights; None where there is none. A hub name is asked for, so it counts as there."""
    if where.weights and "/" in where.weights and not Path(where.weights).expanduser().exists():
        return where.weights if where.weights.count("/") == 1 and not where.weights.startswith((".", "~")) else None
    for place in _places(where):
        if any(place.glob("*.safetensors")) or any(place.glob("*.bin")):
            return where.name if place.parent == cache_dir() / "models" else str(place)
    return None


def _places(where: Where) -> list[Path]:
    named = [Path(where.weights).expanduser()] if where.weights else []
    if where.name in SOURCES or where.weights in SOURCES:
        named.append(cache_dir() / "models" / (where.weights or where.name))
    return named


def sizes(config: Any) -> Sizes:
    """Counted on a model whose tensors have no values."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    weights = sum(p.numel() for p in model.parameters())
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    text = config.get_text_config(decoder=True)
    width = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size
    return Sizes(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=max(width) if isinstance(width, list | tuple) else width,
        vocabulary=text.vocab_size,
        weights=weights,
        used=weights if inputs is outputs else weights - inputs.numel(),
    )
