"""What stands beside the code, and says things about it, says what the code says."""

import re
from importlib import import_module

import yaml

import easyedit_packe

from ..conftest import ROOT


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_everywhere():
    assert yaml.safe_load(text("CITATION.cff"))["version"] == easyedit_packe.__version__
    newest = re.search(r"^## (\S+),", text("CHANGELOG.md"), re.MULTILINE).group(1)
    assert newest == easyedit_packe.__version__


def test_contributors_are_sent_to_places_that_exist():
    """Each row of the table: a file, and where a name in capitals stands before it, that this file defines it."""
    page = text("CONTRIBUTING.md")
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page)
    assert all((ROOT / link).exists() for link in links)
    named = re.findall(r"`(_?[A-Z][A-Z_]+)`, \[[^\]]*\]\(([^)]+)\.py\)", page)
    found = {(name, file) for name, file in named if hasattr(import_module(file.replace("/", ".")), name)}
    assert found == set(named)
    assert {"FORMS", "FAMILIES", "ARCHITECTURES", "BASELINES", "EDITORS", "FORMATS", "FIGURES"} == {n for n, _ in named}


def test_the_continuous_integration_runs_what_a_developer_runs():
    job = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["test"]
    said = [step.get("run", "") for step in job["steps"]]
    assert [s.split()[:2] for s in said if s] == [["make", "setup"], ["make", "test"], ["make", "test"]]
    ran = [line for line in text(".ci/run").splitlines() if line.startswith("make ")]
    assert [line.split()[1] for line in ran] == ["test", "quick"]


def test_the_hooks_are_the_linters():
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    lint = text("Makefile").split("\nlint:")[1].split("\n\n")[0]
    commands = {hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in hooks}
    assert commands == {c.removesuffix(" .") for c in re.findall(r"\$\(BIN\)/(.+)", lint)}


def test_no_test_asks_the_model_hub():
    """The libraries read the variable once, when they are imported."""
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE is True
