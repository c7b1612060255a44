"""What is made once of a model and kept in the cache."""

import dataclasses
import time

import pytest
import torch

from easyedit_packe import PaCKEPlusHyperParams
from easyedit_packe.model import kept
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.plus import background
from easyedit_packe.plus.background import Background
from easyedit_packe.plus.layers import in_layers
from easyedit_packe.plus.moments import InputMoments

from ..conftest import make_model, make_tokenizer
from ..meta_models import smollm2_135m
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


def test_what_the_default_model_sees_is_not_large_beside_it(monkeypatch):
    """Else each process would make it anew, which takes ten times as long as an edit."""
    model, size = smollm2_135m(monkeypatch)
    seen = InputMoments()
    for m in in_layers(FFNMap.of(model), PaCKEPlusHyperParams.from_hparams("smollm2-135m")).modules:
        seen.add(m, torch.zeros(1, m.weight.shape[1]))
    assert sum(t.nbytes for t in seen.tensors().values()) < kept.LARGEST * size


def test_a_cache_that_cannot_be_written_does_not_stop_an_edit(own_cache, monkeypatch):
    (own_cache / "file").touch()
    monkeypatch.setattr(kept, "cache_dir", lambda: own_cache / "file")
    assert prepared(make_model("llama")).usual


def test_a_file_that_is_not_whole_is_made_anew(monkeypatch, own_cache):
    monkeypatch.setattr(kept, "LARGEST", 1000.0)
    model = make_model("llama")
    first = prepared(model)
    for file in own_cache.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    assert same(first, prepared(model))
    assert same(first, prepared(model))  # from whole files again


def test_a_disk_that_is_full_does_not_stop_an_edit(monkeypatch, own_cache):
    def full(*_):
        raise kept.SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(kept, "LARGEST", 1000.0)
    monkeypatch.setattr(kept, "save_file", full)
    assert prepared(make_model("llama")).usual
    assert not list(own_cache.rglob("*.*safetensors*"))


def test_a_model_that_computes_otherwise_with_the_same_weights_has_its_own(monkeypatch, own_cache):
    monkeypatch.setattr(kept, "LARGEST", 1000.0)
    first = prepared(make_model("llama"))
    assert not same(first, prepared(make_model("llama", rms_norm_eps=0.5)))


def test_each_setting_has_its_own_and_layers_are_measured_once(monkeypatch):
    monkeypatch.setattr(kept, "LARGEST", 1000.0)
    model, tok, every = make_model("llama"), make_tokenizer(), FFNMap.of(make_model("llama"))
    found, counted = Background(), []
    count = background.InputMoments.count
    monkeypatch.setattr(background.InputMoments, "count", lambda *a, **k: counted.append(0) or count(*a, **k))

    def prepare(layer, **changes):
        hp = dataclasses.replace(HP, layers=[layer], **changes)
        found.prepare(model, tok, in_layers(FFNMap.of(model), hp), hp)
        alone = Background()
        alone.prepare(model, tok, in_layers(FFNMap.of(model), hp), hp)
        name = every.modules[2 * layer].name
        for kind in ("usual", "elsewhere"):
            mine, its = getattr(found, kind), getattr(alone, kind)
            assert torch.equal(mine.sums[name], its.sums[name])
        assert torch.equal(found.outputs[name], alone.outputs[name])
        return len(counted)

    prepare(0)
    once = prepare(1)
    assert once == prepare(0) == prepare(1)
    assert set(found.usual.counts) == {m.name for m in every.modules if m.layer < 2}
    before = found.usual.sums[every.modules[0].name]
    prepare(0, write_at="all")
    prepare(0, seed=7)
    assert not torch.equal(before, found.usual.sums[every.modules[0].name])


@pytest.mark.parametrize(
    ("kind", "made_by", "changes"),
    [
        ("texts", "sample_texts", {"seed": 7}),
        ("outputs", "output_moments", {"seed": 7}),
        ("elsewhere", "elsewhere", {"orders": 2}),
    ],
)
def test_what_an_interrupted_change_of_settings_leaves_is_made_again(monkeypatch, kind, made_by, changes):
    model, tok, other = make_model("llama"), make_tokenizer(), dataclasses.replace(HP, **changes)
    found, ffn = prepared(model), FFNMap.of(model)
    with monkeypatch.context() as patch:
        patch.setattr(background, made_by, raises(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            found.prepare(model, tok, ffn, other)
    found.prepare(model, tok, ffn, other)
    fresh = Background()
    fresh.prepare(model, tok, ffn, other)
    assert same(found, fresh)
    assert not same(found, prepared(model))


def raises(error):
    def call(*_, **__):
        raise error

    return call


def test_what_was_needed_last_stays(monkeypatch, own_cache):
    monkeypatch.setattr(kept, "LARGEST", 1000.0)
    monkeypatch.setattr(kept, "MOST", 2)
    cached = kept.Kept(make_model("llama"), make_tokenizer())
    made = []

    def get(i):
        def make():
            made.append(i)
            return {"t": torch.tensor([i])}

        assert cached.get("kind", [i], make)["t"] == i
        time.sleep(0.02)

    for i in (1, 2, 1, 3, 1, 2):
        get(i)
    assert made == [1, 2, 3, 2]
    assert len(list((own_cache / "kind").iterdir())) == 2
