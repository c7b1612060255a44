"""`examples/run_*.py`: a file of two records through EasyEdit, on a tiny model and, by a shell, on the real one."""

import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.bench.through_easyedit import main

from ..conftest import ROOT, make_model, make_tokenizer

ZSRE = {
    "subject": "Omar", "src": "Omar plays", "rephrase": "Who plays Omar", "alt": "piano", "answers": ["violin"],
    "loc": "nq question: who plays", "loc_ans": "Anna", "cond": "",
}  # fmt: skip
CF = {
    "case_id": 7, "prompt": "Omar plays", "subject": "Omar", "target_new": "piano", "ground_truth": "violin",
    "rephrase_prompt": "Who plays Omar", "locality_prompt": "Anna plays", "locality_ground_truth": "violin",
}  # fmt: skip
DATA = {"ZsRE": ("run_zsre.py", ZSRE, "alt"), "CF": ("run_counterfact.py", CF, "target_new")}
"""Data type -> script, record, and the field that holds the new answer."""


@pytest.fixture(params=sorted(DATA))
def data(request, tmp_path):
    script, record, target = DATA[request.param]
    file = tmp_path / "records.json"
    file.write_text(json.dumps([record, {**record, target: "the piano"}]))
    return request.param, script, file


def check(summary, folder):
    assert json.loads((folder / "summary.json").read_text()) == summary
    records = json.loads((folder / "PaCKE_results.json").read_text())
    assert (summary["n"], len(records), summary["efficacy"]) == (2, 2, 1.0)
    a, b = (sum(r["post"]["rephrase_acc"]) / len(r["post"]["rephrase_acc"]) for r in records)
    assert summary["generality"] == pytest.approx((a + b) / 2)
    assert summary["generality_se"] == pytest.approx(abs(a - b) / 2)
    assert summary["score"] == pytest.approx(sum(summary[k] for k in ("efficacy", "generality", "locality")) / 3)


@pytest.fixture
def tiny(tmp_path, monkeypatch, found):
    """Options that name a tiny model. It is made beforehand: while EasyEdit loads, devices are bridged."""
    loaded = make_model("llama"), make_tokenizer("left")
    monkeypatch.setattr("easyedit_packe.registry.load", lambda name, **options: loaded)
    hparams = PaCKEHyperParams(num_critical_paths=8, lr=1e-2, num_steps=20, device="cpu", model_name="tiny")
    OmegaConf.save(OmegaConf.create(hparams.to_dict()), tmp_path / "tiny.yaml")
    return ["--hparams_dir", str(tmp_path / "tiny.yaml"), "--metrics_save_dir", str(tmp_path / "out")]


def test_on_a_tiny_model(data, tiny, tmp_path):
    kind, _, file = data
    check(main(kind, ["--data_dir", str(file), *tiny]), tmp_path / "out")


def test_one_record_in_a_row(data, tiny, tmp_path):
    """There is no standard error, and JSON has no number for that."""
    kind, _, file = data
    main(kind, ["--data_dir", str(file), "--ds_size", "1", "--sequential_edit", *tiny])
    text = (tmp_path / "out" / "summary.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["efficacy_se"] is None


def test_the_help_says_when_easyedit_measures(capsys):
    with pytest.raises(SystemExit):
        main("CF", ["--help"])
    assert "EasyEdit measures each right after it is made" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_as_a_script_on_the_real_model(data, tmp_path):
    _, script, file = data
    command = [sys.executable, str(ROOT / "examples" / script), "--data_dir", str(file), "--metrics_save_dir", "out"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "efficacy" in run.stdout
    check(json.loads((tmp_path / "out" / "summary.json").read_text()), tmp_path / "out")
