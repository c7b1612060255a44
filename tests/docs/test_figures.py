"""The figures of the documentation are drawn from the archived rows, small, and told in words."""

import re
import sys

import matplotlib
import pytest
from packaging.version import Version

from easyedit_packe.bench.figures import FIGURES

from ..conftest import ROOT
from .pages import DOCS, text_of

sys.path.insert(0, str(ROOT / "benchmarks"))
import figures

SVGS = sorted((DOCS / "images").glob("*.svg"))


def test_each_is_shown_with_a_text_in_its_place():
    shown = {file: alt for alt, file in re.findall(r"!\[([^\]]+)\]\(images/([^)]+)\)", text_of("figures.md"))}
    assert set(shown) == {svg.name for svg in SVGS}
    assert {svg.name.split("-")[0] for svg in SVGS} == set(FIGURES)
    assert min(len(alt.split()) for alt in shown.values()) >= 15


@pytest.mark.parametrize("svg", SVGS, ids=lambda p: p.name)
def test_each_is_small_and_has_no_pixels(svg):
    assert svg.stat().st_size < 150_000
    assert "<image" not in svg.read_text(encoding="utf-8")


def said(svg):
    """Its texts, and its points to half a pixel: other releases of matplotlib may write other digits."""
    text = svg.read_text(encoding="utf-8")
    points = re.findall(r"<use [^>]*x=\"([\d.]+)\" y=\"([\d.]+)\"", text)
    return re.findall(r"<text[^>]*>([^<]*)</text>", text), [float(v) for point in points for v in point]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return figures.draw(tmp_path_factory.mktemp("drawn"))


@pytest.mark.slow
def test_each_is_what_the_rows_say(drawn):
    assert [svg.name for svg in drawn] == [svg.name for svg in SVGS]
    for new, kept in zip(drawn, SVGS, strict=True):
        assert said(new)[0] == said(kept)[0], f"{kept.name}: run `python benchmarks/figures.py --draw`"


@pytest.mark.slow
@pytest.mark.skipif(
    Version(matplotlib.__version__) < Version("3.11"), reason="matplotlib 3.9 and 3.10 leave other room in a figure"
)
def test_each_has_its_points_where_the_rows_have_them(drawn):
    for new, kept in zip(drawn, SVGS, strict=True):
        assert said(new)[1] == pytest.approx(said(kept)[1], abs=0.5), kept.name
