"""Figures from run folders made by hand: what is drawn is what the rows say, and the same rows give the same bytes."""

import subprocess
import sys

import numpy as np
import pytest

from easyedit_packe.bench.archive import pack
from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.figures import FIGURES, style, write_figures
from easyedit_packe.bench.figures.study import Study
from easyedit_packe.bench.report.runs import find_runs, found_lines, tracings_of
from easyedit_packe.errors import MissingPackageError

from ..cli.common import packe
from ..conftest import ROOT
from .folders import read_rows, write_rows, write_run, write_tracing


def drawn(name, *paths):
    """The figures of a kind, by what tells them apart."""
    lines = found_lines(paths)
    runs = find_runs(paths) if any(row["kind"] == "run" for part in lines for row in part) else []
    with style.applied():
        return dict(FIGURES[name].draw(Study(runs, tracings_of(lines))))


def with_cases(folder, cases):
    """The run's records, with these figures in place of its own: efficacy, generality, locality, kept."""
    rows = read_rows(folder / "cases.jsonl")
    for row, (efficacy, generality, locality, kept) in zip(rows, cases, strict=True):
        row["easyedit"] = {"efficacy": efficacy, "generality": generality, "locality": locality}
        row["subject"] = {"kept": kept, "drawn": 0.0, "kl": 0.0}
    write_rows(folder / "cases.jsonl", rows)


def with_seconds(folder, seconds):
    rows = read_rows(folder / "edits.jsonl")
    write_rows(folder / "edits.jsonl", [{**row, "seconds": s} for row, s in zip(rows, seconds, strict=True)])


def points(axes):
    """By label, x and y of each point, and its errors (x, then y) where it has some."""
    found = {}
    for container in axes.containers:
        line, _, bars = container
        x, y = (np.asarray(values, float).round(6).tolist() for values in line.get_data())
        along = zip((0, 1)[-len(bars) :], bars, strict=True)
        segments = [(i, [np.reshape(s, (-1, 2)) for s in bar.get_segments()]) for i, bar in along]
        errors = [[float(np.ptp(s[:, i])) / 2 if len(s) else None for s in bar] for i, bar in segments]
        found[container.get_label()] = x, y, errors
    return found


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda o: hasattr(o, "get_text")) if text.get_text()]


def foot(figure):
    return " ".join(figure.get_supxlabel().split())


# --- figure 3 -----------------------------------------------------------------------------------------------------


def test_seconds_are_medians_of_one_environment_and_the_others_are_named(tmp_path):
    with_seconds(write_run(tmp_path, "ROME", [1.0] * 3), [1.0, 9.0, 4.0])
    with_seconds(write_run(tmp_path, "PaCKE", [1.0] * 3), [0.5, 2.5, 0.25])
    with_seconds(write_run(tmp_path, "PaCKE", [1.0] * 2, data="counterfact"), [2.0, 3.0])
    with_seconds(write_run(tmp_path, "KN", [1.0] * 3, environment={"commit": "elsewhere"}), [7.0] * 3)
    ((name, figure),) = drawn("seconds", tmp_path).items()
    assert name == "m-single"
    zsre, counterfact = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["ZsRE", "CounterFact"]
    assert [label.get_text() for label in zsre.get_yticklabels()] == ["ROME", "PaCKE"]
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in zsre.patches] == [(0, 4.0), (1, 0.5)]
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in counterfact.patches] == [(1, 2.5)]
    assert {"4.0", "0.5", "2.5"} <= set(texts(figure))
    assert foot(figure) == (
        "m, single; n = 2 to 3 records; EasyEdit 0; torch 2; 2 CPU cores, 1 thread; commit abc. Timed elsewhere, and "
        "not comparable: KN."
    )


# --- figures 5 and 6 ----------------------------------------------------------------------------------------------


def swept(folder, parameter, values, **more):
    """A run for each value, whose efficacies are those given."""
    for value, efficacies in values.items():
        hparams = {"num_critical_paths": 15, "contrast_weight": 0.1, "seed": 42, parameter: value}
        write_run(folder, "PaCKE", efficacies, hparams=hparams, label=f"{parameter}{value}", **more)


