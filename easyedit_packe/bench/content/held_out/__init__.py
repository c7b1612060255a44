"""Text that no edit concerns, written for this project: an edited model should predict it as well as before."""

from __future__ import annotations

from pathlib import Path

KINDS = ("prose", "dialogue", "code", "tables", "german", "questions")
"""What is held out: a story, a conversation, Python and JavaScript, Markdown and CSV, another language, questions with
their answers."""


def held_out() -> dict[str, str]:
    """The text of each of `KINDS`, in that order: at least 500 words each."""
    folder = Path(__file__).parent
    return {kind: (folder / f"{kind}.txt").read_text("utf-8") for kind in KINDS}
