"""What is made once of a model and kept in the cache."""

import pytest
import torch

from easyedit_packe import PaCKEPlusHyperParams
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.plus import background, kept
from easyedit_packe.plus.background import Background

from ..conftest import make_model, make_tokenizer
from .common import ALL

HP = PaCKEPlusHyperParams(**{**ALL, "elsewhere": 1.0, "outputs": 1.0})


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(background, "TEXTS", 4)
    return tmp_path


def prepared(model, ffn=None) -> Background:
    found = Background()
    found.prepare(model, make_tokenizer(), ffn or FFNMap.of(model), HP)
    return found


def same(a: Background, b: Background) -> bool:
    mine, other = a.tensors(), b.tensors()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


def test_a_second_process_runs_nothing_and_has_the_same_bits(monkeypatch):
    model = make_model("llama")
    monkeypatch.setattr(kept, "LARGEST", 1000.0)  # a tiny model's background is larger than the model
    first, ffn = prepared(model), FFNMap.of(model)
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model was run"))
        patch.setattr(type(model.base_model), "forward", lambda *_, **__: pytest.fail("the model was run"))
        assert same(first, prepared(model, ffn))


def test_it_is_that_of_the_very_weights(monkeypatch, own_cache):
    model = make_model("llama")
    monkeypatch.setattr(kept, "LARGEST", 1000.0)
    first = prepared(model)
    model.model.layers[1].mlp.up_proj.weight.data[3] += 1e-1
    assert not same(first, prepared(model))
    assert len(list(own_cache.rglob("*.safetensors"))) == 8  # texts, usual inputs, outputs and elsewhere, of both


def test_what_is_large_beside_the_model_is_not_written(monkeypatch, own_cache):
    monkeypatch.setattr(kept, "LARGEST", 0.0)
    model = make_model("llama")
    assert same(prepared(model), prepared(model))
    assert not list(own_cache.rglob("*.safetensors"))


def test_a_cache_that_cannot_be_written_does_not_stop_an_edit(own_cache, monkeypatch):
    (own_cache / "file").touch()
    monkeypatch.setattr(kept, "cache_dir", lambda: own_cache / "file")
    assert prepared(make_model("llama")).moments
