"""A judge model: whether an answer says what was expected, in whatever words.

"The Mirage of Model Editing" asks one beside the exact match, which counts "Rome, Italy" as wrong. Any server will do
that speaks OpenAI's chat completions. The question is put in this project's own words, so that figures are comparable
with each other, and with the paper's only in kind.
"""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from typing import Any

from ...errors import MissingPackageError, needs
from ..data import Record
from ..editors import BenchError

KEY, URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
NO_KEY = "none"
"""What a server that asks for no key is sent."""

RETRIES = 5
"""Of a request that the network or a busy server has failed, each after a longer pause; the client library's."""
SECONDS = 120.0
"""Most that one answer may take."""
TOKENS = 16
"""Most of a reply: one word is asked for."""

RULES = (
    "You are given a question or the beginning of a sentence, the answer that is expected, and the answer that was "
    "given. The expected answer counts as true, whatever you know yourself. The given answer is RIGHT if it says all "
    "of what is expected, in any wording, alone or with more detail that fits it. It is WRONG if it leaves out a part "
    "of it, says something that does not fit it, or says the same again and again. Reply with one word, RIGHT or WRONG."
)
VERDICTS = {"right": True, "wrong": False}


def check(url: str | None) -> None:
    """Before anything is loaded.

    Raises:
        BenchError: there is nothing to ask a judge with.
    """
    try:
        needs("openai", "judge")
    except MissingPackageError as e:
        raise BenchError(f"judge: {e}; or leave judge= out.") from None
    if not (url or os.environ.get(URL) or os.environ.get(KEY)):
        raise BenchError(
            f"judge: expected a key in the variable {KEY}, or a server of your own as judge_url=, got neither; set one "
            "of them, or leave judge= out."
        )


class Judge:
    """A model behind a server.

    Args:
        name: the model's, as the server knows it.
        url: where the server's paths begin ("http://localhost:8080/v1"); None takes the client library's own, which
            OPENAI_BASE_URL changes. The key is that of OPENAI_API_KEY.
    """

    def __init__(self, name: str, url: str | None = None) -> None:
        check(url)
        from openai import OpenAI

        self.name = name
        self._client = OpenAI(
            base_url=url or None, api_key=os.environ.get(KEY) or NO_KEY, max_retries=RETRIES, timeout=SECONDS
        )

    def verdict(self, question: str, expected: str, said: str) -> dict[str, Any]:
        """What the judge says of an answer.

        Returns:
            said, reply: the answer and what the judge made of it, word for word.
            right: whether that is a verdict for it; None where it is no clear verdict.

        Raises:
            BenchError: no reply came, also after several attempts.
        """
        reply = self._ask(f"Question or beginning: {question}\nExpected answer: {expected}\nGiven answer: {said}")
        word = reply.strip(string.whitespace + string.punctuation).lower()
        return {"said": said, "reply": reply, "right": VERDICTS.get(word)}

    def _ask(self, text: str) -> str:
        from openai import OpenAIError

        messages: Any = [{"role": "system", "content": RULES}, {"role": "user", "content": text}]
        try:
            found: Any = self._client.chat.completions.create(
                model=self.name, messages=messages, temperature=0, max_tokens=TOKENS
            )
        except OpenAIError as e:
            raise self._failed(f"{type(e).__name__}: {e}") from e
        if not getattr(found, "choices", None):  # of a server that answers anything to any path
            raise self._failed(f"its reply is no chat completion: {str(found)[:200]!r}")
        return found.choices[0].message.content or ""

    def _failed(self, why: str) -> BenchError:
        return BenchError(
            f"the judge {self.name} at {self._client.base_url} failed: {why}. The rows so far are kept; mend the "
            "cause, and the same command goes on from there."
        )


def verdicts(judge: Judge, record: Record, answers: Sequence[str]) -> list[dict[str, Any]]:
    """On the answer after the prompt, and on those after the paraphrases.

    Args:
        answers: of `free.answers`.
    """
    asked = [record.prompt, *record.rephrases]
    return [judge.verdict(q, record.target_new, said) for q, said in zip(asked, answers, strict=True)]


def family(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """efficacy_judged, generality_judged: the share of right answers among those with a clear verdict; neither is
    there where no verdict on it is clear.

    Args:
        found: of `verdicts`.
    """
    parts = {"efficacy_judged": found[:1], "generality_judged": found[1:]}
    clear = {name: [v["right"] for v in part if v["right"] is not None] for name, part in parts.items()}
    return {name: sum(rights) / len(rights) for name, rights in clear.items() if rights}
