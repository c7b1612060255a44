"""What a model says after a prompt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import RequestError
from ..requests import EditRequest, encode, require_positions, token_ids
from .config import can_unsay, max_tokens
from .forward import logits_at, remembered

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AHEAD = 24
"""Tokens that texts which repeat themselves are taken to go on with, of all texts of a pass together."""

Enough = Callable[[int, str], bool]
Text = tuple[tuple[int, ...], int]
"""Tokens, and how many of them at least: the text, and all its beginnings that are not shorter."""
Heard = Callable[[tuple[int, ...], Tensor], None]


def greedy(model: PreTrainedModel, tok: Any, prompt: str, tokens: int = 8) -> str:
    """The model's greedy continuation of `prompt`, without special tokens, in one line."""
    return " ".join(greedy_all(model, tok, [prompt], tokens)[0].split())


@torch.no_grad()
def greedy_all(
    model: PreTrainedModel,
    tok: Any,
    prompts: Sequence[str],
    tokens: int,
    stops: Sequence[str] = (),
    enough: Enough | None = None,
    guesses: Sequence[str] | None = None,
    heard: Heard | None = None,
    also: Sequence[Text] = (),
) -> list[str]:
    """The greedy continuation of each prompt, from one padded batch: what `generate` gives with no setting but its end
    tokens. A repetition penalty, or any other change of the model's scores, would not be greedy decoding.

    Args:
        tokens: at most so many, of each.
        stops: once the continuation of a prompt has one of these, it is no longer continued.
        enough: from a prompt's index and its continuation so far, whether it need not be continued.
        guesses: how each might go on, "" for unknown. Guesses, also that a text which repeats itself goes on to do so,
            change nothing but rounding; right ones save passes, as the model then looks at several tokens in one. None
            lets it look at one after another, as it does anyway where it cannot take a guess back; a wrapper that is
            no function of each token and those before needs that.
        heard: gets the tokens of each prompt, and of each with a beginning of its guess behind it, and the
            log-probabilities of the token after these [V], float32, on the CPU.
        also: other texts that `heard` gets in the same pass, with each of their beginnings.

    Raises:
        RequestError: a prompt without tokens, or with more than the model has positions; where a text reaches these,
            it ends.
    """
    asked, most = [token_ids(tok, prompt) for prompt in prompts], max_tokens(model)
    for prompt, ids in zip(prompts, asked, strict=True):
        if not ids:
            raise RequestError(f"the prompt {prompt!r} tokenises to nothing; give a longer prompt.")
        require_positions(prompt, len(ids), most)
    if guesses is not None and not can_unsay(model):
        guesses = None
    limits = [tokens if most is None else min(tokens, most - len(ids) + 1) for ids in asked]
    guessed = [
        _guess(tok, prompt, guess)[: limit - 1]
        for prompt, guess, limit in zip(prompts, guesses or [""] * len(asked), limits, strict=True)
    ]
    ends = _end_tokens(model)
    said: list[list[int]] = [[] for _ in asked]

    def goes_on(i: int, token: int) -> bool:
        said[i].append(token)
        if token in ends or len(said[i]) >= limits[i]:
            return False
        text = tok.decode(said[i], skip_special_tokens=True)
        return not any(stop in text.lstrip() for stop in stops) and not (enough is not None and enough(i, text))

    batch, left = _Speakers(model), list(range(len(asked)))
    logits = batch.first([(*a, *g) for a, g in zip(asked, guessed, strict=True)], list(map(len, asked)), heard, also)
    while left:
        own, going = iter(logits.argmax(-1).tolist()), []
        for i, guess in zip(left, guessed, strict=True):
            right = 0
            words = [next(own) for _ in range(len(guess) + 1)]
            while goes_on(i, words[right]):
                if right == len(guess) or words[right] != guess[right]:
                    going.append(i)
                    break
                right += 1
            batch.unsay(i, len(guess) - right)
        left = going
        ahead = AHEAD // len(left) if left and guesses else 0
        guessed = [_again(said[i], min(ahead, limits[i] - len(said[i]) - 1)) for i in left]
        if left:
            new = [[said[i][-1], *guess] for i, guess in zip(left, guessed, strict=True)]
            logits = batch.after(left, new, [len(n) for n in new])
    return tok.batch_decode(said, skip_special_tokens=True)


