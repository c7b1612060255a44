"""Data files in all three formats, and the summary's arithmetic by hand."""

import json

import pytest

from easyedit_packe.bench.data import DataError, read_records
from easyedit_packe.bench.through_easyedit import main, summarise

from ..conftest import SHARED, needs_shared

ZSRE = {
    "subject": "Grey Tides", "src": "Who wrote Grey Tides?", "rephrase": "Grey Tides is by whom?", "alt": "Ivo Marsh",
    "answers": ["Anna Berg"], "loc": "nq question: who plays", "loc_ans": "Omar", "cond": "",
}  # fmt: skip
CF = {
    "case_id": 7, "prompt": "Omar plays the", "subject": "Omar", "target_new": "piano", "ground_truth": "violin",
    "rephrase_prompt": "Omar is good at the", "locality_prompt": "Anna plays the", "locality_ground_truth": "violin",
}  # fmt: skip
MCF = {
    "case_id": 9,
    "requested_rewrite": {
        "prompt": "{} plays the", "subject": "Omar", "target_new": {"str": "piano"}, "target_true": {"str": "violin"},
    },
    "paraphrase_prompts": ["Omar is good at the", "other"],
    "neighborhood_prompts": ["Anna plays the", "other"],
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(name, records):
        (tmp_path / name).write_text(json.dumps(records))
        return tmp_path

    return write


def test_zsre_skips_empty_targets_and_keeps_subjects(write):
    folder = write("zsre_mend_eval.json", [{**ZSRE, "alt": ""}, ZSRE])
    (record,) = read_records(folder, "ZsRE")
    assert (record.case_id, record.subject, record.target_new) == (1, "Grey Tides", "Ivo Marsh")
    assert (record.ground_truth, record.locality_prompt) == ("Anna Berg", "nq question: who plays")


def test_counterfact_in_both_formats(write):
    folder = write("counterfact-edit.json", [CF])
    (cf,) = read_records(folder / "counterfact-edit.json", "CF")
    write("counterfact.json", [MCF, MCF])
    (mcf,) = read_records(folder, "MCF", 1)
    assert (cf.case_id, mcf.case_id) == (7, 9)
    for field in ("prompt", "subject", "target_new", "ground_truth", "rephrase_prompt", "locality_prompt"):
        assert getattr(cf, field) == getattr(mcf, field)


def test_wrong_files(write, tmp_path):
    folder = write("zsre_mend_eval.json", [CF])
    with pytest.raises(DataError, match="is not a ZsRE file"):
        read_records(folder, "ZsRE")
    with pytest.raises(DataError, match=r"holds none of counterfact-edit\.json"):
        read_records(folder, "CF")
    with pytest.raises(DataError, match="did you mean 'ZsRE'"):
        read_records(folder, "zsre")
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(DataError, match="is not a CF file"):
        read_records(tmp_path / "broken.json", "CF")
    with pytest.raises(DataError, match="no record"):
        read_records(write("zsre_mend_eval.json", []), "ZsRE")


@needs_shared
@pytest.mark.parametrize(
    ("file", "kind", "n"),
    [("zsre/zsre_paper_3k.json", "ZsRE", 2989), ("counterfact/counterfact_paper_3k.json", "CF", 3000)],
)
def test_the_real_files(file, kind, n):
    assert len(read_records(SHARED / "data" / file, kind)) == n


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
