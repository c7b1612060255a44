"""Links lead to files and headings that exist, and every page can be reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..conftest import ROOT
from .pages import DOCS, FENCE, PAGES, name_of, text_of

LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    return LINK.findall(FENCE.sub("", text_of(page)))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them: lower case, spaces become hyphens, other marks are dropped."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_a_heading_becomes_an_anchor(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A finding: LayerNorm and Eq. 6\n\n```python\n# no heading\n```\n\n## PaCKE+\n", encoding="utf-8")
    assert anchors(page) == {"a-finding-layernorm-and-eq-6", "packe"}


def test_every_page_is_in_the_index_and_on_the_front_page():
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert pages <= set(links(DOCS / "README.md"))
    assert {f"docs/{name}" for name in pages} <= set(links(ROOT / "README.md"))


def test_every_folder_of_the_package_has_its_place_in_the_architecture():
    package = ROOT / "easyedit_packe"
    named = {(DOCS / link).resolve() for link in links(DOCS / "architecture.md")}
    missing = {p.name for p in package.iterdir() if (p / "__init__.py").is_file() and p.resolve() not in named}
    assert missing == set()
    assert {p.name for p in package.glob("[!_]*.py") if p.resolve() not in named} == set()


def test_every_module_of_the_methods_has_its_place_in_the_architecture():
    named = {(DOCS / link).resolve() for link in links(DOCS / "architecture.md")}
    package = ROOT / "easyedit_packe"
    modules = {file for folder in ("packe", "plus", "patch") for file in (package / folder).glob("[!_]*.py")}
    assert {str(file.relative_to(package)) for file in modules if file.resolve() not in named} == set()
