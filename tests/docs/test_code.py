"""The code of the documentation runs as it stands there, and says what it is said to say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from easyedit_packe import cache

from .pages import PAGES, code, files, name_of

QUICK = {"docs/paper.md"}
"""Pages whose Python loads no model."""


def python_pages() -> list:
    found = [page for page in PAGES if code(page, "python")]
    return [
        pytest.param(page, id=name_of(page), marks=() if name_of(page) in QUICK else pytest.mark.slow) for page in found
    ]


def transcripts(page: Path) -> list[str]:
    return [block for block in code(page, "console") if block.startswith("$ ")]


@pytest.mark.parametrize("page", python_pages())
def test_python_runs_in_order_and_prints_what_stands_beside_it(page, monkeypatch, capsys):
    monkeypatch.setattr("easyedit_packe.model.kept.cache_dir", cache.cache_dir)  # of the real model, worth keeping
    blocks, scope = code(page, "python"), {"__name__": "page"}
    for block in blocks:
        exec(compile(block, name_of(page), "exec"), scope)
    expected = [said for block in blocks for said in re.findall(r"^print\(.*\)  # (.+)$", block, re.MULTILINE)]
    printed = [line for line in capsys.readouterr().out.splitlines() if line in expected]
    assert printed == expected


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if transcripts(page)], ids=name_of)
def test_a_transcript_is_what_the_commands_print(page):
    """Each line after `$ ` is run by a shell, in a folder with nothing but the page's files; its output is compared."""
    for name, text in files(page).items():
        Path(name).write_text(text, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in transcripts(page):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, expected = step.split("\n", 1)
            run = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
            assert (run.stdout, run.returncode) == (expected, 0), f"{command}\n{run.stderr}"


@pytest.mark.slow
def test_the_patch_of_the_transcript_is_less_than_a_hundredth_of_its_model():
    from easyedit_packe.model.fetch import fetch

    (size,) = re.findall(r"^wrote rome.safetensors \(([\d.]+) MB\)$", transcripts(PAGES[0])[0], re.MULTILINE)
    model = sum(file.stat().st_size for file in fetch().glob("*.safetensors"))
    assert float(size) * 1e6 < model / 100


def test_there_is_code_to_run():
    assert len(python_pages()) >= 5
    assert sum(len(transcripts(page)) for page in PAGES) >= 4
