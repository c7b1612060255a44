"""Tables from run folders made by hand: means, the common records, warnings, the paper's figures."""

import json

import pandas as pd
import pytest

from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.report import cost_table, find_runs, latex, main_table, markdown, tidy, write_report

ABOUT = {
    "easyedit": "EasyEdit 0", "versions": {"torch": "2"}, "commit": "abc",
    "hardware": {"gpu": None, "cpus": 2, "threads": 1},
}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    def make(editor, efficacies, model="m", data="zsre", protocol="single", n=None, refused=None, **more):
        n = n or len(efficacies)
        folder = tmp_path / model / data / protocol / f"{editor}-{more.get('seed', 1)}"
        folder.mkdir(parents=True)
        identity = {"model": model, "data": data, "protocol": protocol, "editor": editor, "seed": 1, "batch_size": 100}
        (folder / "run.json").write_text(json.dumps({"identity": identity | more, "num_records": n, **ABOUT}))
        after = n if protocol == "consecutive" else 0
        with (folder / "cases.jsonl").open("w") as f:
            for case, e in enumerate(efficacies):
                family = {"efficacy": e, "generality": 0.5, "locality": 0.25}
                f.write(json.dumps({"after": after, "case_id": case, "easyedit": family, "rome": family}) + "\n")
        with (folder / "edits.jsonl").open("w") as f:
            for call in range(len(efficacies)):
                row = {
                    "call": call,
                    "case_ids": [call],
                    "refused": (refused or {}) if call == 0 else {},
                    "seconds": 2.0,
                }
                row |= {"memory_bytes": 5_000_000, "weights_changed": 7, "perplexity": 30.0}
                f.write(json.dumps(row) + "\n")
        unedited = tmp_path / model / data / "unedited"
        unedited.mkdir(exist_ok=True)
        (unedited / "run.json").write_text(json.dumps({"perplexity": 20.0}))
        with (unedited / "cases.jsonl").open("w") as f:
            for case in range(10):
                known = {"efficacy": 0.1, "generality": 0.3}
                row = {
                    "case_id": case,
                    "easyedit": known | {"locality_output": [[1]]},
                    "rome": known | {"locality": 1.0},
                }
                f.write(json.dumps(row) + "\n")
        return tmp_path

    return make


def cell(frame, editor, metric, family="easyedit"):
    (row,) = frame[(frame.editor == editor) & (frame.metric == metric) & (frame.family == family)].itertuples()
    return row


def test_means_errors_and_score_by_hand(make):
    frame = tidy(find_runs([make("PaCKE", [1.0, 0.0, 1.0, 1.0])]))
    row = cell(frame, "PaCKE", "efficacy")
    assert (row.mean, row.n) == (0.75, 4)
    assert row.se == pytest.approx(0.5 / 2)  # deviation 0.5 with n - 1, over the root of 4
    assert cell(frame, "PaCKE", "score").mean == pytest.approx((0.75 + 0.5 + 0.25) / 3)
    assert cell(frame, "Original model", "score").mean == pytest.approx(0.2)  # has no locality of its own
    assert cell(frame, "Original model", "locality", "rome").mean == 1.0


def test_rows_stand_together_on_common_records_only(make):
    make("PaCKE", [1.0, 1.0, 0.0, 0.0])
    runs = find_runs([make("ROME", [0.0, 1.0])])
    frame = tidy(runs)
    assert (cell(frame, "PaCKE", "efficacy").mean, cell(frame, "PaCKE", "efficacy").n) == (1.0, 2)
    text = markdown(runs)
    assert "Rows with different n are NOT comparable" in text
    assert "| PaCKE    |        4 |" in text


def test_other_numbers_of_consecutive_edits_are_other_tables(make):
    make("PaCKE", [1.0] * 3, protocol="consecutive")
    runs = find_runs([make("ROME", [1.0] * 2, protocol="consecutive")])
    assert set(tidy(runs).setting) == {"consecutive, 3 edits", "consecutive, 2 edits"}


def test_unfinished_and_refused_are_said(make):
    make("MEMIT", [1.0, 1.0], protocol="consecutive", n=5)
    text = markdown(find_runs([make("ROME", [1.0, 0.0], refused={"0": "ValueError: no subject"})]))
    assert "- MEMIT, zsre: unfinished, 2 of 5 records measured; not in the tables." in text
    assert "- ROME, zsre: record 0 refused (ValueError: no subject); measured unedited." in text
    assert "1 of 2" in text


def test_memory_is_the_most_of_what_was_measured(make):
    make("PaCKE", [1.0] * 3)
    runs = {r.name: r for r in find_runs([make("MEMIT", [1.0])])}
    known, unknown = runs["PaCKE"], runs["MEMIT"]
    known.edits[1]["memory_bytes"] = 9_000_000
    for edit in (known.edits[2], unknown.edits[0]):
        edit["memory_bytes"] = None  # the target vectors were taken from the store
    assert cost_table(list(runs.values())).set_index("editor")["peak MB"].to_dict() == {"PaCKE": "9", "MEMIT": "?"}
    assert "peak MB" not in cost_table([unknown])


def test_the_best_is_bold_and_the_original_never(make):
    make("PaCKE", [1.0, 1.0])
    frame = tidy(find_runs([make("ROME", [0.0, 1.0])]))
    table = main_table(frame, "easyedit").set_index("editor")
    assert table.loc["PaCKE", "zsre efficacy"] == "**100.0 ± 0.0**"
    assert table.loc["ROME", "zsre efficacy"] == "50.0 ± 50.0"
    assert "*" not in table.loc["Original model", "zsre efficacy"]
    assert table.loc["Original model", "zsre locality"] == "/"


def test_the_papers_figure_stands_beside_ours_where_it_can(make):
    make("PaCKE", [1.0] * 100, model="llama3-8b", protocol="batch")
    runs = find_runs([make("MEMIT", [1.0] * 100, model="llama3-8b", protocol="batch")])
    table = main_table(tidy(runs), "easyedit").set_index("editor")
    assert table.loc["PaCKE", "zsre efficacy"].endswith(" [98.21]")
    assert table.loc["MEMIT", "zsre efficacy"].endswith(" [n/c]")  # of the other family in the paper
    assert main_table(tidy(runs), "rome").set_index("editor").loc["MEMIT", "zsre efficacy"].endswith(" [34.62]")
    assert "cannot stand beside ours" in markdown(runs)


def test_files(make, tmp_path):
    runs = make("PaCKE", [1.0, 0.5])
    text = write_report([runs], tmp_path / "out")
    assert (tmp_path / "out" / "report.md").read_text() == text
    frame = pd.read_csv(tmp_path / "out" / "report.csv")
    assert frame[(frame.editor == "PaCKE") & (frame.metric == "efficacy")]["mean"].tolist() == [0.75, 0.75]
    tex = latex(find_runs([runs]))
    assert r"\textbf{75.0 {\scriptsize $\pm$ 25.0}}" in tex
    assert r"\toprule" in tex


def test_nothing_to_report(tmp_path):
    with pytest.raises(BenchError, match="no folder"):
        find_runs([tmp_path / "absent"])
    with pytest.raises(BenchError, match="no run in"):
        find_runs([tmp_path])
