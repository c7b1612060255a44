"""`packe importance`: the scores of the nodes that an edit of each fact would choose, resumable."""

import json

import pytest
import torch

from easyedit_packe import PaCKEHyperParams, compute_patch
from easyedit_packe.bench.data import DataError
from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.importance import importance, settings_of
from easyedit_packe.bench.store import StoreError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen
from easyedit_packe.model.load import load
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.tracing import trace
from easyedit_packe.requests import EditRequest, collate, encode

from .folders import read_rows
from .world import PACKE, SUBJECTS, TARGETS, hparams_file, make_world


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


def asked(world, **changes):
    values = {"model": world / "tiny", "data_dir": world, "hparams_file": hparams_file(world, "PaCKE"), "n": 2,
              "device": "cpu", "out": world / "runs"}  # fmt: skip
    return settings_of([f"{key}={value}" for key, value in (values | changes).items()])


def test_scores_are_those_of_the_nodes_that_an_edit_changes(found, world):
    """The first fact by hand: its trace, and the nodes of its patch, T- aside."""
    folder = importance(asked(world))
    assert folder == world / "runs" / "tiny" / "zsre_mend_eval" / "importance" / "PaCKE"
    row, _ = read_rows(folder / "nodes.jsonl")
    model, tok = load(str(world / "tiny"))
    request = EditRequest(f"Who wrote {SUBJECTS[0]}", TARGETS[0], SUBJECTS[0])
    ffn, batch = FFNMap.of(model), collate(encode(tok, [request]), model.device)
    with frozen(model):
        scores = trace(ffn, [lambda: token_losses(answer_logits(model, batch), batch.targets).mean()], "zscore")
    asked_for = [{"prompt": request.prompt, "target_new": request.target, "subject": request.subject}]
    patch = compute_patch(model, tok, asked_for, PaCKEHyperParams(**PACKE, num_negative_paths=0, contrast_weight=0))
    for kind in ("key", "value"):
        modules = [m for m in ffn.modules if m.kind == kind]
        assert [len(of) for of in row[kind]] == [PACKE["num_critical_paths"]] * len(modules)
        for m, got in zip(modules, row[kind], strict=True):
            chosen = scores[m.name][patch.slices[f"{m.name}.weight"].index]
            assert got == pytest.approx(torch.sort(chosen, descending=True).values.tolist(), rel=1e-3)


def test_it_goes_on_where_it_stopped_and_knows_what_it_scored(found, world):
    folder = importance(asked(world))
    file = folder / "nodes.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole.splitlines(keepends=True)[0][:-9])  # killed while it wrote
    importance(asked(world))
    assert file.read_bytes() == whole
    importance(asked(world, n=3))
    assert file.read_bytes().startswith(whole)
    assert [row["case_id"] for row in read_rows(file)] == [0, 1, 2]
    about = json.loads((folder / "run.json").read_text())
    assert (about["num_records"], about["tracing"]["hparams"]) == (3, {"num_critical_paths": 3, "score": "zscore"})
    with pytest.raises(StoreError, match=r"scores of something else.*label=NAME"):
        importance(asked(world, **{"+hparams.score": "gradient_norm"}))
    other = importance(asked(world, **{"hparams.score": "gradient_norm", "label": "norm"}))
    assert other.name == "PaCKE-norm"
    assert importance(asked(world, start=1)).name == "PaCKE-from1"


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"protocol": "batch"}, BenchError, "unknown setting 'protocol'; known: model, data"),
    ({"N": 3}, BenchError, "unknown setting 'N'; did you mean 'n'"),
    ({"n": "x"}, BenchError, "n: Value 'x'"),
    ({"data": "zsree"}, BenchError, "did you mean 'zsre'"),
    ({"data_dir": "nowhere"}, DataError, "nowhere is no file"),
])  # fmt: skip
def test_wrong_settings_name_the_remedy(world, changes, error, message):
    with pytest.raises(error, match=message):
        asked(world, **changes)


def test_a_subject_that_the_prompt_lacks_is_none(found, world):
    file = world / "zsre_mend_eval.json"
    records = json.loads(file.read_text())
    file.write_text(json.dumps([{**records[0], "subject": "somebody"}]))
    assert len(read_rows(importance(asked(world, n=1)) / "nodes.jsonl")) == 1


def test_no_nodes_have_no_scores(found, world):
    with pytest.raises(BenchError, match="expected at least 1, got 0"):
        importance(asked(world, **{"hparams.num_critical_paths": 0}))
