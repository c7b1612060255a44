"""Whatever an editor does to a model is seen, counted and undone."""

import pytest
import torch

from easyedit_packe.bench.weights import Weights

from ..conftest import assert_same_bits, make_model, snapshot


def test_changes_are_counted_and_undone():
    model = make_model("llama")
    before, weights = snapshot(model), Weights(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, :5] += 1
        model.lm_head.weight[0, 0] = 7
    model.lm_head.weight.requires_grad_(False)
    model.train()
    assert weights.count_changed() == 6
    kept = {n: p.clone() for n, p in weights.changed().items()}
    after = snapshot(model)
    weights.restore(model)
    assert_same_bits(model, before)
    assert weights.count_changed() == 0
    assert model.lm_head.weight.requires_grad
    assert not model.training
    weights.load(model, kept)
    assert_same_bits(model, after)


def test_an_adapter_left_inside_is_taken_out():
    peft = pytest.importorskip("peft")
    model = make_model("llama")
    before, weights = snapshot(model), Weights(model)
    modules = dict(model.named_modules())
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2))
    with torch.no_grad():
        modules["model.layers.0.self_attn.q_proj"].weight[0, 0] += 1
    assert dict(model.named_modules()).keys() != modules.keys()
    assert weights.count_changed() == 1
    weights.restore(model)
    assert dict(model.named_modules()) == modules
    assert_same_bits(model, before)
