"""What a report must not hide: missing, mixed, repeated and refused rows, and where they were made."""

import json
import random
import re
import subprocess
import sys

import pytest

from easyedit_packe.bench.archive import pack
from easyedit_packe.bench.report import cost_table, curve_table, find_runs, latex, markdown, one_line, tidy
from easyedit_packe.errors import MissingPackageError

from .folders import read_rows, write_rows, write_run, write_unedited


def efficacies(runs):
    """Editor -> mean and n, by EasyEdit's metrics."""
    frame = tidy(runs)
    part = frame[(frame.metric == "efficacy") & (frame.family == "easyedit")]
    return {r.editor: (r.mean, r.n) for r in part.itertuples()}


def test_a_run_without_rows_empties_no_table(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 0.0])
    write_run(tmp_path, "ROME", [], n=2)
    runs = find_runs([tmp_path])
    assert efficacies(runs) == {"Original model": (pytest.approx(0.1), 2), "PaCKE": (0.5, 2)}
    assert "- ROME, zsre: no record of 2 measured yet; not in the tables." in markdown(runs)


def test_only_runs_without_rows(tmp_path):
    write_run(tmp_path, "ROME", [], n=2)
    text = markdown(find_runs([tmp_path]))
    assert "no record of 2 measured yet" in text
    assert "| " not in text


def test_rows_stand_together_on_common_records_and_the_few_are_named(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 1.0, 0.0, 0.0])
    write_run(tmp_path, "KN", [1.0, 1.0, 0.0, 0.0])
    write_run(tmp_path, "ROME", [0.0, 1.0])
    runs = find_runs([tmp_path])
    assert efficacies(runs)["PaCKE"] == (1.0, 2)
    text = markdown(runs)
    assert "**Only 2 of 4 measured records stand in the tables of zsre**" in text
    assert "not all have been measured for ROME (2)." in text
    assert "Rows with different n are NOT comparable" in text
    assert "| PaCKE    |        4 |" in text


def test_no_warning_where_all_records_are_shared(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 1.0])
    write_run(tmp_path, "ROME", [0.0, 1.0])
    text = markdown(find_runs([tmp_path]))
    assert "Only" not in text
    assert "NOT comparable" not in text


def test_runs_over_parts_of_the_records_count_together(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 0.0, 1.0, 1.0])
    write_run(tmp_path, "ROME", [1.0, 0.0])
    write_run(tmp_path, "ROME", [1.0, 0.0], first=2)
    runs = find_runs([tmp_path])
    assert efficacies(runs)["ROME"] == (0.5, 4)
    assert "Only" not in markdown(runs)


def test_without_the_unedited_model(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0])
    for file in (folder.parents[1] / "unedited").iterdir():
        file.unlink()
    runs = find_runs([tmp_path])
    assert efficacies(runs) == {"PaCKE": (1.0, 1)}
    assert cost_table(runs)["perplexity ratio"].tolist() == ["?"]
    assert "- PaCKE, zsre: the unedited model was not measured; no perplexity ratio." in markdown(runs)


def test_the_unedited_models_row_with_generation_counts(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0])
    file = folder.parents[1] / "unedited" / "cases.jsonl"
    (row,) = [r for r in read_rows(file) if r["case_id"] == 0]
    said = {**row, "generation_measured": True, "generation": {"efficacy": 1.0, "generality": 0.0}}
    for rows in ([row, said], [said, row]):
        write_rows(file, rows)
        (run,) = find_runs([tmp_path])
        assert run.unedited == {0: {k: said[k] for k in said}}


def test_unfinished_and_refused_are_said(tmp_path):
    write_run(tmp_path, "ROME", [1.0, 0.0], refused={"0": "ValueError: no subject"})
    write_run(tmp_path, "MEMIT", [1.0, 1.0], protocol="consecutive", n=5)
    write_run(tmp_path, "KN", [1.0], n=2)
    text = markdown(find_runs([tmp_path]))
    assert "- MEMIT, zsre: unfinished, 2 of 5 records measured; not in the tables." in text
    assert "- KN, zsre: unfinished, 1 of 2 records measured.\n" in text
    assert "- ROME, zsre: record 0 refused (ValueError: no subject); measured unedited." in text
    assert "1 of 2" in text


def test_every_environment_is_named_with_its_editors(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0])
    write_run(tmp_path, "ROME", [1.0], environment={"commit": "def", "versions": {"torch": "3"}})
    write_run(tmp_path, "ROME", [1.0], data="counterfact", environment={"versions": {"torch": "3"}})
    text = markdown(find_runs([tmp_path]))
    assert "EasyEdit 0; Python 3.11; machine 2 CPU cores, 1 thread; seed 1.\n" in text
    assert "- torch: 2 (Original model, PaCKE); 3 (ROME).\n" in text
    assert "- commit: abc (ROME on counterfact, PaCKE); def (ROME on zsre); unedited (Original model).\n" in text


