"""The command as a whole: its help is quick and loads nothing heavy, and errors are one line."""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

import easyedit_packe
from easyedit_packe.cache import cache_dir
from easyedit_packe.errors import MissingPackageError

from ..conftest import ROOT
from .common import PACKE, packe, shell

COMMANDS = [
    [], ["trace"], ["edit"], ["ask"], ["demo"], ["show"], ["apply"], ["revert"], ["merge"], ["bench"], ["report"],
    ["pack"], ["unpack"], ["figures"], ["importance"], ["reproduce"], ["stats"], ["export"], ["export", "gguf"],
    ["export", "lora"], ["export", "model"], ["push"], ["easyedit"], ["easyedit", "install"], ["easyedit", "show"],
    ["model"], ["model", "fetch"],
]  # fmt: skip


def test_every_command_is_in_the_list_above():
    import typer

    from easyedit_packe.cli.app import app

    def names(group, before=()):
        yield list(before)
        for name, command in getattr(group, "commands", {}).items():
            yield from names(command, (*before, name))

    assert sorted(names(typer.main.get_command(app))) == sorted(COMMANDS)


def test_no_help_loads_what_is_heavy():
    code = f"""
import contextlib, io, sys
from easyedit_packe.cli.app import app
for command in {COMMANDS!r}:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            app([*command, "--help"])
        except SystemExit as e:
            assert not e.code, (command, e.code)
    assert "--help" in said.getvalue() or command == ["bench"], command
    heavy = {{"torch", "transformers", "pandas", "numpy", "hydra", "omegaconf"}} & sys.modules.keys()
    assert not heavy, (command, heavy)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_is_quick():
    """0.12 s where `import typer` takes 0.04; torch alone would take more than a second."""

    def seconds(*command):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    floor = min(seconds(sys.executable, "-c", "import typer") for _ in range(3))
    assert min(seconds(str(PACKE), "--help") for _ in range(3)) < 8 * floor


def test_help_shows_examples():
    assert "easyedit" in packe("--help")
    assert "Example: packe easyedit install" in packe("easyedit", "install", "--help")


def test_version():
    assert packe("--version") == f"packe {easyedit_packe.__version__}\n"
    assert version("easyedit-packe") == easyedit_packe.__version__


def test_errors_are_one_line_and_a_code(tmp_path):
    run = shell("model", "fetch", "smollm")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("packe: no model 'smollm' to fetch; did you mean 'smollm2-135m'")
    assert run.stderr.count("\n") == 1
    run = shell("easyedit", "show", EASYEDIT_HOME=str(tmp_path))
    assert run.returncode == 1
    assert "EASYEDIT_HOME" in run.stderr
    assert shell("easyedit", "shew").returncode == 2
    run = shell("stats", "--model", "nope")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("packe: no model 'nope': not a folder")


def test_a_path_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    archive = ROOT / "benchmarks" / "results" / "costs.jsonl.zst"
    run = shell("unpack", str(archive), str(tmp_path / "file"))
    assert run.returncode == 1
    assert run.stderr.startswith(f"packe: {tmp_path}/file/")
    assert run.stderr.endswith("Not a directory; give another path.\n")
    assert run.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_harms_no_file(tmp_path):
    """Of a study the archive may be the only copy."""
    file = tmp_path / "a"
    file.write_text("mine")
    code = f"""
import resource, signal
from pathlib import Path
from easyedit_packe.cache import written_whole
from easyedit_packe.cli.app import app

@app.command()
def full():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    with written_whole(Path({str(file)!r})) as part:
        part.write_bytes(bytes(9999))
app(["full"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (1, "packe: File too large\n")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("a", "mine")]


def test_without_a_home_the_cache_is_a_temporary_folder(monkeypatch):
    for name in ("PACKE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_dir().name == f"easyedit_packe-{os.getuid()}"


def test_without_gguf_a_model_is_not_even_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("PACKE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingPackageError, match=r'pip install "easyedit-packe\[models\]"$'):
        packe("model", "fetch")
    assert not list(tmp_path.iterdir())


def test_which_easyedit_in_words_and_as_json():
    shown = json.loads(packe("easyedit", "show", "--json"))
    assert packe("easyedit", "show").startswith(f"EasyEdit {shown['version']}")
    assert Path(shown["root"], "easyeditor").is_dir()


def test_install_from_a_path(tmp_path, monkeypatch):
    root = json.loads(packe("easyedit", "show", "--json"))["root"]
    monkeypatch.setenv("PACKE_CACHE", str(tmp_path))
    monkeypatch.setenv("EASYEDIT_HOME", "")
    found = json.loads(packe("easyedit", "install", "--path", root, "--json"))
    assert Path(found["root"]) == Path(root)
    assert (tmp_path / "EasyEdit").resolve() == Path(root)
