"""What a fact's questions are answered before and after the edits, and whether that is as it should be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..requests import token_ids
from .facts import Fact
from .sessions import TOKENS, Answer, Session


@dataclass(frozen=True)
class Row:
    """One question: with a target it should be answered by that, and without one as before."""

    answer: Answer
    target: str | None = None

    @property
    def holds(self) -> bool:
        """The answer begins with the target, or with the same word as before, articles apart."""
        if self.target is not None:
            return self.answer.now.startswith(self.target)
        return _first_word(self.answer.now) == _first_word(self.answer.before)


@dataclass(frozen=True)
class Group:
    """Questions of one kind."""

    title: str
    aim: str
    rows: tuple[Row, ...]

    @property
    def holding(self) -> int:
        return sum(row.holds for row in self.rows)

    @property
    def result(self) -> str:
        """For example "2 of 3 stayed"."""
        return f"{self.holding} of {len(self.rows)} {self.aim}"


def compare(session: Session, fact: Fact) -> list[Group]:
    """Ask everything about a fact, and the prompts of the session's other edits, before and now.

    Raises:
        RequestError: a question that tokenises to nothing.
    """
    target = _in_one_line(fact.target) or None
    others = [e for e in session.edits if e.request.prompt != fact.prompt]
    wanted = [_in_one_line(e.request.target) for e in others]
    one, several = ("says the new answer", "say the new answer") if target else ("stays", "stay")
    kinds: list[tuple[str, str, Sequence[str], Sequence[str | None]]] = [
        ("The prompt", one, [fact.prompt] if fact.prompt.strip() else [], [target]),
        ("In other words", several, fact.rephrases, [target] * len(fact.rephrases)),
        ("Neighbours", "stay", fact.neighbours, [None] * len(fact.neighbours)),
        ("Other facts of the subject", "stay", fact.others, [None] * len(fact.others)),
        ("Your other edits", "hold", [e.request.prompt for e in others], wanted),
    ]
    tokens = max((len(token_ids(session.shared.tok, text)) for text in (target, *wanted) if text), default=0)
    answers = iter(session.answers([prompt for *_, prompts, _ in kinds for prompt in prompts], max(TOKENS, tokens)))
    groups = [
        Group(title, aim, tuple(Row(next(answers), of_it) for of_it in targets[: len(prompts)]))
        for title, aim, prompts, targets in kinds
    ]
    return [group for group in groups if group.rows]


def _in_one_line(text: str) -> str:
    """As answers are."""
    return " ".join(text.split())


def _first_word(text: str) -> str:
    words = re.findall(r"[\w'’]+", text)
    return next((word for word in words if word.lower() not in ("a", "an", "the")), text)