def test_a_resumed_run_names_both_its_environments(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0, 1.0])
    about = json.loads((folder / "run.json").read_text())
    about["environments"]["later"] = {**about["environments"]["e-abc"], "commit": "xyz"}
    about["environments"]["idle"] = {**about["environments"]["e-abc"], "commit": "no row is from here"}
    (folder / "run.json").write_text(json.dumps(about))
    rows = read_rows(folder / "cases.jsonl")
    rows[1]["environment"] = "later"
    write_rows(folder / "cases.jsonl", rows)
    text = markdown(find_runs([tmp_path]))
    assert "- commit: abc (PaCKE); unedited (Original model); xyz (PaCKE).\n" in text


def test_what_no_row_recorded_is_said(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0], environment={"commit": None})
    write_run(tmp_path, "KN", [1.0], environment={"commit": "abc", "versions": {}})
    text = markdown(find_runs([tmp_path]))
    assert "- torch: 2 (Original model, PaCKE); not recorded (KN).\n" in text
    assert "not recorded (PaCKE)" in text


def test_data_files_of_one_name_do_not_mix(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 1.0], file="zsre_dev")
    write_run(tmp_path, "ROME", [0.0, 0.0], file="zsre_test")
    write_run(tmp_path, "ROME", [0.5], data="counterfact")
    assert set(tidy(find_runs([tmp_path])).data) == {"zsre_dev@zsre_d", "zsre_test@zsre_t", "counterfact"}


def test_models_of_one_name_do_not_mix(tmp_path):
    write_run(tmp_path / "a", "PaCKE", [1.0], model_sha256="1234567")
    write_run(tmp_path / "b", "ROME", [0.0], model_sha256="abcdefg")
    runs = find_runs([tmp_path / "a", tmp_path / "b"])
    assert {run.model for run in runs} == {"m@123456", "m@abcdef"}
    assert "## m@123456, single" in markdown(runs)


def test_a_run_found_twice_counts_once(tmp_path):
    write_run(tmp_path / "a", "PaCKE", [1.0])
    write_run(tmp_path / "b", "PaCKE", [1.0, 0.0])
    runs = find_runs([tmp_path / "a", tmp_path / "b", tmp_path / "b" / "m"])
    assert efficacies(runs)["PaCKE"] == (0.5, 2)
    assert "- PaCKE, zsre: found 3 times; the one with most rows counts." in markdown(runs)


def test_runs_averaged_although_their_settings_differ_are_named(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0], hparams={"lr": 1, "seed": 1})
    write_run(tmp_path, "PaCKE", [1.0], seed=2, hparams={"lr": 1, "seed": 2})
    assert "averaged" not in markdown(find_runs([tmp_path]))
    write_run(tmp_path, "PaCKE", [1.0], seed=3, hparams={"lr": 2})
    text = markdown(find_runs([tmp_path]))
    assert "- PaCKE, zsre: 3 runs that differ in lr are averaged; give each a label=." in text


def test_runs_that_end_their_answers_differently_are_named(tmp_path):
    write_run(tmp_path / "a", "MEMIT", [1.0])
    write_run(tmp_path / "b", "MEMIT", [0.0], answer_end=".")
    assert "2 runs that differ in answer_end are averaged" in markdown(find_runs([tmp_path]))


def changed(folder, change):
    cases = read_rows(folder / "cases.jsonl")
    for case in cases:
        change(case["easyedit"], case["case_id"])
    write_rows(folder / "cases.jsonl", cases)


def test_each_column_says_on_how_few_records_it_rests(tmp_path):
    """The first record has no paraphrase, the second nothing that must stay: neither the report nor the line that ends
    a run may take the first record's columns for all."""
    lacks = {0: "generality", 1: "locality"}
    folder = write_run(tmp_path, "PaCKE", [1.0, 1.0, 1.0], protocol="consecutive")
    changed(folder, lambda figures, case: figures.pop(lacks.get(case), None))
    (run,) = find_runs([tmp_path])
    line = next(row for row in markdown([run]).splitlines() if row.startswith("| PaCKE"))
    assert [cell.strip(" *") for cell in line.split("|")[2:-1]] == [
        "3", "100.0 ± 0.0", "25.0 ± 0.0 (n = 2)", "50.0 ± 0.0 (n = 2)", "65.3",
    ]  # fmt: skip
    assert "efficacy 1.000, locality 0.250, generality 0.500, n = 3" in one_line(folder)


def test_what_rests_on_fewer_records_is_not_called_the_best(tmp_path):
    few = write_run(tmp_path, "ROME", [1.0, 1.0])
    changed(few, lambda figures, case: figures.update(generality=1.0) if case else figures.pop("generality"))
    write_run(tmp_path, "PaCKE", [1.0, 1.0])
    text = markdown(find_runs([tmp_path]))
    assert re.search(r"\| ROME .* 100\.0 \(n = 1\) ", text)
    assert re.search(r"\| PaCKE .* \*\*50\.0 ± 0\.0\*\* ", text)