def test_nodes_from_none_to_all(tmp_path):
    swept(tmp_path, "num_critical_paths", {24: [1.0, 1.0], 0: [0.0, 0.0], 3: [1.0, 0.5], 15: [1.0, 0.0]})
    swept(tmp_path, "contrast_weight", {0: [0.5, 0.5], 0.1: [1.0, 0.0]})  # the second is the first sweep's 15 again
    ((name, figure),) = drawn("nodes", tmp_path).items()
    assert name == "m-single"
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "3", "15", "24"]
    found = points(axes)
    assert list(found) == ["efficacy", "generality", "locality", "score"]
    assert found["efficacy"][1] == [0.0, 75.0, 50.0, 100.0]
    assert found["efficacy"][2] == [pytest.approx([0.0, 25.0, 50.0, 0.0])]
    assert found["generality"][1] == [50.0] * 4
    assert found["score"][1] == pytest.approx([100 * (e + 0.75) / 3 for e in (0.0, 0.75, 0.5, 1.0)], abs=1e-5)
    assert axes.get_title() == "ZsRE, n = 2"
    assert drawn("contrast", tmp_path) == {}  # two values are no line


def test_a_sweep_takes_the_records_that_all_its_points_have(tmp_path):
    swept(tmp_path, "contrast_weight", {0: [0.0, 1.0, 1.0], 0.1: [1.0, 0.0], 10: [0.5, 0.5, 0.5]})
    swept(tmp_path, "contrast_weight", {0: [0.0], 0.1: [1.0], 10: [1.0]}, data="counterfact")
    ((_, figure),) = drawn("contrast", tmp_path).items()
    zsre, counterfact = figure.axes
    assert points(zsre)["efficacy"][1] == [50.0, 50.0, 50.0]
    assert (zsre.get_title(), counterfact.get_title()) == ("ZsRE, n = 2", "CounterFact, n = 1")
    assert points(counterfact)["efficacy"][1] == [0.0, 100.0, 100.0]
    assert "n = 1 to 2 records" in foot(figure)


def test_runs_of_a_sweep_are_no_editors_of_their_own(tmp_path):
    swept(tmp_path, "num_critical_paths", {0: [0.0], 3: [1.0], 24: [1.0]})
    write_run(tmp_path, "ROME", [1.0])
    write_run(tmp_path, "PaCKE", [1.0], label="mine")
    ((_, figure),) = drawn("tradeoff", tmp_path).items()
    assert list(points(figure.axes[0])) == ["ROME", "PaCKE (mine)"]


# --- our own ------------------------------------------------------------------------------------------------------


def test_generality_against_locality_and_against_kept(tmp_path):
    with_cases(write_run(tmp_path, "ROME", [1.0] * 2), [(1.0, 0.0, 1.0, 0.5), (1.0, 1.0, 0.5, 0.5)])
    with_cases(write_run(tmp_path, "PaCKE", [1.0] * 2), [(1.0, 1.0, 0.25, 1.0), (1.0, 1.0, 0.25, 0.0)])
    ((name, figure),) = drawn("tradeoff", tmp_path).items()
    assert name == "m-single"
    locality, kept = figure.axes
    assert points(locality) == {
        "ROME": ([75.0], [50.0], [[25.0], [50.0]]),
        "PaCKE": ([25.0], [100.0], [[0.0], [0.0]]),
    }
    assert {name: (x, y) for name, (x, y, _) in points(kept).items()} == {
        "ROME": ([50.0], [50.0]),
        "PaCKE": ([50.0], [100.0]),
    }
    for axes in figure.axes:  # each point has its name beside the axes, the higher one above
        height = {text.get_text(): text.xy[1] for text in axes.texts if text.get_text()}
        assert height["PaCKE"] > height["ROME"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["locality, percent", "same-subject kept, percent"]


def test_of_more_than_two_data_sets_each_has_a_figure(tmp_path):
    for data in ("zsre", "counterfact", "mcf"):
        for editor in ("ROME", "PaCKE"):
            write_run(tmp_path, editor, [1.0], data=data)
    for name in ("seconds", "tradeoff"):
        assert list(drawn(name, tmp_path)) == ["m-single-zsre", "m-single-mcf", "m-single-counterfact"]


def test_rows_without_questions_about_the_subject_say_so(tmp_path):
    write_run(tmp_path, "ROME", [1.0])
    write_run(tmp_path, "PaCKE", [1.0])
    ((_, figure),) = drawn("tradeoff", tmp_path).items()
    assert len(figure.axes) == 1
    assert foot(figure).endswith("These rows have no other questions about the subject.")


def test_the_curve_is_of_whole_points_and_has_h_and_its_parts(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0] * 4, protocol="consecutive")
    with_cases(folder, [(1.0, 0.5, 1.0, 1.0), (1.0, 0.5, 0.0, 0.0), (1.0, 0.5, 1.0, 1.0), (1.0, 0.5, 0.0, 0.0)])
    last = read_rows(folder / "cases.jsonl")
    write_rows(folder / "cases.jsonl", [{**last[i], "after": k} for k, n in ((1, 1), (3, 2), (4, 4)) for i in range(n)])
    ((name, figure),) = drawn("curve", tmp_path).items()
    assert name == "m-consecutive-4-edits"
    assert [axes.get_ylabel() for axes in figure.axes] == [f"{row}, %" for row in
        ("H", "efficacy", "generality", "locality", "kept")]  # fmt: skip
    found = {axes.get_ylabel(): points(axes)["PaCKE"][:2] for axes in figure.axes}
    assert found["H, %"] == ([1, 4], [80.0, pytest.approx(100 * 4 / (1 + 2 + 2 + 2), abs=1e-5)])  # 3 is not whole
    assert found["generality, %"] == ([1, 4], [50.0, 50.0])
    assert found["locality, %"] == found["kept, %"] == ([1, 4], [100.0, 50.0])


