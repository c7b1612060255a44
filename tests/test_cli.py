"""The `packe` command, as a shell runs it."""

import json
import subprocess
import sys
from pathlib import Path

PACKE = Path(sys.executable).parent / "packe"


def packe(*arguments, **environment):
    import os

    return subprocess.run([str(PACKE), *arguments], capture_output=True, text=True, env={**os.environ, **environment})


def test_help_shows_examples():
    assert "easyedit" in packe("--help").stdout
    assert "Example: packe easyedit install" in packe("easyedit", "install", "--help").stdout


def test_show_in_words_and_as_json():
    shown = json.loads(packe("easyedit", "show", "--json").stdout)
    assert packe("easyedit", "show").stdout.startswith(f"EasyEdit {shown['version']}")
    assert Path(shown["root"], "easyeditor").is_dir()


def test_errors_are_one_line_and_a_code(tmp_path):
    run = packe("model", "fetch", "smollm")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("packe: no model 'smollm' to fetch; did you mean 'smollm2-135m'")
    assert run.stderr.count("\n") == 1
    run = packe("easyedit", "show", EASYEDIT_HOME=str(tmp_path))
    assert run.returncode == 1
    assert "EASYEDIT_HOME" in run.stderr
    assert packe("easyedit", "shew").returncode == 2


def test_install_from_a_path(tmp_path):
    root = json.loads(packe("easyedit", "show", "--json").stdout)["root"]
    run = packe("easyedit", "install", "--path", root, "--json", PACKE_CACHE=str(tmp_path), EASYEDIT_HOME="")
    assert Path(json.loads(run.stdout)["root"]) == Path(root)
    assert (tmp_path / "EasyEdit").resolve() == Path(root)
