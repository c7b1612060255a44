"""Tables from run folders made by hand: means, the paper's figures, costs, files."""

import json

import pandas as pd
import pytest

from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.report import (
    cost_table,
    curve_table,
    find_runs,
    latex,
    main_table,
    markdown,
    one_line,
    tidy,
    write_report,
)
from easyedit_packe.bench.report.means import Mean, by_record, difference, percent, score, verdict

from .folders import read_rows, write_rows, write_run


def cell(frame, editor, metric, family="easyedit"):
    (row,) = frame[(frame.editor == editor) & (frame.metric == metric) & (frame.family == family)].itertuples()
    return row


def test_means_errors_and_score_by_hand(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 0.0, 1.0, 1.0])
    frame = tidy(find_runs([tmp_path]))
    row = cell(frame, "PaCKE", "efficacy")
    assert (row.mean, row.n) == (0.75, 4)
    assert row.se == pytest.approx(0.5 / 2)  # deviation 0.5 with n - 1, over the root of 4
    assert cell(frame, "PaCKE", "score").mean == pytest.approx((0.75 + 0.5 + 0.25) / 3)
    assert cell(frame, "Original model", "score").mean == pytest.approx(0.2)  # has no locality of its own
    assert cell(frame, "Original model", "locality", "rome").mean == 1.0


def test_the_score_is_the_mean_of_what_there_is():
    assert score({"efficacy": 0.9, "generality": 0.6, "locality": 0.3}) == pytest.approx(0.6)
    assert score({"efficacy": 0.9, "generality": 0.6, "efficacy_begins": 0.0}) == pytest.approx(0.75)


def test_percents_have_one_decimal_and_no_negative_zero():
    assert [percent(x) for x in (0.5, -0.0001, 1.0, -0.0125)] == ["50.0", "0.0", "100.0", "-1.2"]


def test_seeds_of_a_record_are_no_new_records(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 0.0])
    write_run(tmp_path, "PaCKE", [0.0, 0.0], seed=2)
    row = cell(tidy(find_runs([tmp_path])), "PaCKE", "efficacy")
    assert (row.mean, row.n, row.seeds, row.se) == (0.25, 2, 2, 0.25)


def test_a_difference_is_paired_by_record():
    def records(**efficacies):
        return {i: {"efficacy": e} for i, e in efficacies.items()}

    found = difference(records(a=1.0, b=0.5, c=0.0), records(a=0.5, b=0.0, d=1.0), "efficacy")
    assert found == (0.5, 0.0, 2)  # 0.5 and 0.5; c and d have no partner
    assert verdict(found) == "better"
    assert verdict(Mean(-0.4, 0.2, 9)) == "worse"
    assert verdict(Mean(-0.39, 0.2, 9)) == "tie"
    assert verdict(Mean(0.0, 0.0, 9)) == "tie"
    assert verdict(Mean(0.5, float("nan"), 1)) == "tie"


def test_the_report_says_who_ties(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 0.5, 1.0, 1.0])
    write_run(tmp_path, "ROME", [0.5, 1.0, 0.5, 1.0])  # 3/4 against 7/8: differences 1/2, -1/2, 1/2, 0
    write_run(tmp_path, "KN", [0.0, 0.0, 0.0, 0.1])
    text = markdown(find_runs([tmp_path]))
    assert "Highest score: zsre PaCKE, tied with ROME.\n" in text
    assert "less than twice the standard error" in text


def test_other_numbers_of_consecutive_edits_are_other_tables(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0] * 3, protocol="consecutive")
    write_run(tmp_path, "ROME", [1.0] * 2, protocol="consecutive")
    assert set(tidy(find_runs([tmp_path])).setting) == {"consecutive, 3 edits", "consecutive, 2 edits"}


def test_memory_is_the_most_of_what_was_measured(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0] * 3)
    write_run(tmp_path, "MEMIT", [1.0])
    runs = {r.name: r for r in find_runs([tmp_path])}
    known, unknown = runs["PaCKE"], runs["MEMIT"]
    known.edits[1]["memory_bytes"] = 9_000_000
    for edit in (known.edits[2], unknown.edits[0]):
        edit["memory_bytes"] = None  # the target vectors were taken from the store
    assert cost_table(list(runs.values())).set_index("editor")["peak MB"].to_dict() == {"PaCKE": "9", "MEMIT": "?"}
    assert "peak MB" not in cost_table([unknown])


def test_costs_by_hand(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0, 0.0, 0.0], refused={"2": "no subject"})
    rows = read_rows(folder / "edits.jsonl")
    for row, seconds, weights in zip(rows, (1.0, 2.0, 6.0), (1000, 3000, 2000), strict=True):
        row |= {"seconds": seconds, "weights_changed": weights}
    write_rows(folder / "edits.jsonl", rows)
    (row,) = cost_table(find_runs([tmp_path])).to_dict("records")
    assert row == {
        "editor": "PaCKE", "data": "zsre", "seconds / edit": "4.00", "peak MB": "5", "weights changed": "2,500",
        "perplexity ratio": "1.500", "refused": "1 of 3",
    }  # fmt: skip


