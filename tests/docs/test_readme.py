"""The front page is short, begins with a picture, and its two commands are the Makefile's and the CI's."""

from __future__ import annotations

import re

import pytest

from ..conftest import ROOT
from .pages import DOCS, PAGES, code, prose, table, text_of

README = PAGES[0]


def test_it_is_read_in_two_minutes():
    assert len(text_of(README).splitlines()) <= 150
    assert len(code(README, "python")) == 1
    assert len([block for block in code(README, "console") if block.startswith("$ ")]) == 1


def test_its_picture_is_there_with_a_text_in_its_place():
    ((alt, file),) = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text_of(README))
    assert len(alt.split()) > 20
    data = (ROOT / file).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") >= 1600  # pixels of width: sharp at twice a README's width
    assert (DOCS / "images" / "make_path.py").is_file()


def test_its_two_commands_are_the_makefiles_and_the_cis():
    (block,) = [block for block in code(README, "console") if block.startswith("make ")]
    targets = re.findall(r"^make (\w+)", block, re.MULTILINE)
    assert targets == ["demo", "test"]
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(targets) <= set(rules)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_price_of_plus_stands_beside_its_results():
    assert "docs/plus.md#its-price" in prose(README)
    assert "plus.md#its-price" in text_of("results.md")


@pytest.mark.parametrize(("data", "name", "ties"), [("zsre", "ZsRE", set()), ("counterfact", "CounterFact", {"ROME"})])
def test_what_the_page_says_of_plus_is_what_the_paired_differences_say(data, name, ties, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from quotes import figure_text
    from tables import RESULTS

    said = (
        "the highest H on both data sets; on CounterFact ROME is within twice the standard error of the "
        "paired difference"
    )
    assert said in " ".join(prose(README).split())
    rows = {row["editor"]: row for row in table(README, "editor")}
    editors = [editor for editor, row in rows.items() if editor != "PaCKE+" and row[f"{name} H"] != "/"]
    verdicts = {
        editor: figure_text(f"single50; {data}; single; easyedit; H; PaCKE+ - {editor}; verdict", RESULTS)
        for editor in editors
    }
    assert verdicts == {editor: "tie" if editor in ties else "better" for editor in editors}
    assert rows["PaCKE+"][f"{name} H"].startswith("**")
