"""The documentation as a test reads it: its pages, their code, their tables."""

from __future__ import annotations

import re
from pathlib import Path

from ..conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page: Path | str) -> str:
    """A page's text; a bare name is one of docs/."""
    return (DOCS / page).read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code(page: Path, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return [body for found, _, body in FENCE.findall(text_of(page)) if found == language]


def files(page: Path) -> dict[str, str]:
    """Blocks that a name stands beside (```json facts.json): the files that its commands read."""
    return {name: body for _, name, body in FENCE.findall(text_of(page)) if name}


def prose(page: Path) -> str:
    """The text without code blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", text_of(page)), flags=re.DOTALL)


def tables(page: Path | str) -> list[list[dict[str, str]]]:
    """Each table as rows, by the titles of its columns."""
    found = []
    for lines in re.findall(r"(?:^\|.*\|\n)+", text_of(page), re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in lines.splitlines()]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def table(page: Path | str, first_column: str) -> list[dict[str, str]]:
    """The page's one table whose first column has this title."""
    (found,) = [rows for rows in tables(page) if next(iter(rows[0])) == first_column]
    return found


def quoted(cell: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", cell)
