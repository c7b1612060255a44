"""`apply_packe_to_model` keeps EasyEdit's contract and leaves everything else as it was."""

import copy
import dataclasses
import random

import numpy as np
import pytest
import torch

import easyedit_packe.packe.rectify
from easyedit_packe import (
    OriginalWeights,
    PaCKEHyperParams,
    PaCKEPlusHyperParams,
    WeightPatch,
    apply_packe_to_model,
    compute_patch,
)
from easyedit_packe.editor import record_patches
from easyedit_packe.errors import HyperParamsError, ModelError, RequestError
from easyedit_packe.model.bits import same_bits

from .conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from .test_requests import ending

HP = PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=6)
PLUS = PaCKEPlusHyperParams(num_critical_paths=4, num_steps=3, subject_contexts=2)


def easyedit_restore(model, weights_copy):
    """How EasyEdit takes an edit back."""
    with torch.no_grad():
        for name, value in weights_copy.items():
            model.get_parameter(name)[...] = value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["easyedit", "restore", "revert"])
def test_restore_is_bit_exact(architecture, dtype, how):
    model = make_model(architecture, dtype)
    model.get_input_embeddings().weight.data[0, 0] = -0.0
    before = snapshot(model)
    edited, weights_copy = apply_packe_to_model(model, make_tokenizer(), REQUESTS, HP, return_orig_weights=True)
    assert edited is model
    assert isinstance(weights_copy, OriginalWeights)
    changed = {n for n, p in model.state_dict().items() if not same_bits(p, before[n])}
    assert changed
    assert changed <= set(weights_copy)
    if how == "easyedit":
        easyedit_restore(model, weights_copy)
    elif how == "restore":
        weights_copy.restore()
    else:
        weights_copy.patch.revert(model)
    assert_same_bits(model, before)


def test_originals_hold_only_slices_until_asked():
    model = make_model("llama")
    before = snapshot(model)
    _, weights_copy = apply_packe_to_model(model, make_tokenizer(), REQUESTS, HP, return_orig_weights=True)
    held = sum(s.old.numel() for s in weights_copy.patch.slices.values())
    assert held == weights_copy.patch.num_weights < sum(before[n].numel() for n in weights_copy) / 2
    for name in weights_copy:
        assert same_bits(weights_copy[name], before[name])
    with pytest.raises(KeyError):
        weights_copy["model.embed_tokens.weight"]


def test_without_originals_the_mapping_is_empty():
    assert apply_packe_to_model(make_model("llama"), make_tokenizer(), REQUESTS, HP)[1] == {}


def test_copy_leaves_the_model_alone(architecture):
    model = make_model(architecture)
    before = snapshot(model)
    edited, weights_copy = apply_packe_to_model(
        model, make_tokenizer(), REQUESTS, HP, copy=True, return_orig_weights=True
    )
    assert edited is not model
    assert_same_bits(model, before)
    easyedit_restore(edited, weights_copy)
    assert_same_bits(edited, before)


