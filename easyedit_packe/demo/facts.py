"""What a visitor of the page fills in: a fact, and the questions that are asked before and after its edit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..bench.data.formats import read_records

FIRST = "Lionel Messi"
"""The subject of the fact that the page opens with: PaCKE and PaCKE+ do different things to its neighbours."""


@dataclass(frozen=True)
class Fact:
    """A fact to write, and questions about it; no editor sees the questions.

    Attributes:
        prompt, target, subject: the request.
        rephrases: the same question in other words: the new answer should follow.
        neighbours: the same question about others: the answer should stay.
        others: other questions about the subject: the answer should stay.
    """

    prompt: str
    target: str
    subject: str = ""
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.prompt} → {self.target}"

    @property
    def questions(self) -> tuple[str, str, str]:
        """Rephrases, neighbours and others, a question a line."""
        return "\n".join(self.rephrases), "\n".join(self.neighbours), "\n".join(self.others)


def built_in() -> list[Fact]:
    """The facts that are part of this package (`data=demo` of the benchmark), the one to begin with first."""
    facts = [
        Fact(
            r.prompt, r.target_new, r.subject or "", r.rephrases,
            tuple(p.prompt for p in r.neighbours), tuple(p.prompt for p in r.same_subject),
        )
        for r in read_records("", "demo")
    ]  # fmt: skip
    return sorted(facts, key=lambda fact: fact.subject != FIRST)


def guessed_subject(prompt: str) -> str:
    """The first name in a prompt: words with capitals, and small words between them. "" where there is none.

    A sentence begins with a capital, too: a lone first word is taken only where it has several, or is the only name.
    """
    names: list[list[str]] = [[]]
    for word in re.findall(r"[\w.'’&-]+|[^\w\s]", prompt):
        if any(c.isupper() for c in word) or (names[-1] and (word in _BETWEEN or word.isdigit())):
            names[-1].append(word)
        elif names[-1]:
            names.append([])
    found = [name for name in (_trimmed(words) for words in names) if name]
    first = next(iter(found), "")
    alone = " " not in first and prompt.lstrip().startswith(first) and not first[1:].isupper()
    subject = next(iter(found[1:]), first) if alone else first
    return subject if subject in prompt else ""


def _trimmed(words: list[str]) -> str:
    """A name without what only begins a sentence, and without small words at its end."""
    while words and (words[0] in _BEGINNINGS or words[0].isdigit() or words == ["The"]):
        words = words[1:]
    while words and words[-1] in _BETWEEN:
        words = words[:-1]
    return " ".join(words).removesuffix("'s").removesuffix("’s")


_BETWEEN = {"of", "the", "and", "de", "da", "di", "du", "la", "van", "von", "der", "den", "al"}
_BEGINNINGS = {
    "A", "All", "An", "As", "At", "By", "During", "Every", "For", "From", "How", "If", "In", "Most", "Of", "On",
    "Since", "That", "To", "What", "When", "Where", "Which", "Who", "With",
}  # fmt: skip