def test_an_edit_that_breaks_the_model_counts_as_infinite_perplexity(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0] * 3)
    rows = read_rows(folder / "edits.jsonl")
    rows[0]["perplexity"] = rows[1]["perplexity"] = None
    write_rows(folder / "edits.jsonl", rows)
    assert cost_table(find_runs([tmp_path]))["perplexity ratio"].tolist() == ["inf"]  # two of three


def test_the_best_is_bold_and_the_original_never(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 1.0])
    write_run(tmp_path, "ROME", [0.0, 1.0])
    table = main_table(tidy(find_runs([tmp_path])), "easyedit").set_index("editor")
    assert table.loc["PaCKE", "zsre efficacy"] == "**100.0 ± 0.0**"
    assert table.loc["ROME", "zsre efficacy"] == "50.0 ± 50.0"
    assert "*" not in table.loc["Original model", "zsre efficacy"]
    assert table.loc["Original model", "zsre locality"] == "/"


def test_the_papers_figure_stands_beside_ours_where_it_can(tmp_path):
    for editor in ("PaCKE", "MEMIT"):
        write_run(tmp_path, editor, [1.0] * 100, model="llama3-8b", protocol="batch")
    runs = find_runs([tmp_path])
    table = main_table(tidy(runs), "easyedit").set_index("editor")
    assert table.loc["PaCKE", "zsre efficacy"].endswith(" [98.21]")
    assert table.loc["MEMIT", "zsre efficacy"].endswith(" [n/c]")  # of the other family in the paper
    assert main_table(tidy(runs), "rome").set_index("editor").loc["MEMIT", "zsre efficacy"].endswith(" [34.62]")
    assert "cannot stand beside ours" in markdown(runs)


def test_a_curve_shows_points_that_are_whole(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0] * 4, protocol="consecutive")
    last = read_rows(folder / "cases.jsonl")
    points = [{**last[i], "after": k, "call": k - 1} for k, records in ((1, [0]), (3, [0, 1])) for i in records]
    points[0] = {**points[0], "easyedit": {"efficacy": 0.0, "generality": 0.0, "locality": 0.3}}
    write_rows(folder / "cases.jsonl", [*points, *last])
    runs = find_runs([tmp_path])
    assert curve_table(runs)[["edits", "score"]].values.tolist() == [[1, "10.0"], [4, "58.3"]]
    assert "- PaCKE, zsre: after 3 edits only 2 records are measured; not in the curve." in markdown(runs)


def test_files(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 0.5])
    text = write_report([tmp_path], tmp_path / "out")
    assert (tmp_path / "out" / "report.md").read_text() == text
    frame = pd.read_csv(tmp_path / "out" / "report.csv")
    assert frame[(frame.editor == "PaCKE") & (frame.metric == "efficacy")]["mean"].tolist() == [0.75, 0.75]
    tex = latex(find_runs([tmp_path]))
    assert r"\textbf{75.0 {\scriptsize $\pm$ 25.0}}" in tex
    assert r"\toprule" in tex


def test_a_run_in_one_line(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0, 0.5], refused={"0": "no subject"})
    assert one_line(folder) == (
        "PaCKE zsre single: efficacy 0.750, locality 0.250, generality 0.500, n = 2, 1 refused; " + f"{folder}/"
    )


def test_by_record_skips_what_was_not_measured():
    rows = [{"case_id": 1, "rome": {"efficacy": 1.0}}, {"case_id": 2, "generation": {"efficacy": 0.5}}]
    assert by_record(rows, "generation") == {2: {"efficacy": 0.5, "score": 0.5}}


def test_nothing_to_report(tmp_path):
    with pytest.raises(BenchError, match="no folder or archive"):
        find_runs([tmp_path / "absent"])
    (tmp_path / "run.json").write_text(json.dumps({"perplexity": 1.0}))  # of something else
    with pytest.raises(BenchError, match="no run in"):
        find_runs([tmp_path])


def test_growth_of_the_perplexity_is_the_geometric_mean_over_kinds_of_text():
    from easyedit_packe.bench.report.tables import _growth

    unedited = {"perplexities": {"short": {"a": 2.0, "b": 3.0}, "whole": {"a": 1.0, "b": 1.0}}, "perplexity": 4.0}
    assert _growth({"held_out": "short", "perplexities": {"a": 8.0, "b": 3.0}}, unedited) == pytest.approx(2.0)
    assert _growth({"held_out": "short", "perplexities": {"a": None, "b": 3.0}}, unedited) == float("inf")
    assert _growth({"held_out": "short", "perplexities": {"a": 8.0, "b": 3.0}}, {}) is None
    assert _growth({"perplexity": 6.0}, unedited) == pytest.approx(1.5)  # version 0.1
    assert _growth({"perplexity": None}, unedited) == float("inf")