def state_of_the_world(model, tok):
    return (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        tok.padding_side,
        tok.pad_token,
        random.getstate()[1][:5],
        np.random.get_state()[1][:5].tolist(),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize("fail_at", [None, "trace", "train", "apply"])
def test_everything_else_is_restored(architecture, fail_at, monkeypatch):
    model, tok = make_model(architecture), make_tokenizer("left")
    model.train()
    next(model.modules()).training = False  # a mixture, as after a user's own eval() of a part
    next(model.parameters()).requires_grad_(False)
    before, world = snapshot(model), state_of_the_world(model, tok)
    if fail_at is None:
        apply_packe_to_model(model, tok, REQUESTS, HP)
    else:
        calls = {"n": 0}

        def broken(original, last):
            def call(*args, **kwargs):
                calls["n"] += 1
                if calls["n"] == last:
                    raise KeyboardInterrupt
                return original(*args, **kwargs)

            return call

        if fail_at == "trace":
            monkeypatch.setattr(easyedit_packe.packe.rectify, "choose_nodes", broken(None, 1))
        elif fail_at == "train":
            monkeypatch.setattr(torch.optim.Adam, "step", broken(torch.optim.Adam.step, 3))
        else:
            slice_type = easyedit_packe.patch.Slice
            monkeypatch.setattr(slice_type, "write", broken(slice_type.write, 3))
        with pytest.raises(KeyboardInterrupt):
            apply_packe_to_model(model, tok, REQUESTS, HP)
        assert_same_bits(model, before)
    assert state_of_the_world(model, tok) == world


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_with_requests_left_alone(mode):
    model, requests = make_model("llama"), copy.deepcopy(REQUESTS)
    expected = compute_patch(model, make_tokenizer(), requests, HP)
    with mode():
        patch = compute_patch(model, make_tokenizer(), requests, HP)
        assert not torch.is_grad_enabled()
        compute_patch(model, make_tokenizer(), requests[:2], PLUS)
    assert requests == REQUESTS
    for name, s in expected.slices.items():
        assert torch.equal(s.new, patch.slices[name].new)


@pytest.mark.parametrize(("side", "pad"), [("left", True), ("right", False)])
def test_padding_sides_agree(architecture, side, pad):
    model = make_model(architecture)
    expected = compute_patch(model, make_tokenizer("right"), REQUESTS, HP)
    patch = compute_patch(model, make_tokenizer(side, pad), REQUESTS, HP)
    for name, s in expected.slices.items():
        assert torch.equal(s.new, patch.slices[name].new)


def test_batched_with_padding_or_one_by_one_agree(architecture):
    """A forward pass over padded requests computes what single passes compute."""
    model = make_model(architecture, torch.float64)
    together = compute_patch(model, make_tokenizer(), REQUESTS, HP)
    single = compute_patch(
        model, make_tokenizer(), REQUESTS, PaCKEHyperParams(**{**HP.to_dict(), "micro_batch_size": 1})
    )
    for name, s in together.slices.items():
        atol = 1e-5 if architecture == "gptj" else 1e-10
        torch.testing.assert_close(s.new, single.slices[name].new, rtol=0, atol=atol)


def test_twice_with_one_seed_is_identical(architecture):
    model = make_model(architecture)
    hp = PaCKEHyperParams(**{**HP.to_dict(), "shuffle": True, "retrace_every": 2})
    first = compute_patch(model, make_tokenizer(), REQUESTS, hp)
    torch.manual_seed(7)
    second = compute_patch(model, make_tokenizer(), REQUESTS, hp)
    assert first.slices.keys() == second.slices.keys()
    for name, s in first.slices.items():
        assert same_bits(s.new, second.slices[name].new)


def test_request_by_request_is_one_call_after_another(architecture):
    model, tok = make_model(architecture), make_tokenizer()
    before = snapshot(model)
    hp = PaCKEHyperParams(**{**HP.to_dict(), "trace": "request"})
    merged = compute_patch(model, tok, REQUESTS, hp)
    assert_same_bits(model, before)
    for request in REQUESTS:
        apply_packe_to_model(model, tok, [request], HP)
    one_by_one = snapshot(model)
    for name in before:
        model.state_dict()[name].copy_(before[name])
    merged.apply(model)
    assert_same_bits(model, one_by_one)
    merged.revert(model)
    assert_same_bits(model, before)


def test_request_by_request_holds_few_patches(monkeypatch):
    """A call of any size: what was edited is merged on the way, to the same patch."""
    hp, held, merge = PaCKEHyperParams(**{**HP.to_dict(), "trace": "request"}), [], WeightPatch.merge
    requests = [REQUESTS[i % len(REQUESTS)] for i in range(7)]

    def counted(patches):
        held.append(len(patches))
        return merge(patches)

    patches = []
    for every in (100, 3):
        monkeypatch.setattr(easyedit_packe.editor, "MERGE_EVERY", every)
        monkeypatch.setattr(easyedit_packe.editor.WeightPatch, "merge", counted)
        patches.append(compute_patch(make_model("llama"), make_tokenizer(), requests, hp))
    assert held == [7, 3, 3, 3, 1]
    whole, parts = patches
    assert whole.info == parts.info
    assert whole.info["merged"] == len(whole.info["requests"]) == 7
    for name, s in whole.slices.items():
        assert same_bits(s.old, parts.slices[name].old)
        assert same_bits(s.new, parts.slices[name].new)


def test_request_by_request_is_undone_after_an_exception(monkeypatch):
    model, before = make_model("llama"), None
    before = snapshot(model)
    original, calls = easyedit_packe.editor.rectify, []

    def fails_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(easyedit_packe.editor, "rectify", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        compute_patch(model, make_tokenizer(), REQUESTS, PaCKEHyperParams(**{**HP.to_dict(), "trace": "request"}))
    assert_same_bits(model, before)


@pytest.mark.parametrize(
    ("requests", "hp", "error"),
    [
        ([], HP, RequestError),
        ([{"prompt": "a", "target_new": ""}], HP, RequestError),
        (REQUESTS, {"alg_name": "PaCKE"}, HyperParamsError),
        (REQUESTS, PaCKEHyperParams(device=99), HyperParamsError),
        (REQUESTS, PaCKEHyperParams(device="cuda:98"), HyperParamsError),
        (REQUESTS, PaCKEHyperParams(device="warp"), HyperParamsError),
        (REQUESTS, PaCKEHyperParams(num_critical_paths=500), ModelError),
    ],
)
def test_bad_input_leaves_the_model_untouched(requests, hp, error):
    model = make_model("llama")
    before = snapshot(model)
    with pytest.raises(error):
        apply_packe_to_model(model, make_tokenizer(), requests, hp)
    assert_same_bits(model, before)


def test_diverging_edits_are_refused():
    model = make_model("llama")
    before = snapshot(model)
    with pytest.raises(ModelError, match="lower lr"):
        apply_packe_to_model(model, make_tokenizer(), REQUESTS, PaCKEHyperParams(lr=1e30, num_steps=4))
    assert_same_bits(model, before)


def test_a_model_placed_by_a_device_map(tmp_path):
    """accelerate's own hooks around every module, as with a model spread over GPUs."""
    from transformers import AutoModelForCausalLM

    model = make_model("llama")
    model.save_pretrained(tmp_path)
    spread = AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"})
    from accelerate import dispatch_model

    spread = dispatch_model(spread, {"model": "cpu", "lm_head": "cpu"}, main_device="cpu", force_hooks=True)
    expected = compute_patch(model, make_tokenizer(), REQUESTS, HP)
    patch = compute_patch(spread, make_tokenizer(), REQUESTS, HP)
    for name, s in expected.slices.items():
        assert torch.equal(s.new, patch.slices[name].new)


def test_merge_of_nothing_in_common_and_everything():
    model, tok = make_model("llama"), make_tokenizer()
    before = snapshot(model)
    patches = []
    for request in REQUESTS:
        patches.append(compute_patch(model, tok, [request], HP))
        patches[-1].apply(model)
    after = snapshot(model)
    for patch in reversed(patches):
        patch.revert(model)
    assert_same_bits(model, before)
    WeightPatch.merge(patches).apply(model)
    assert_same_bits(model, after)


# Tokenisers that put an end token behind every text


@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
@pytest.mark.parametrize("trace", ["call", "request"])
def test_an_end_token_changes_nothing(hp, trace, tmp_path, monkeypatch):
    hp, patches = type(hp)(**{**hp.to_dict(), "trace": trace}), []
    for folder, tok in (("without", make_tokenizer()), ("with", ending(make_tokenizer()))):
        monkeypatch.setattr("easyedit_packe.model.kept.cache_dir", lambda folder=folder: tmp_path / folder)
        patches.append(compute_patch(make_model("llama"), tok, REQUESTS, hp))
    for name, s in patches[0].slices.items():
        assert same_bits(s.new, patches[1].slices[name].new)


def test_a_field_that_was_set_later_is_checked_too():
    hp, model, tok = dataclasses.replace(HP), make_model("llama"), make_tokenizer()
    hp.lr = "1e-2"
    assert compute_patch(model, tok, REQUESTS[:1], hp).slices
    hp.num_steps = 0
    with pytest.raises(HyperParamsError, match="num_steps: expected at least 1"):
        compute_patch(model, tok, REQUESTS[:1], hp)


@pytest.mark.parametrize("hparams", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_of_a_compiled_model_the_model_in_it_is_edited(hparams):
    model, tok = make_model("llama"), make_tokenizer()
    before, compiled = snapshot(model), torch.compile(model, backend="eager")
    patch = compute_patch(compiled, tok, REQUESTS[:1], hparams)
    assert not any("_orig_mod" in name for name in patch.slices)
    patch.apply(compiled)
    assert any(not same_bits(p, before[n]) for n, p in model.named_parameters())
    patch.revert(compiled)
    assert_same_bits(model, before)


def test_layers_that_share_a_block_are_refused():
    model = make_model("llama")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    with pytest.raises(ModelError, match=r"block of its own, got one for model\.layers\.0\.mlp and model\.layers\.1"):
        compute_patch(model, make_tokenizer(), REQUESTS[:1], HP)


def test_patches_are_recorded_inside_and_outside():
    model, tok = make_model("llama"), make_tokenizer()
    with record_patches() as outer:
        apply_packe_to_model(model, tok, REQUESTS[:1], HP)
        with record_patches() as inner:
            apply_packe_to_model(model, tok, REQUESTS[1:2], HP)
    assert len(outer) == 2
    assert inner == outer[1:]


def test_without_contrast_no_negative_node_is_kept():
    model, tok = make_model("llama"), make_tokenizer()
    patch = compute_patch(model, tok, REQUESTS[:1], dataclasses.replace(HP, contrast_weight=0.0))
    assert {len(s.index) for s in patch.slices.values()} == {4}
