"""What a model says after a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import RequestError
from ..requests import EditRequest, encode, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Enough = Callable[[int, str], bool]
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
) -> list[str]:
    """The greedy continuation of each prompt, from one padded batch: what `generate` gives with no setting but its end
    tokens. A repetition penalty, or any other change of the model's scores, would not be greedy decoding.

    Args:
        tokens: at most so many.
        stops: once the continuation of a prompt has one of these, it is no longer continued.
        enough: from a prompt's index and its continuation so far, whether it need not be continued.
        guesses: how each might go on. Guesses change nothing; right ones save passes, because the model then looks at
            several tokens in one.
        heard: gets the tokens of each prompt, and of each with a beginning of its guess behind it, and the
            log-probabilities of the token after these [V], float32, on the CPU.

    Raises:
        RequestError: a prompt without tokens.
    """
    asked = [token_ids(tok, prompt) for prompt in prompts]
    if not all(asked):
        raise RequestError(f"the prompt {prompts[asked.index([])]!r} tokenises to nothing; give a longer prompt.")
    guessed = [_guess(tok, *pair) for pair in zip(prompts, guesses, strict=True)] if guesses else [[] for _ in asked]
    ends = _end_tokens(model)
    said: list[list[int]] = [[] for _ in asked]

    def goes_on(i: int, token: int) -> bool:
        said[i].append(token)
        if token in ends or len(said[i]) >= tokens:
            return False
        text = tok.decode(said[i], skip_special_tokens=True)
        return not any(stop in text.lstrip() for stop in stops) and not (enough is not None and enough(i, text))

    batch = _Speakers(model, [a + g for a, g in zip(asked, guessed, strict=True)])
    logits = batch.first([len(g) + 1 for g in guessed])
    if heard is not None:
        texts = [(*a, *g[:n]) for a, g in zip(asked, guessed, strict=True) for n in range(len(g) + 1)]
        for text, chances in zip(texts, logits.float().log_softmax(-1).cpu(), strict=True):
            heard(text, chances)
    left, words = [], iter(logits.argmax(-1).tolist())
    for i, own in enumerate([[next(words) for _ in range(len(g) + 1)] for g in guessed]):
        right = 0
        while goes_on(i, own[right]):
            if right == len(guessed[i]) or own[right] != guessed[i][right]:
                left.append(i)
                break
            right += 1
        batch.unsay(i, len(guessed[i]) - right)
    while left:
        last, at = [said[i][-1] for i in left], [len(asked[i]) + len(said[i]) - 1 for i in left]
        own = batch.next(left, last, at).argmax(-1).tolist()
        left = [i for i, token in zip(left, own, strict=True) if goes_on(i, token)]
    return tok.batch_decode(said, skip_special_tokens=True)


class _Speakers:
    """Texts of a batch, padded on the left, and what the model remembers of those that go on."""

    def __init__(self, model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> None:
        self.model, self.rows = model, list(range(len(texts)))
        self.cache: Any = None
        width = max(map(len, texts))
        self.ids = torch.tensor([[0] * (width - len(t)) + list(t) for t in texts], device=model.device)
        self.mask = torch.tensor([[0] * (width - len(t)) + [1] * len(t) for t in texts], device=model.device)

    def first(self, last: Sequence[int]) -> Tensor:
        """Logits [sum of `last`, V] after each of a text's `last` tokens."""
        hidden = self._run(self.ids, (self.mask.cumsum(-1) - 1).clamp(min=0))
        places = [(row, -n + k) for row, n in enumerate(last) for k in range(n)]
        rows, cols = (torch.tensor(at, device=hidden.device) for at in zip(*places, strict=True))
        return self._logits(hidden[rows, cols])

    def unsay(self, row: int, count: int) -> None:
        """Make the model blind to a text's last tokens."""
        if count:
            self.mask[row, -count:] = 0

    def next(self, rows: Sequence[int], tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Logits [N, V] after one more token of each of these texts; the others are forgotten."""
        if len(rows) < len(self.rows):
            kept = torch.tensor([self.rows.index(row) for row in rows], device=self.mask.device)
            self.mask, self.rows = self.mask[kept], list(rows)
            self.cache.batch_select_indices(kept)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], -1)
        ids, at = (torch.tensor(column, device=self.mask.device)[:, None] for column in (tokens, positions))
        return self._logits(self._run(ids, at)[:, -1])

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Hidden states [B, T, D] of the tokens `ids` [B, T]."""
        out = self.model.base_model(
            input_ids=ids, attention_mask=self.mask, position_ids=positions, past_key_values=self.cache, use_cache=True
        )
        self.cache = out.past_key_values
        return out.last_hidden_state

    def _logits(self, hidden: Tensor) -> Tensor:
        """Of hidden states [N, D]; the vocabulary's matrix sees no other."""
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        return logits


def _guess(tok: Any, prompt: str, guess: str) -> list[int]:
    """A continuation's tokens, where it leaves the prompt's as they are."""
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