# --- figure 4 -----------------------------------------------------------------------------------------------------


def test_boxes_of_importance_by_hand(tmp_path):
    """Two facts, two layers, two nodes: in the first layer keys of 1, 2, 4 and 9."""
    rows = [{"key": [[4.0, 1.0], [8.0, 8.0]], "value": [[1.0, 1.0], [2.0, 1.0]]},
            {"key": [[9.0, 2.0], [8.0, 8.0]], "value": [[1.0, 1.0], [4.0, 3.0]]}]  # fmt: skip
    write_tracing(tmp_path, rows)
    ((name, figure),) = drawn("importance", tmp_path).items()
    assert name == "m-zscore-2-nodes"
    keys, values = figure.axes
    assert keys.get_title() == "ZsRE, key nodes, n = 2 facts"
    lines = [{line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines} for axes in (keys, values)]
    medians = [of["medians"][::3].tolist() for of in lines]
    assert medians == [[3.0, 8.0], [1.0, 2.5]]
    assert lines[0]["boxes"][:5].tolist() == [1.75, 1.75, 5.25, 5.25, 1.75]  # quartiles of 1, 2, 4 and 9
    assert lines[0]["whiskers"][[0, 1, 3, 4]].tolist() == [pytest.approx(y) for y in (1.15, 1.75, 5.25, 8.25)]
    assert foot(figure).startswith("m, before any edit; n = 2 facts, 2 nodes of each kind a layer; EasyEdit 0;")


def test_importance_is_read_from_archives_and_is_no_run_of_an_editor(tmp_path):
    write_tracing(tmp_path / "runs", [{"key": [[4.0]], "value": [[1.0]]}])
    write_run(tmp_path / "runs", "PaCKE", [1.0])
    pack(tmp_path / "runs", tmp_path / "s.jsonl.zst")
    assert tracings_of(found_lines([tmp_path / "s.jsonl.zst"])) == tracings_of(found_lines([tmp_path / "runs"]))
    assert len(tracings_of(found_lines([tmp_path]))) == 1  # found twice, it counts once
    assert [run.name for run in find_runs([tmp_path / "runs"])] == ["PaCKE"]


# --- files --------------------------------------------------------------------------------------------------------


def everything(folder):
    """Rows of every figure."""
    write_run(folder, "ROME", [1.0, 0.5])
    swept(folder, "num_critical_paths", {0: [0.0], 3: [1.0], 24: [1.0]})
    swept(folder, "contrast_weight", {0: [0.0], 1: [1.0]})
    write_run(folder, "PaCKE", [1.0, 1.0], hparams={"num_critical_paths": 15, "contrast_weight": 0.1, "seed": 42})
    curved = write_run(folder, "PaCKE", [1.0] * 2, protocol="consecutive")
    rows = read_rows(curved / "cases.jsonl")
    write_rows(curved / "cases.jsonl", [{**rows[0], "after": 1}, *rows])
    write_tracing(folder, [{"key": [[4.0, 2.0]], "value": [[1.0, 1.0]]}])


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(tmp_path, monkeypatch):
    everything(tmp_path / "runs")
    first = write_figures([tmp_path / "runs"], tmp_path / "a")
    pack(tmp_path / "runs", tmp_path / "runs.jsonl.zst")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):  # the user's own, which do not count
        second = write_figures([tmp_path / "runs.jsonl.zst"], tmp_path / "b")
        assert matplotlib.rcParams["font.size"] == 30
    assert first.missing == second.missing == {}
    assert {file.name.split("-")[0] for file in first.files} == set(FIGURES)
    assert {file.suffix for file in first.files} == {".png", ".svg", ".pdf"}
    assert [f.name for f in first.files] == [f.name for f in second.files]
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_nothing_is_smaller_than_print_allows(tmp_path):
    everything(tmp_path)
    for name in FIGURES:
        for figure in drawn(name, tmp_path).values():
            assert figure.get_figwidth() in (style.PAGE, style.COLUMN, style.COLUMN + 0.4, style.COLUMN + 0.6)
            sizes = [t.get_fontsize() for t in figure.findobj(lambda o: hasattr(o, "get_fontsize")) if t.get_text()]
            assert min(sizes) >= 7


