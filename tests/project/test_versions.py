"""The versions of both ends stand in constraints/; what else says one says the same."""

import re

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from easyedit_packe.easyedit.install import TESTED_COMMIT
from easyedit_packe.easyedit.locate import PYPI_RELEASE
from easyedit_packe.easyedit.placeholders import OPTIONAL

from ..docs.pages import table
from .test_habits import text


def pins(end):
    found = re.findall(r"^([\w-]+)==(\S+)$", text(f"constraints/{end}.txt"), re.MULTILINE)
    return {name: Version(version) for name, version in found}


OLDEST, NEWEST = pins("oldest"), pins("newest")
MATRIX = re.findall(r'\("(3\.\d+)", "(\w+)"\)', text("noxfile.py"))


def test_lower_bounds_are_the_oldest_end():
    """Of all that a user installs; the tools of developers are new."""
    users = text("setup.py").split("install_requires=")[1].split('"matrix":')[0]
    bounds = {name: Version(version) for name, version in re.findall(r'"([\w-]+)>=([\d.]+)', users)}
    assert bounds == OLDEST
    assert {"torch", "transformers", "peft", "pandas", "openai"} < bounds.keys()
    assert NEWEST.keys() == {"torch", "transformers"}
    assert all(version > OLDEST[name] for name, version in NEWEST.items())
    assert NEWEST["transformers"] in SpecifierSet(re.search(r'"transformers([^"]+)"', users)[1])


def test_the_matrix_has_both_ends_and_the_ci_its_interpreters():
    assert {end for _, end in MATRIX} == {"oldest", "newest"}
    pythons = sorted({python for python, _ in MATRIX}, key=Version)
    ci = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]
    assert [(entry["python"], entry["end"]) for entry in ci["versions"]] == MATRIX
    assert f'python_requires=">={pythons[0]}"' in text("setup.py")
    named = re.findall(r"Python :: (3\.\d+)", text("setup.py"))
    assert (named[0], named[-1]) == (pythons[0], pythons[-1])


def test_no_other_file_that_installs_names_a_version():
    for name in ("Makefile", "noxfile.py", ".ci/run", ".github/workflows/ci.yml"):
        assert re.findall(r"\b(?:torch|transformers) ?[=<>~!]=? ?\d\S*", text(name)) == [], name
    for variable in ("torch", "transformers"):
        assert f"{variable.upper()} ?= $(shell grep ^{variable}= constraints/oldest.txt)\n" in text("Makefile")
    assert "constraints/newest.txt" in text(".ci/run")
    assert OPTIONAL["transformers.modeling_attn_mask_utils"] == f"transformers=={OLDEST['transformers']}"


def test_the_page_on_installing_says_what_ran():
    pypi, head = table("install.md", "EasyEdit")
    assert PYPI_RELEASE in pypi["EasyEdit"]
    assert TESTED_COMMIT in head["EasyEdit"]
    versions = [(Version(row["transformers"]), Version(row["torch"])) for row in table("install.md", "transformers")]
    assert {(end["transformers"], end["torch"]) for end in (OLDEST, NEWEST)} <= set(versions)
    for row in (pypi, head):
        assert [Version(v) for v in row["transformers"].split(", ")] == sorted({v for v, _ in versions})
