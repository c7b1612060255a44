"""What paths have in common, counted by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from rich.console import Console

from easyedit_packe import EditRequest, Trace, overlap
from easyedit_packe.errors import RequestError
from easyedit_packe.packe.tracing import NodeSets
from easyedit_packe.trace.overlap import COLLIDES
from easyedit_packe.trace.picture import draw_overlap, draw_path, save
from easyedit_packe.trace.text import overlap_table, path_table, several_facts
from easyedit_packe.trace.trace import TracedModule, would_change

MODULES = tuple(
    TracedModule(f"{layer}.{kind}", layer, kind, 10, 3, kind == "key", 4)
    for layer in (0, 1)
    for kind in ("key", "value")
)


def trace_of(target, *critical, scores=None, negative=9):
    """A trace whose T+ are these nodes of the four modules, best first."""
    tensors = dict(zip([m.name for m in MODULES], map(torch.tensor, critical), strict=True))
    worst = {m.name: torch.tensor([negative]) for m in MODULES}
    scores = scores or {m.name: torch.linspace(1, 0.1, 10) for m in MODULES}
    return Trace((EditRequest("a", target),), MODULES, scores, NodeSets(tensors, worst), "zscore", 1000)


@pytest.fixture
def three():
    """The first two share 2 + 1 + 2 of 8 nodes, the third shares one with the second."""
    return [
        trace_of("x", [0, 1], [0, 1], [0, 1], [0, 1]),
        trace_of("y", [1, 0], [1, 2], [4, 5], [0, 1]),
        trace_of("z", [7, 8], [7, 8], [4, 7], [7, 8]),
    ]


def test_by_hand(three):
    found = overlap(three)
    assert [(p.first, p.second, p.shared) for p in found.pairs] == [(0, 1, 5), (1, 2, 1), (0, 2, 0)]
    worst = found.pairs[0]
    assert worst.share == 5 / 8
    assert worst.jaccard == pytest.approx(5 / 11)
    assert worst.by_layer == {0: 3, 1: 2}
    assert worst.layers == [0, 1]
    assert found.pairs[1].by_layer == {1: 1}
    expected = [[1, 5 / 11, 0], [5 / 11, 1, 1 / 15], [0, 1 / 15, 1]]
    np.testing.assert_allclose(found.jaccard.numpy(), expected, rtol=1e-6)
    assert found.chance == 2 / 10
    assert [p.collides for p in found.pairs] == [True, False, False]


def test_the_same_index_in_another_module_is_another_node():
    one, two = trace_of("x", [0, 1], [2, 3], [4, 5], [6, 7]), trace_of("y", [2, 3], [0, 1], [6, 7], [4, 5])
    assert overlap([one, two]).pairs[0].shared == 0


def test_what_collides():
    one = trace_of("x", [0, 1], [0, 1], [0, 1], [0, 1])
    three, two = trace_of("y", [0, 1], [0, 6], [5, 6], [5, 6]), trace_of("z", [0, 1], [5, 6], [5, 6], [5, 6])
    assert overlap([one, two]).pairs[0].share == 2 / 8 < COLLIDES < 3 / 8 == overlap([one, three]).pairs[0].share
    assert overlap([one, three]).pairs[0].collides
    assert not overlap([one, two]).pairs[0].collides


def test_what_cannot_be_compared_is_refused(three):
    with pytest.raises(RequestError, match="at least two facts to compare, got 1"):
        overlap(three[:1])
    other = dataclasses.replace(three[1], modules=MODULES[::-1])
    with pytest.raises(RequestError, match="traces of one model by the same settings"):
        overlap([three[0], other])


def test_a_node_that_several_change_is_moved_once(three):
    """By hand: the first two have 11 nodes of T+ and 4 of T-; the keys among these have a bias entry as well."""
    change = would_change(three[:2])
    keys = len({0, 1}) + 1 + len({0, 1, 4, 5}) + 1
    values = len({0, 1, 2}) + 1 + len({0, 1}) + 1
    assert change.vectors == keys + values == 15
    assert change.weights == 4 * keys + 3 * values
    assert change.share == change.weights / 1000
    assert change.bytes == 8 * (2 * keys + values) + 2 * 4 * change.weights


def lines_of(part, width=80):
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as said:
        console.print(part)
    return said.get().splitlines()


def test_the_table_of_a_path_by_hand():
    scores = {m.name: torch.tensor([4.0, 2.0, *[0.5] * 8]) for m in MODULES}
    scores["1.key"] = torch.tensor([1.0, *[1.0] * 9])
    trace = trace_of("x", [0, 1], [0, 1], [0, 1], [0, 1], scores=scores)
    *_, first, second = lines_of(path_table(trace))
    assert first.split() == ["0", "0", "4.00", "█" * 8, "60%", "0", "4.00", "█" * 8, "60%"]
    assert second.split() == ["1", "0", "1.00", "█" * 2, "20%", "0", "4.00", "█" * 8, "60%"]


def test_the_table_of_an_overlap_by_hand(three):
    assert [line.split() for line in lines_of(overlap_table(overlap(three)))] == [
        ["1", "2", "3"], ["1", "·", "45", "0"], ["2", "45", "·", "7"], ["3", "0", "7", "·"],
    ]  # fmt: skip


def test_colliding_facts_are_named_worst_first(three):
    text = "\n".join(line for part in several_facts(overlap(three), three) for line in lines_of(part, 200))
    assert "1 of 3 pairs collide" in text
    assert " 62%  a → x\n      a → y\n      5 nodes in common, most in layers 0 (3), 1 (2)" in text
    assert "a → z" not in text.split("collide")[1]
    apart = "\n".join(line for part in several_facts(overlap(three[1:]), three[1:]) for line in lines_of(part, 200))
    assert "No two facts share 30% of T+ or more (two drawn at random: 20.0%). Those with most in common:" in apart
    assert " 12%  a → y\n      a → z" in apart


def test_many_facts_are_named_by_the_worst_pairs_only(three):
    found = overlap(three * 4)
    text = "\n".join(line for part in several_facts(found, three * 4) for line in lines_of(part, 200))
    assert "Jaccard" not in text
    colliding = sum(p.collides for p in found.pairs)
    assert f"{colliding} of 66 pairs collide" in text
    assert f"and {colliding - 10} more pairs" in text


def marks(axes):
    """(x, text) of what is written into a heat map."""
    return {(*t.get_position(), t.get_text()) for t in axes.texts}


def test_the_heat_map_shows_the_pairs_and_frames_those_that_collide(three):
    axes = draw_overlap(overlap(three)).axes[0]
    assert marks(axes) == {(1, 2, "45"), (2, 1, "45"), (1, 3, "0"), (3, 1, "0"), (2, 3, "7"), (3, 2, "7")}
    framed = {tuple(np.round(np.add(r.get_xy(), 0.47), 6)) for r in axes.patches}
    assert framed == {(1, 2), (2, 1)}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a → x  1", "a → y  2", "a → z  3"]
    shown = axes.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shown[0], [np.nan, 500 / 11, 0], rtol=1e-6)
    assert draw_overlap(overlap(three * 10)).axes[0].texts[:] == []


@pytest.mark.parametrize("signed", [False, True])
def test_the_picture_of_a_path_shows_its_nodes(three, signed, tmp_path):
    scores = {m.name: torch.linspace(1, -0.9 if signed else 0.1, 10) for m in MODULES}
    figure = draw_path(dataclasses.replace(three[0], scores=scores))
    (axes,) = figure.axes
    (path,) = [line for line in axes.lines if len(line.get_xdata()) == 4]
    np.testing.assert_allclose(path.get_xdata(), [-0.21, 0.21, 0.79, 1.21])
    np.testing.assert_allclose(path.get_ydata(), 1)
    critical = [line.get_ydata() for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 2]
    np.testing.assert_allclose(critical, [scores["0.key"][:2]] * 4)
    assert axes.get_title() == "a → x"
    odd = dataclasses.replace(three[0], scores=scores, requests=(EditRequest("pays $5 and $\\foo{$ for", "x"),))
    save(draw_path(odd), tmp_path / "p.png")  # a price is no formula
    save(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]
