"""What the model says when it speaks freely, as "The Mirage of Model Editing" (arXiv 2502.11177) measures it.

Greedy, at most 50 tokens, up to a full stop, a line's end or the end token; then an exact match, and, where one is
there, a judge (`judge`). Under teacher forcing a model is shown the answer so far, and how the answer would go on is
not asked.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...easyedit import routed
from ...model.generation import Text, greedy_all
from ...requests import token_ids
from ..data import Record
from .scoring import Heard, batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 50
STOPS = (".", "\n")
ARTICLES = ("a", "an", "the")
_BEFORE = re.compile(rf"\A[^\w.\n]*(?:(?:{'|'.join(ARTICLES)})\s+)?[^\w.\n]*", re.IGNORECASE)


def answers(
    model: PreTrainedModel,
    tok: Any,
    records: Sequence[Record],
    asked: Callable[[Record, str], str] = lambda record, prompt: prompt,
    whole: bool = False,
    heard: Heard | None = None,
    also: Sequence[Text] = (),
) -> list[list[str]]:
    """What the model says after each record's prompt and after each of its paraphrases, up to its natural stop.

    Args:
        asked: makes of a record's prompt the text that the model is asked.
        whole: False also stops where nothing more can change what `family` makes of it: most answers show with their
            first words that they are not the target.
        heard: gets what the model says after each prompt, and after the target where that is tried.
        also: what else will be asked of `heard`. It is asked in the same pass where all fits into one.
    """
    whole = whole or getattr(tok, "clean_up_tokenization_spaces", False)  # which may join words to what follows
    alone = bool(routed.adapters(model))
    texts = [(asked(r, prompt), r.target_new) for r in records for prompt in (r.prompt, *r.rephrases)]
    lengths = [len(token_ids(tok, prompt)) + TOKENS for prompt, _ in texts]
    also = heard.missing(also) if heard is not None else ()
    if alone or len(list(batches([*lengths, *(len(text) for text, _ in also)]))) > 1:
        also = ()
    found: dict[int, str] = {}
    for piece in _pieces(model, lengths):
        prompts, targets = zip(*(texts[i] for i in piece), strict=True)

        def enough(i: int, text: str, targets: Sequence[str] = targets) -> bool:
            return stopped(text, targets[i]) or not (whole or open_to(text, targets[i]))

        said = greedy_all(
            model, tok, prompts, TOKENS, enough=enough, guesses=None if alone else targets,
            heard=None if alone or heard is None else heard.note, also=also,
        )  # fmt: skip
        found |= {i: until_stop(text, texts[i][1]) for i, text in zip(piece, said, strict=True)}
    in_order = iter(found[i] for i in range(len(texts)))
    return [[next(in_order) for _ in (record.prompt, *record.rephrases)] for record in records]


def _pieces(model: PreTrainedModel, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of prompts that are asked together; each by itself where a router in the model looks at all it sees."""
    if not routed.adapters(model):
        yield from batches(lengths)
        return
    for i in range(len(lengths)):
        routed.ask_at(model, -1)
        yield [i]


def family(record: Record, said: Sequence[str]) -> dict[str, float]:
    """After the prompt (efficacy) and after all paraphrases (generality).

    Args:
        said: of `answers`.

    Returns:
        efficacy, generality: the answer is the target, apart from case, punctuation and articles.
        efficacy_begins, generality_begins: the answer begins with the target's words.
    """
    values = {}
    for name, part in (("efficacy", said[:1]), ("generality", said[1:])):
        if part:
            values[name] = sum(same(a, record.target_new) for a in part) / len(part)
            values[f"{name}_begins"] = sum(begins_with(a, record.target_new) for a in part) / len(part)
    return values


def until_stop(text: str, target: str) -> str:
    """The text up to its first full stop or line's end; a full stop that the target has ("St. Louis") is none."""
    text = text.lstrip()
    said, wanted = _bare(text), _bare(target.strip())
    begun = len(text) - len(said) + len(wanted) if said.lower().startswith(wanted.lower()) else 0
    ends = [at for at in (text.find(stop, begun) for stop in STOPS) if at >= 0]
    return text[: min(ends)] if ends else text


def stopped(text: str, target: str) -> bool:
    """Whether a text has reached its natural stop, and not only a full stop that the target has, too."""
    text = text.lstrip()
    return until_stop(text, target) != text and not _bare(target.strip()).lower().startswith(_bare(text).lower())


def _bare(text: str) -> str:
    """Without what may stand before an answer: an article, and punctuation that is no stop."""
    return _BEFORE.sub("", text)


def open_to(text: str, target: str) -> bool:
    """Whether a text may still become one that begins with the target, or that ends with it."""
    text = text.rstrip("\ufffd")  # of a letter that is not whole yet
    word = "" if not text or text[-1].isspace() else text.split()[-1]
    said, wanted, begun = words(text.removesuffix(word)), words(target), _plain(word)
    if said[: len(wanted)] != wanted[: len(said)] or len(said) > len(wanted):
        return False
    return any(whole.startswith(begun) for whole in (*ARTICLES, *wanted[len(said) : len(said) + 1]))


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles."""
    return [w for w in _plain(text).split() if w not in ARTICLES]


def _plain(text: str) -> str:
    return text.lower().translate(str.maketrans("", "", string.punctuation))


def same(said: str, target: str) -> bool:
    """Whether the words are the target's; its letters, where it is all punctuation and articles ("A")."""
    wanted = words(target)
    return words(said) == wanted if wanted else said.strip().lower() == target.strip().lower()


def begins_with(said: str, target: str) -> bool:
    """Whether the first words are the target's, in the same sense."""
    wanted = words(target)
    if not wanted:
        return said.strip().lower().startswith(target.strip().lower())
    return words(said)[: len(wanted)] == wanted
