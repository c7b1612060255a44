"""The shape of the package: imports point downward, and importing it is free of side effects."""

import ast
import graphlib
import subprocess
import sys

import pytest

from ..conftest import ROOT

PACKAGE = ROOT / "easyedit_packe"
ORDER = [
    "errors", "cache", "requests",  # what everything says, keeps and asks
    "model", "patch", "config",  # a model, an edit as data, settings
    "packe", "plus", "editor",  # the paper, what goes beyond it, and both as an editor
    "trace",  # what an edit will touch
    "easyedit", "baselines", "registry",  # the host, and what is put into it
    "bench", "demo", "cli",  # the comparison, a page to play with, and the commands
]  # fmt: skip
FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]
MODULES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}


def imports(path):
    """(module, line) of everything that a file imports, also inside functions and by name (`import_module`)."""
    here = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = [] if not node.level else ["easyedit_packe", *here[: len(here) - node.level + 1]]
            target = [*base, *(node.module or "").split(".")] if node.module else base
            for name in node.names:
                longer = ".".join([*target[1:], name.name])
                is_module = target[:1] == ["easyedit_packe"] and longer in MODULES
                yield f"easyedit_packe.{longer}" if is_module else ".".join(target), node.lineno
        elif isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            (name, *_) = node.args
            literal = name.values[0] if isinstance(name, ast.JoinedStr) else name
            if isinstance(literal, ast.Constant):
                yield literal.value, node.lineno
            else:  # what is loaded is in `names_of`
                yield ast.unparse(literal), node.lineno


def edges():
    for name, path in MODULES.items():
        for target, line in imports(path):
            if target.split(".")[0] == "easyedit_packe" and target != "easyedit_packe":
                yield name, target.removeprefix("easyedit_packe."), line


def test_imports_point_downward():
    level = {name: i for i, name in enumerate(ORDER)}
    assert {name.split(".")[0] for name in MODULES} == set(ORDER)
    seen = set()
    for name, target, line in edges():
        part, other = name.split(".")[0], target.split(".")[0]
        assert part == other or level[other] < level[part], f"{name}:{line} imports {target}"
        seen.add((part, other))
    assert {("editor", "packe"), ("plus", "packe"), ("registry", "baselines"), ("cli", "bench")} <= seen


def test_no_circles():
    graph = {name: set() for name in MODULES}
    for name, target, _ in edges():
        if target != name:
            graph[name].add(target)
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_graph_sees_a_dynamic_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "x.py").write_text(
        "from importlib import import_module\n"
        "import_module('easyeditor.evaluate')\nimportlib.import_module(f'easyeditor.{y}')\n__import__('easyeditor')\n"
    )
    found = [name for name, _ in imports(tmp_path / "x.py")]
    assert found == ["importlib", "easyeditor.evaluate", "easyeditor.", "easyeditor"]


def test_only_the_host_and_the_baselines_import_easyeditor():
    seen = set()
    for name, path in MODULES.items():
        for target, line in imports(path):
            if target.split(".")[0] == "easyeditor":
                assert name.split(".")[0] in ("easyedit", "baselines"), f"{name}:{line}"
                seen.add(name)
    assert {"easyedit.parts", "easyedit.host"} <= seen


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


def test_importing_the_package_changes_nothing():
    code = """
import logging, random, sys, torch
random.seed(3); torch.manual_seed(3)
def world():
    root = logging.getLogger()
    return random.getstate(), torch.get_rng_state().tolist(), root.handlers[:], root.level
before = world()
import easyedit_packe
for name in easyedit_packe.__all__:
    getattr(easyedit_packe, name)
assert world() == before
assert "easyeditor" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