class _Speakers:
    """Texts of a batch, and what the model remembers of them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.past: dict[str, Any] = {}
        self.rows: list[int] = []

    def first(
        self, texts: Sequence[tuple[int, ...]], least: Sequence[int], heard: Heard | None, also: Sequence[Text]
    ) -> Tensor:
        """Logits after each text, and after each beginning of it that has at least so many tokens."""
        mine = list(zip(texts, least, strict=True))
        known = {text[:end] for text, n in mine for end in range(n, len(text) + 1)}
        mine += [(t, n) for t, n in also if not all(t[:end] in known for end in range(n, len(t) + 1))]
        logits = self.after(range(len(mine)), [text for text, _ in mine], [len(text) - n + 1 for text, n in mine])
        if heard is not None:
            chances = iter(logits.float().log_softmax(-1).cpu())
            for text, n in mine:
                for end in range(n, len(text) + 1):
                    heard(text[:end], next(chances))
        return logits[: sum(len(text) - n + 1 for text, n in mine[: len(texts)])]

    def after(self, rows: Sequence[int], new: Sequence[Sequence[int]], last: Sequence[int]) -> Tensor:
        """Logits [sum of `last`, V] after each of the last tokens of what is new in these texts; others are forgotten.

        What is new is padded on the left. The vocabulary's matrix sees no other hidden state.
        """
        width, device = max(map(len, new)), self.model.device
        ids = torch.tensor([[0] * (width - len(n)) + list(n) for n in new], device=device)
        mask = torch.tensor([[0] * (width - len(n)) + [1] * len(n) for n in new], device=device)
        if not self.past:
            self.mask = mask
        else:
            kept = torch.tensor([self.rows.index(row) for row in rows], device=device)
            if len(rows) < len(self.rows):
                for cache in self.past.values():
                    cache.reorder_cache(kept)
            self.mask = torch.cat([self.mask[kept], mask], -1)
        self.rows = list(rows)
        places = [(row, -n + k) for row, n in enumerate(last) for k in range(n)]
        logits, out = logits_at(
            self.model, *map(torch.tensor, zip(*places, strict=True)),
            input_ids=ids, attention_mask=self.mask, use_cache=True, **self.past,
            position_ids=(self.mask.cumsum(-1) - 1).clamp(min=0)[:, -width:],
        )  # fmt: skip
        self.past = remembered(out)
        return logits

    def unsay(self, row: int, count: int) -> None:
        """Make the model blind to a text's last tokens."""
        if count:
            self.mask[self.rows.index(row), -count:] = 0


def _again(said: Sequence[int], count: int) -> list[int]:
    """How a text goes on that says the same again and again, as those of damaged models do; else nothing."""
    for period in range(1, 1 + len(said) // 2):
        if said[-period:] == said[-2 * period : -period]:
            return list(itertools.islice(itertools.cycle(said[-period:]), count))
    return []


def _guess(tok: Any, prompt: str, guess: str) -> list[int]:
    """A continuation's tokens, where it leaves the prompt's as they are."""
    if not guess:
        return []
    ids, whole = token_ids(tok, prompt), token_ids(tok, f"{prompt} {guess}")
    return whole[len(ids) :] if whole[: len(ids)] == ids else []


def _end_tokens(model: PreTrainedModel) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)


@torch.no_grad()
def token_accuracy(model: PreTrainedModel, tok: Any, prompt: str, target: str) -> float:
    """Share of the target's tokens that are the arg-max under teacher forcing, as EasyEdit's metrics count."""
    (e,) = encode(tok, [EditRequest(prompt, target)])
    logits = model(e.ids[None].to(model.device)).logits[0, e.answer_start - 1 : -1]
    return (logits.argmax(-1).cpu() == e.answer).float().mean().item()
