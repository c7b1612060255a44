"""What the model says when it speaks freely, as "The Mirage of Model Editing" (arXiv 2502.11177) measures it.

Greedy, at most 50 tokens, up to a full stop, a line's end or the end token; then an exact match. Under teacher forcing
a model is shown the answer so far, and how the answer would go on is not asked.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from ...easyedit import routed
from ...model.generation import greedy_all
from ..data import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 50
STOPS = (".", "\n")


def family(model: PreTrainedModel, tok: Any, record: Record) -> dict[str, float]:
    """After the prompt (efficacy) and after all paraphrases (generality).

    Returns:
        efficacy, generality: the answer is the target, apart from case, punctuation and articles.
        efficacy_begins, generality_begins: the answer begins with the target's words.
    """
    prompts = [record.prompt, *record.rephrases]
    said = [until_stop(text, record.target_new) for text in _answers(model, tok, prompts)]
    parts = {"efficacy": said[:1], "generality": said[1:]}
    values = {}
    for name, answers in parts.items():
        if answers:
            values[name] = sum(words(a) == words(record.target_new) for a in answers) / len(answers)
            values[f"{name}_begins"] = sum(begins_with(a, record.target_new) for a in answers) / len(answers)
    return values


def _answers(model: PreTrainedModel, tok: Any, prompts: list[str]) -> list[str]:
    """What the model says after each prompt; after each by itself where a router in it looks at all that it sees."""
    if not routed.adapters(model):
        return greedy_all(model, tok, prompts, TOKENS, STOPS)
    answers = []
    for prompt in prompts:
        routed.ask_at(model, -1)
        answers += greedy_all(model, tok, [prompt], TOKENS, STOPS)
    return answers


def until_stop(text: str, target: str) -> str:
    """The text up to its first full stop or line's end; a full stop that the target has ("St. Louis") is none."""
    text = text.lstrip()
    begun = len(target.strip()) if text.lower().startswith(target.strip().lower()) else 0
    ends = [at for at in (text.find(stop, begun) for stop in STOPS) if at >= 0]
    return text[: min(ends)] if ends else text


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles."""
    kept = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return [w for w in kept if w not in ("a", "an", "the")]


def begins_with(said: str, target: str) -> bool:
    """Whether the first words are the target's."""
    wanted = words(target)
    return words(said)[: len(wanted)] == wanted
