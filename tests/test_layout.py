"""The shape of the package: imports point downward, and importing it is free of side effects."""

import ast
import subprocess
import sys

from .conftest import ROOT

ORDER = [
    ["errors"],
    ["hooks", "ffn", "hparams", "requests", "patch"],
    ["models", "objective", "moments", "tracing", "patch_file", "lora", "originals", "stack"],
    ["stats", "contexts"],
    ["slices", "memory", "least_change"],
    ["rectify"],
    ["extended"],
    ["editor"],
    ["baselines"],
    ["easyedit"],
    ["evaluation"],
    ["stats_cli"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
PACKAGE = ROOT / "easyedit_packe"


def imported(path):
    """Top-level parts of this package that a file imports, also inside functions."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            if node.module:
                yield node.module.split(".")[0]
            else:
                yield from (a.name for a in node.names)


def test_imports_point_downward():
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for other in imported(path):
            # WeightPatch.save, load and to_lora call their modules when they are used.
            if part != other and not (part == "patch" and other in ("patch_file", "lora")):
                assert LEVEL[other] < LEVEL[part], f"{path.relative_to(ROOT)} imports {other}"
            seen.add((part, other))
    assert ("editor", "rectify") in seen


def test_only_one_part_imports_easyeditor():
    for path in [*PACKAGE.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if any(n.split(".")[0] == "easyeditor" for n in names):
                assert path.relative_to(PACKAGE).parts[0] in ("easyedit", "baselines"), path


def test_importing_the_package_changes_nothing():
    code = """
import logging, random, sys, torch
random.seed(3); torch.manual_seed(3)
def world():
    root = logging.getLogger()
    return random.getstate(), torch.get_rng_state().tolist(), root.handlers[:], root.level
before = world()
import easyedit_packe
assert world() == before
assert "easyeditor" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