def test_what_is_left_out_is_named_with_the_command_that_makes_its_rows(tmp_path):
    write_run(tmp_path / "runs", "PaCKE", [1.0])
    said = packe("figures", tmp_path / "runs", "--out", tmp_path / "out")
    assert f"wrote {tmp_path / 'out' / 'seconds-m-single'}.png, .svg, .pdf\n" in said
    lines = said.splitlines()
    left_out = {line.split()[2].rstrip(":"): lines[i + 1].strip() for i, line in enumerate(lines) if "left out" in line}
    assert set(left_out) == set(FIGURES) - {"seconds"}
    assert left_out == {name: FIGURES[name].MISSING.command for name in left_out}
    assert left_out["importance"].startswith("packe importance ")
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        f"seconds-m-single.{e}" for e in ("pdf", "png", "svg")
    ]


def test_only_the_editors_that_are_asked_for(tmp_path):
    for editor in ("ROME", "KN", "PaCKE"):
        write_run(tmp_path / "runs", editor, [1.0])
    (png, *_) = write_figures([tmp_path / "runs"], tmp_path / "out", ["ROME", "PaCKE"]).files
    svg = png.with_suffix(".svg").read_text()
    assert ">ROME<" in svg
    assert ">KN<" not in svg
    with pytest.raises(BenchError, match="no editor 'RMOE' in these runs; did you mean 'ROME'"):
        write_figures([tmp_path / "runs"], tmp_path / "out", ["RMOE"])


def test_drawing_loads_no_torch(tmp_path):
    everything(tmp_path / "runs")
    code = f"""
import sys
from pathlib import Path
from easyedit_packe.bench.figures import write_figures
write_figures([Path({str(tmp_path / "runs")!r})], Path({str(tmp_path / "out")!r}), ["ROME"])
assert "matplotlib" in sys.modules
loaded = {{"torch", "transformers", "easyeditor"}} & sys.modules.keys()
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_without_matplotlib(tmp_path, monkeypatch):
    write_run(tmp_path, "PaCKE", [1.0])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"'matplotlib'.*pip install \"easyedit-packe\[figures\]\""):
        packe("figures", tmp_path)


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "gap", "places"), [
    ([0.2, 0.8], 0.1, [0.2, 0.8]),  # where they want to be
    ([0.5, 0.5], 0.1, [0.45, 0.55]),  # apart, around what both want
    ([0.5, 0.52, 0.9], 0.1, [0.46, 0.56, 0.9]),
    ([0.0, 0.0, 0.0], 0.1, [0.0, 0.1, 0.2]),  # none below the axes
    ([1.0, 1.0], 0.1, [0.9, 1.0]),
    ([0.3, 0.4, 0.5], 0.8, [0.0, 0.5, 1.0]),  # no room for such gaps
    ([0.3], 0.1, [0.3]),
])  # fmt: skip
def test_labels_are_apart_and_near(wanted, gap, places):
    assert style.spread(wanted, gap) == pytest.approx(places)


def test_editors_look_different():
    """Points by marker and colour; lines of the editors that share a colour by their strokes."""
    for of in (lambda look: (look.marker, look.color), lambda look: (str(look.line), look.marker)):
        assert len({of(look) for look in style.LOOKS.values()}) == len(style.LOOKS)
    assert style.look("PaCKE (mine)") == style.LOOKS["PaCKE"]
    assert style.LOOKS["ROME"].marker != style.LOOKS["MEMIT"].marker
