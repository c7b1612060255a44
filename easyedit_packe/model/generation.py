"""What a model says after a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..requests import EditRequest, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def greedy(model: PreTrainedModel, tok: Any, prompt: str, tokens: int = 8) -> str:
    """The model's greedy continuation of `prompt`, without special tokens, in one line."""
    return " ".join(greedy_all(model, tok, [prompt], tokens)[0].split())


@torch.no_grad()
def greedy_all(
    model: PreTrainedModel, tok: Any, prompts: Sequence[str], tokens: int, stops: Sequence[str] = ()
) -> list[str]:
    """The greedy continuation of each prompt, from one padded batch; the tokeniser's padding side is put back.

    Args:
        tokens: at most so many.
        stops: once the continuation of a prompt has one of these, it is no longer continued.
    """
    side, tok.padding_side = tok.padding_side, "left"
    try:
        encoded = tok(list(prompts), return_tensors="pt", padding=len(prompts) > 1).to(model.device)
    finally:
        tok.padding_side = side
    start = encoded["input_ids"].shape[1]

    def stopped(ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        said = tok.batch_decode(ids[:, start:], skip_special_tokens=True)
        return torch.tensor([any(stop in text.lstrip() for stop in stops) for text in said], device=ids.device)

    with _plain_decoding(model, tok):
        out = model.generate(
            **encoded, max_new_tokens=tokens, do_sample=False, stopping_criteria=[stopped] if stops else None
        )
    return tok.batch_decode(out[:, start:], skip_special_tokens=True)


@contextmanager
def _plain_decoding(model: PreTrainedModel, tok: Any) -> Iterator[None]:
    """While active, only the end tokens of the model's own settings count: a repetition penalty, or any other change
    of the model's scores, would not be greedy decoding."""
    own = model.generation_config
    pad = tok.pad_token_id if tok.pad_token_id is not None else tok.eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=pad
    )
    try:
        yield
    finally:
        model.generation_config = own


@torch.no_grad()
def token_accuracy(model: PreTrainedModel, tok: Any, prompt: str, target: str) -> float:
    """Share of the target's tokens that are the arg-max under teacher forcing, as EasyEdit's metrics count."""
    (e,) = encode(tok, [EditRequest(prompt, target)])
    logits = model(e.ids[None].to(model.device)).logits[0, e.answer_start - 1 : -1]
    return (logits.argmax(-1).cpu() == e.answer).float().mean().item()
