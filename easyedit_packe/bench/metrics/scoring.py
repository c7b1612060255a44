"""Answers under teacher forcing, from padded batches: what every family of metrics is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...easyedit import routed
from ...model.forward import answer_logits
from ...model.generation import Text
from ...requests import EditRequest, Encoded, collate, encode, token_ids

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


class Heard:
    """What a model says after each text that it has been asked, so that it is asked once, whatever metrics want of it.

    Of one model as it is now; make a new one after an edit.
    """

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], Tensor] = {}

    def note(self, text: tuple[int, ...], chances: Tensor) -> None:
        """Log-probabilities of the token after a text [V], float32, on the CPU."""
        self._after[text] = chances

    def after(self, text: tuple[int, ...]) -> Tensor:
        """What `note` was told."""
        return self._after[text]

    def missing(self, texts: Iterable[Text]) -> list[Text]:
        """Without what is known, and without those that another one begins with: it answers for them, too."""
        chosen: dict[tuple[int, ...], int] = {}
        begins: dict[tuple[int, ...], tuple[int, ...]] = {}
        unknown = [(t, least) for t, least in texts if any(t[:n] not in self._after for n in range(least, len(t) + 1))]
        for text, least in sorted(unknown, key=lambda asked: -len(asked[0])):
            whole = begins.get(text, text)
            chosen[whole] = min(least, chosen.get(whole, least))
            if whole is text:
                begins |= {text[:end]: text for end in range(1, len(text) + 1)}
        return list(chosen.items())

    @torch.no_grad()
    def ask(self, model: PreTrainedModel, texts: Iterable[Text]) -> None:
        """Note what the model says after each text."""
        once = self.missing(texts)
        for piece in batches([len(text) for text, _ in once]):
            # The last token is not looked at: what is asked is what the model says in its place.
            batch = collate([Encoded(torch.tensor([*once[i][0], 0]), once[i][1]) for i in piece], model.device)
            chances = iter(answer_logits(model, batch).float().log_softmax(-1).cpu())
            for text, least in (once[i] for i in piece):
                for end in range(least, len(text) + 1):
                    self.note(text[:end], next(chances))


@torch.no_grad()
def score(
    model: PreTrainedModel, tok: Any, pairs: Sequence[tuple[str, str]], heard: Heard | None = None
) -> list[Scored]:
    """Each (prompt, answer) pair, tokenised as EasyEdit's metrics do: the prompt, a space, the answer.

    An empty answer stands for the one token that the model says next.
    """
    encoded = [_encoded(tok, *pair) for pair in pairs]
    return [_scored(e, said) for e, said in zip(encoded, _said(model, encoded, heard), strict=True)]


def _scored(e: Encoded, said: Tensor) -> Scored:
    own = said.argmax(-1)
    chance = said.gather(1, e.answer[:, None]).mean().item()
    return Scored(chance, tuple(own.tolist()), tuple((own == e.answer).tolist()))


@torch.no_grad()
def first_token_chances(
    model: PreTrainedModel, tok: Any, prompts: Sequence[str], heard: Heard | None = None
) -> torch.Tensor:
    """Log-probabilities of the first token after each prompt [N, V], float32, on the CPU."""
    return torch.cat(list(_said(model, [_next(tok, p) for p in prompts], heard)))


def wanted(tok: Any, pairs: Iterable[tuple[str, str]], prompts: Iterable[str]) -> list[Text]:
    """What `score` and `first_token_chances` ask of these."""
    return _texts([*(_encoded(tok, *pair) for pair in pairs), *(_next(tok, p) for p in prompts)])


def listen(model: PreTrainedModel, texts: Iterable[Text], heard: Heard) -> None:
    """Ask all of these at once, unless a router in the model looks at all that it sees."""
    if not routed.adapters(model):
        heard.ask(model, texts)


def _texts(encoded: Sequence[Encoded]) -> list[Text]:
    return [(tuple(e.ids[:-1].tolist()), e.answer_start) for e in encoded]


def _said(model: PreTrainedModel, encoded: Sequence[Encoded], heard: Heard | None) -> Iterator[Tensor]:
    """Log-probabilities in the place of each text's answer tokens [A, V]; each text is asked by itself where a router
    in the model looks at all that it sees."""
    texts = _texts(encoded)
    alone = bool(routed.adapters(model))
    heard = Heard() if heard is None or alone else heard
    listen(model, texts, heard)
    for text, least in texts:
        if alone:
            heard = Heard()
            routed.ask_at(model, least - 1)
            heard.ask(model, [(text, least)])
        yield torch.stack([heard.after(text[:end]) for end in range(least, len(text) + 1)])


def _encoded(tok: Any, prompt: str, answer: str) -> Encoded:
    return encode(tok, [EditRequest(prompt, answer.strip())])[0] if answer.strip() else _next(tok, prompt)


def _next(tok: Any, prompt: str) -> Encoded:
    """A prompt with a token behind it, which is not looked at: what is asked is what the model says in its place."""
    ids = token_ids(tok, prompt)
    return Encoded(torch.tensor([*ids, ids[0]]), len(ids))


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
