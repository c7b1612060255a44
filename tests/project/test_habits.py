"""What stands beside the code, and says things about it, says what the code says."""

import re
from importlib import import_module

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import easyedit_packe

from ..conftest import ROOT
from ..docs.pages import table


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
    assert {"FORMS", "FAMILIES", "ARCHITECTURES", "BASELINES", "EDITORS", "FORMATS"} == {n for n, _ in named}


def pins(end):
    found = re.findall(r"^([\w-]+)==(\S+)$", text(f"constraints/{end}.txt"), re.MULTILINE)
    return {name: Version(version) for name, version in found}


def test_lower_bounds_are_what_the_oldest_end_of_the_matrix_runs():
    """Of all that a user installs: the extras for developers have no place in it."""
    users = text("setup.py").split("install_requires=")[1].split('"matrix":')[0]
    bounds = {name: Version(version) for name, version in re.findall(r'"([\w-]+)>=([\d.]+)', users)}
    assert bounds == pins("oldest")
    assert {"torch", "transformers", "peft", "pandas", "openai"} < bounds.keys()
    assert all(version > bounds[name] for name, version in pins("newest").items())
    assert pins("newest").keys() == {"torch", "transformers"}
    assert pins("newest")["transformers"] in SpecifierSet(re.search(r'"transformers([^"]+)"', users).group(1))


def test_versions_stand_in_one_place():
    for name in ("Makefile", "noxfile.py", ".ci/run", ".github/workflows/ci.yml"):
        assert re.findall(r"\b(?:torch|transformers)[=<>~]=?\d", text(name)) == [], name
    for variable in ("TORCH", "TRANSFORMERS"):
        assert f"{variable} ?= $(shell grep ^{variable.lower()}= constraints/oldest.txt)" in text("Makefile")
    assert re.findall(r"constraints/(\S+)\.txt", text(".ci/run")) == ["newest"]
    assert set(re.findall(r", \"(\w+)\"\)", text("noxfile.py"))) == {"oldest", "newest"}


def test_the_page_on_installing_says_what_ran_on_each_end():
    rows = table("install.md", "transformers")
    ran = {(Version(row["transformers"]), Version(row["torch"])) for row in rows}
    old, new = pins("oldest"), pins("newest")
    assert {(end["transformers"], end["torch"]) for end in (old, new)} <= ran
    assert {version for pair in ran for version in pair} <= {end[n] for end in (old, new) for n in pins("newest")}


def test_the_continuous_integration_runs_what_a_developer_runs():
    job = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["test"]
    said = [step.get("run", "") for step in job["steps"]]
    assert [s.split()[:2] for s in said if s] == [["make", "setup"], ["make", "test"], ["make", "test"]]
    matrix = job["strategy"]["matrix"]
    assert matrix["end"] == ["oldest", "newest"]
    assert matrix["python"] == sorted(set(re.findall(r'\("(3\.\d+)"', text("noxfile.py"))))
    assert f'python_requires=">={matrix["python"][0]}"' in text("setup.py")
    assert f"Programming Language :: Python :: {matrix['python'][-1]}" in text("setup.py")
    assert [line.split()[:2] for line in text(".ci/run").splitlines()[-3:] if line[0] != "#"] == [
        ["make", "test"], ["make", "quick"]]  # fmt: skip


def test_the_hooks_are_the_linters():
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    lint = text("Makefile").split("\nlint:")[1].split("\n\n")[0]
    commands = {hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in hooks}
    assert commands == {c.removesuffix(" .") for c in re.findall(r"\$\(BIN\)/(.+)", lint)}


def test_no_test_asks_the_model_hub():
    """The libraries read the variable once, when they are imported."""
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE is True