def test_portability_counts_records_with_one_kind_of_question(tmp_path):
    def asked(figures, case):
        figures |= {"portability_Reasoning": 0.0} | ({"portability_Logical": 1.0} if case == 0 else {})

    changed(write_run(tmp_path / "two", "PaCKE", [1.0] * 4), asked)
    changed(write_run(tmp_path / "one", "ROME", [1.0]), lambda figures, _: figures.update(portability_hop=1.0))
    found = {}
    for folder in ("two", "one"):
        frame = tidy(find_runs([tmp_path / folder]))
        part = frame[(frame.family == "portability") & (frame.editor != "Original model")]
        found[folder] = {row.metric: (row.mean, row.n) for row in part.itertuples()}
    assert found == {"two": {"Reasoning": (0.0, 4), "Logical": (1.0, 1), "mean": (0.125, 4)}, "one": {"hop": (1.0, 1)}}


def test_a_curve_of_records_that_lack_a_metric(tmp_path):
    folder = write_run(tmp_path, "PaCKE", [1.0, 1.0], protocol="consecutive")
    changed(folder, lambda figures, _: figures.pop("locality"))
    cases = read_rows(folder / "cases.jsonl")
    write_rows(folder / "cases.jsonl", [{**cases[0], "after": 1, "call": 0}, *cases])
    assert curve_table(find_runs([tmp_path]))["locality"].tolist() == ["/", "/"]


def test_what_was_refused_is_not_among_the_costs(tmp_path):
    folder = write_run(tmp_path, "ROME", [1.0] * 3, refused={"0": "why"})
    calls = read_rows(folder / "edits.jsonl")
    calls[0] |= {"seconds": 0.0, "memory_bytes": 0, "weights_changed": 0}
    calls[1] |= {"seconds": 0.0, "memory_bytes": 0, "weights_changed": 0, "refused": {"1": "why"}}
    write_rows(folder / "edits.jsonl", calls)
    (row,) = cost_table(find_runs([tmp_path])).to_dict("records")
    shown = (row["seconds / edit"], row["peak MB"], row["weights changed"], row["refused"])
    assert shown == ("2.00", "5", "7", "2 of 3")


def test_calls_that_differ_are_other_settings(tmp_path):
    for editor, n in (("PaCKE", 5), ("ROME", 6)):
        write_run(tmp_path, editor, [1.0] * n, protocol="batch", batch_size=3)
    write_run(tmp_path, "PaCKE", [1.0] * 2, protocol="consecutive", first=2)
    write_run(tmp_path, "ROME", [1.0] * 3, protocol="batch", batch_size=3, first=2)
    settings = {run.setting for run in find_runs([tmp_path])}
    assert settings == {
        "batch of 3, the last of 2", "batch of 3", "batch of 3 from record 2 on",
        "consecutive, 2 edits from record 2 on",
    }  # fmt: skip


def test_names_of_the_users_are_escaped_in_latex(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0], label="50%_off", data="zsre", file="a_b")
    write_run(tmp_path, "ROME", [1.0], data="counterfact")
    text = latex(find_runs([tmp_path]))
    assert r"PaCKE (50\%\_off)" in text
    write_run(tmp_path, "KN", [1.0], label="a|b")
    assert r"KN (a\|b)" in markdown(find_runs([tmp_path]))
    assert "($n = /$)" not in text
    changed(
        write_run(tmp_path / "two", "PaCKE", [1.0]), lambda figures, _: figures.update({"portability_Two Hops": 1.0})
    )
    assert "Two Hops" in latex(find_runs([tmp_path / "two"]))


def test_the_order_in_the_files_makes_no_difference(tmp_path):
    chance = random.Random(0)
    for editor in ("PaCKE", "ROME", "KN"):
        for data in ("zsre", "counterfact"):
            for seed in (1, 2):
                values = [chance.random() for _ in range(7)]
                write_run(tmp_path, editor, values, data=data, seed=seed, refused={"3": "b", "1": "a"})
    write_unedited(tmp_path / "m" / "zsre" / "unedited", records=5)

    def report(paths):
        runs = find_runs(paths)
        return markdown(runs), latex(runs), tidy(runs).to_csv(index=False)

    before = report([tmp_path])
    for file in tmp_path.rglob("*.jsonl"):
        rows = read_rows(file)
        chance.shuffle(rows)
        write_rows(file, rows)
    folders = sorted((tmp_path / "m").glob("*/single/*"), reverse=True)
    assert report([tmp_path]) == before
    assert report(folders) == before
    pack(tmp_path, tmp_path / "archive" / "study.jsonl.zst")
    assert report([tmp_path / "archive"]) == before


@pytest.mark.parametrize("package", ["pandas", "tabulate"])
def test_without_the_extra(tmp_path, monkeypatch, package):
    folder = write_run(tmp_path, "PaCKE", [1.0])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=r'pip install "easyedit-packe\[bench\]"'):
        markdown(find_runs([tmp_path]))
    assert one_line(folder).startswith("PaCKE zsre single: efficacy 1.000")


def test_importing_the_report_needs_no_extra():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('pandas', 'tabulate', 'zstandard', 'jinja2')));"
        "import easyedit_packe.bench.report, easyedit_packe.bench.archive"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
