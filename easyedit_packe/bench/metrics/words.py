"""What a record asks and what the model said, as a person reads it. No figure is made of these texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..data import Record
from . import easyedit, subject
from .scoring import Scored

FREE, SUBJECT = "free", "subject"
"""Beside the names of EasyEdit's metrics: free answers to the prompt and its paraphrases, and the first token of those
to other questions about the subject."""


def asked(record: Record) -> dict[str, list[tuple[str, str]]]:
    """By metric, prompts with the answers that are right; "" where that is what the unedited model says."""
    free = [(prompt, record.target_new) for prompt in (record.prompt, *record.rephrases)]
    other = [(question, "") for question in subject.questions(record)]
    return _some({**easyedit.asked(record), FREE: free, SUBJECT: other})


def said(
    tok: Any, record: Record, scored: Sequence[Scored], chances: Tensor | None, spoken: Sequence[str]
) -> dict[str, list[str]]:
    """By metric, what the model said in answer to each prompt of `asked`.

    Args:
        scored: of `easyedit.pairs`, and maybe of more: the model's own choice at each of the answer's tokens.
        chances: log-probabilities of the first token after each question about the subject [N, V]; None without any.
        spoken: free answers to the prompt and its paraphrases; none where they were not measured.
    """
    own = iter(scored)
    found = {metric: [_text(tok, next(own).said) for _ in pairs] for metric, pairs in easyedit.asked(record).items()}
    first = [_text(tok, [token]) for token in chances.argmax(-1).tolist()] if chances is not None else []
    return _some({**found, FREE: list(spoken), SUBJECT: first})


def _text(tok: Any, ids: Sequence[int]) -> str:
    return tok.decode(list(ids)).strip(" ")


def _some(found: dict[str, list]) -> dict[str, list]:
    return {metric: texts for metric, texts in found.items() if texts}
