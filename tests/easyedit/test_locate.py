"""Which EasyEdit is used, and the errors when there is none. No network: git is replaced."""

import importlib.util
import os
import re
import subprocess
import sys
import types

import pytest

from easyedit_packe.easyedit import install, locate
from easyedit_packe.easyedit import install as install_function
from easyedit_packe.easyedit.locate import TESTED_COMMIT, clone_dir, import_easyeditor, source_digest
from easyedit_packe.errors import EasyEditError


def fake_checkout(folder):
    (folder / "easyeditor" / "editors").mkdir(parents=True)
    (folder / "easyeditor" / "__init__.py").write_text("")
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without any EasyEdit, and with a cache of its own."""
    monkeypatch.delenv("EASYEDIT_HOME", raising=False)
    monkeypatch.setenv("PACKE_CACHE", str(tmp_path / "cache"))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "easyeditor" else real(name, *a))
    return tmp_path


def test_none_says_how_to_get_one(nowhere):
    with pytest.raises(EasyEditError, match="packe easyedit install"):
        locate()


def test_home_comes_first_and_must_be_right(nowhere, monkeypatch):
    fake_checkout(clone_dir())
    monkeypatch.setenv("EASYEDIT_HOME", str(fake_checkout(nowhere / "home")))
    assert locate().how == "EASYEDIT_HOME"
    monkeypatch.setenv("EASYEDIT_HOME", str(nowhere / "elsewhere"))
    with pytest.raises(EasyEditError, match="EASYEDIT_HOME: expected a folder"):
        locate()


def test_install_from_a_path(nowhere):
    checkout = fake_checkout(nowhere / "mine")
    found = install(path=str(checkout))
    assert (found.how, found.root) == ("clone", checkout)
    assert install(path=str(checkout)) == found
    with pytest.raises(EasyEditError, match="--path"):
        install(path=str(nowhere))


def test_install_falls_back_to_the_release_when_git_cannot_reach_the_host(nowhere, monkeypatch):
    module = importlib.import_module("easyedit_packe.easyedit.install")
    calls = []

    def run(command, **kwargs):
        calls.append(command)
        if command[0] == "git":
            assert kwargs["timeout"] <= 15
            raise subprocess.TimeoutExpired(command, kwargs["timeout"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    with pytest.raises(EasyEditError, match="was not found"):  # our pip installs nothing
        install_function()
    assert calls[0][0] == "git"
    assert "easyeditor==0.0.1.dev0" in calls[1]
    assert not clone_dir().exists()
    with pytest.raises(EasyEditError, match="did not answer in 15 s"):
        install_function(ref="main")


def test_a_clone_is_made_beside_its_place(nowhere, monkeypatch):
    module = importlib.import_module("easyedit_packe.easyedit.install")

    def git(*arguments, timeout):
        if arguments[0] == "clone":
            from pathlib import Path

            fake_checkout(Path(arguments[-1]))

    monkeypatch.setattr(module, "_git", git)
    assert install_function(ref="abc").root == clone_dir().resolve()
    assert install_function(ref="def").how == "clone"
    assert [p.name for p in clone_dir().parent.iterdir()] == ["EasyEdit"]


def test_a_tree_without_git_is_known_by_its_source(nowhere, monkeypatch):
    root = fake_checkout(nowhere / "home")
    monkeypatch.setenv("EASYEDIT_HOME", str(root))
    first = locate().version
    assert re.fullmatch(r"of unknown commit, source [0-9a-f]{12}", first)
    (root / "easyeditor" / "editors" / "editor.py").write_text("x = 1\n")
    assert locate().version != first
    monkeypatch.setattr(importlib.import_module("easyedit_packe.easyedit.locate"), "TESTED_SOURCE", source_digest(root))
    assert locate().version == TESTED_COMMIT


def test_a_checkout_says_its_commit_and_that_it_was_changed(nowhere, monkeypatch):
    root = fake_checkout(nowhere / "home")
    monkeypatch.setenv("EASYEDIT_HOME", str(root))
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    assert re.fullmatch(r"[0-9a-f]{7}", locate().version)
    (root / "easyeditor" / "__init__.py").write_text("x = 1\n")
    assert locate().version.endswith("-dirty")


def test_a_plain_import_that_failed_is_forgotten(tmp_path, monkeypatch):
    """It leaves its parts among the modules, where another EasyEdit's would be taken for them."""
    monkeypatch.setenv("EASYEDIT_HOME", str(fake_checkout(tmp_path)))
    (tmp_path / "easyeditor" / "part.py").write_text("here = True\n")
    init = "import os\nos.environ['SET_BY_IMPORT'] = '1'\nfrom . import part\nassert part.here\n"
    (tmp_path / "easyeditor" / "__init__.py").write_text(init)
    for name in [n for n in sys.modules if n.partition(".")[0] == "easyeditor"]:
        monkeypatch.delitem(sys.modules, name)
    stale = types.ModuleType("easyeditor.part")
    stale.here = False
    monkeypatch.setitem(sys.modules, "easyeditor.part", stale)
    module, found = import_easyeditor()
    assert module.part.here
    assert found.root == tmp_path
    assert "SET_BY_IMPORT" not in os.environ
    for name in ("easyeditor", "easyeditor.part"):
        monkeypatch.delitem(sys.modules, name)


def test_the_caches_folder_may_begin_with_a_tilde(monkeypatch):
    monkeypatch.setenv("PACKE_CACHE", "~/kept")
    monkeypatch.setenv("HOME", "/somebody")
    assert str(clone_dir()) == "/somebody/kept/EasyEdit"
