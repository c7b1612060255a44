"""The README's Python runs as written, and its links and fields exist."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

from easyedit_packe import PaCKEHyperParams

from ..conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # EasyEdit writes ./logs
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    scope = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    out = capsys.readouterr().out
    assert "EasyEdit" in out
    assert "1.0" in out


def test_the_transcript_is_what_the_commands_print(tmp_path, monkeypatch):
    """Each line after `$ ` is run by a shell in an empty folder, and its output compared."""
    monkeypatch.chdir(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    (block,) = [b for b in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if b.startswith("$ ")]
    steps = [step.split("\n", 1) for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    assert len(steps) >= 7
    for command, expected in steps:
        run = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
        assert (run.stdout, run.returncode) == (expected, 0), f"{command}\n{run.stderr}"
    model = sum(f.stat().st_size for f in (tmp_path / "edited-model").glob("*.safetensors"))
    assert (tmp_path / "rome.safetensors").stat().st_size < model / 100


def test_links_and_fields_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    fields = {f.name for f in dataclasses.fields(PaCKEHyperParams)}
    table = README.split("### Paper and program")[1].split("The paper's tables")[0]
    named = {f for row in re.findall(r"\| ([^|]*) \|$", table, re.MULTILINE) for f in re.findall(r"`(\w+)`", row)}
    assert named
    assert named <= fields


def test_the_ci_calls_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in README
