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


LAID_OUT_ALIKE = Version("3.10")
"""The first matplotlib that leaves as much room between the parts of a figure as the one that drew these."""


def said(svg):
    """Its texts, and its points, of which other releases of matplotlib may write other digits."""
    text = svg.read_text(encoding="utf-8")
    points = re.findall(r"<use [^>]*x=\"([\d.]+)\" y=\"([\d.]+)\"", text)
    return re.findall(r"<text[^>]*>([^<]*)</text>", text), [float(v) for point in points for v in point]


@pytest.mark.slow
def test_each_is_what_the_rows_say(tmp_path):
    drawn = figures.draw(tmp_path)
    assert [svg.name for svg in drawn] == [svg.name for svg in SVGS]
    for new, kept in zip(drawn, SVGS, strict=True):
        texts, places = said(new)
        assert texts == said(kept)[0], f"{kept.name}: run `python benchmarks/figures.py --draw`"
        if Version(matplotlib.__version__) >= LAID_OUT_ALIKE:
            assert places == pytest.approx(said(kept)[1], abs=0.5), kept.name
