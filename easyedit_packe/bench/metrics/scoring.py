"""Answers under teacher forcing, from padded batches: what every family of metrics is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ...easyedit import routed
from ...model.forward import answer_logits
from ...requests import EditRequest, Encoded, collate, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 2048
"""Most tokens, padding included, of one forward pass."""


@dataclass(frozen=True)
class Scored:
    """An answer of A tokens after a prompt.

    Attributes:
        log_prob: mean log-probability of its tokens, in nats.
        said: what the model would say at each of its positions.
        hits: whether that is the answer's token.
    """

    log_prob: float
    said: tuple[int, ...]
    hits: tuple[bool, ...]

    @property
    def accuracy(self) -> float:
        """Share of hits: EasyEdit's token accuracy."""
        return sum(self.hits) / len(self.hits)


@torch.no_grad()
def score(model: PreTrainedModel, tok: Any, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
    """Each (prompt, answer) pair, tokenised as EasyEdit's metrics do: the prompt, a space, the answer.

    An empty answer stands for the one token that the model says next. What several metrics ask is asked once.
    """
    wanted = [(prompt, answer.strip()) for prompt, answer in pairs]
    once = {pair: i for i, pair in enumerate(dict.fromkeys(wanted))}
    encoded = [encode(tok, [EditRequest(p, a)])[0] if a else _next(tok, p) for p, a in once]
    found: dict[int, Scored] = {}
    for piece in _pieces(model, encoded):
        batch = collate([encoded[i] for i in piece], model.device)
        logits = answer_logits(model, batch)
        targets = batch.targets.to(logits.device)
        chances = -F.cross_entropy(logits, targets, reduction="none")
        said = logits.argmax(-1)
        lengths = [len(encoded[i].answer) for i in piece]
        parts = (t.cpu().split(lengths) for t in (chances, said, said == targets))
        for i, chance, ids, hits in zip(piece, *parts, strict=True):
            found[i] = Scored(chance.mean().item(), tuple(ids.tolist()), tuple(hits.tolist()))
    return [found[once[pair]] for pair in wanted]


@torch.no_grad()
def first_token_chances(model: PreTrainedModel, tok: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Log-probabilities of the first token after each prompt [N, V], float32, on the CPU."""
    encoded = [_next(tok, p) for p in prompts]
    found: dict[int, torch.Tensor] = {}
    for piece in _pieces(model, encoded):
        batch = collate([encoded[i] for i in piece], model.device)
        logits = answer_logits(model, batch).float().log_softmax(-1).cpu()
        found |= dict(zip(piece, logits, strict=True))
    return torch.stack([found[i] for i in range(len(prompts))])


def _next(tok: Any, prompt: str) -> Encoded:
    """A prompt with a token behind it, which is not looked at: what is asked is what the model says in its place."""
    ids = torch.tensor(tok(prompt)["input_ids"])
    return Encoded(torch.cat([ids, ids[:1]]), len(ids))


def _pieces(model: PreTrainedModel, encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Indices of texts that run together; each by itself where a router in the model looks at all that it sees."""
    if not routed.adapters(model):
        yield from batches([len(e.ids) for e in encoded])
        return
    for i, e in enumerate(encoded):
        routed.ask_at(model, e.answer_start - 1)
        yield [i]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts that run together: of similar length, and at most `TOKENS` with their padding."""
    piece: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if piece and (len(piece) + 1) * lengths[i] > TOKENS:
            yield piece
            piece = []
        piece.append(i)
    if piece:
        yield piece
