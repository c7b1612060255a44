"""Data files in all three formats, and the summary's arithmetic by hand."""

import json

import pytest

from easyedit_packe.bench.data import Probe, Record
from easyedit_packe.bench.through_easyedit import edit_arguments, main, names_of, summarise

from ..conftest import SHARED, needs_shared


def test_summary_by_hand():
    metrics = [
        {"post": {"rewrite_acc": [1.0], "rephrase_acc": [0.5], "locality": {"neighborhood_acc": [1.0]}}},
        {
            "post": {
                "rewrite_acc": [0.5],
                "rephrase_acc": [0.0],
                "locality": {"neighborhood_acc": [0.0], "x_output": [[1]]},
            }
        },
    ]
    s = summarise(metrics, seconds=3.0, easyedit="EasyEdit x")
    assert (s["efficacy"], s["generality"], s["locality"]) == (0.75, 0.25, 0.5)
    assert s["score"] == pytest.approx(0.5)
    assert s["efficacy_se"] == pytest.approx(0.25)
    assert (s["n"], s["seconds_per_edit"], s["easyedit"]) == (2, 1.5, "EasyEdit x")


def test_kinds_of_one_record_are_no_further_records():
    once = [{"post": {"rewrite_acc": [1.0], "locality": {"a_acc": [share]}}} for share in (0.0, 1.0, 1.0)]
    twice = [
        {"post": {**m["post"], "locality": m["post"]["locality"] | {"b_acc": m["post"]["locality"]["a_acc"]}}}
        for m in once
    ]
    first, second = (summarise(metrics, seconds=1.0, easyedit="EasyEdit x") for metrics in (once, twice))
    assert first["locality_se"] == second["locality_se"] == pytest.approx(1 / 3)


def test_a_question_without_a_known_answer_is_not_asked_of_easyedit():
    """It measures by the answer's tokens."""
    probes = {"locality": (Probe("What does Anna play?", ()),), "hop": (Probe("Who?", ("Ivo",)), Probe("What?", ()))}
    asked = edit_arguments(Record(1, "Who wrote Omar", "Omar", "Ivo", "", localities=probes))["locality_inputs"]
    assert asked == {"hop": {"prompt": [["Who?"]], "ground_truth": [["Ivo"]]}}


@pytest.mark.parametrize("name", ["FT-C", "FT", "UltraEdit", "ULTRAEDIT", "ROME", "PaCKE+", "MEND"])
def test_an_editor_goes_by_its_name_in_the_tables_and_by_easyedits(name):
    known = {"FT": ("FT-C", "FT"), "FT-C": ("FT-C", "FT")}
    known |= dict.fromkeys(("UltraEdit", "ULTRAEDIT"), ("UltraEdit", "ULTRAEDIT"))
    assert names_of(name) == known.get(name, (name, name))


def test_one_record_has_no_standard_error():
    metrics = [{"post": {"rewrite_acc": [1.0], "locality": {"neighborhood_acc": [0.5]}}}]
    s = json.loads(json.dumps(summarise(metrics, seconds=3.0, easyedit="EasyEdit x"), allow_nan=False))
    assert (s["efficacy"], s["generality"], s["locality"], s["score"]) == (1.0, None, 0.5, None)
    assert [s[f"{k}_se"] for k in ("efficacy", "generality", "locality")] == [None] * 3


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize(
    ("kind", "file"), [("ZsRE", "zsre/zsre_dev_1k.json"), ("CF", "counterfact/counterfact_dev_1k.json")]
)
def test_the_run_scripts_on_the_real_model(kind, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    summary = main(kind, ["--data_dir", str(SHARED / "data" / file), "--ds_size", "2", "--metrics_save_dir", "out"])
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert summary.keys() >= {"efficacy", "generality", "locality", "score", "n", "seconds_per_edit", "easyedit"}
    assert summary["efficacy"] == 1.0
    assert summary["n"] == len(json.loads((tmp_path / "out" / "PaCKE_results.json").read_text())) == 2
    assert "efficacy" in capsys.readouterr().out
