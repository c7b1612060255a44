"""What an edit of a half-precision model achieves is measured on its rounded weights, and where rounding takes it a
warning says what to do."""

import json
import logging

import pytest
import torch

from easyedit_packe import EditStack, PaCKEHyperParams, PaCKEPlusHyperParams, WeightPatch, compute_patch
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.packe import achieved
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.requests import collate, encode, read_requests

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from ..plus.common import ALL, same_patch

HALF = [torch.bfloat16, torch.float16]
HP = {"num_critical_paths": 4, "lr": 1e-2, "num_steps": 6}
PACKE = PaCKEHyperParams(**HP)
PLUS = PaCKEPlusHyperParams(**{**ALL, "write_at": "all", "layers": None})
# Many weights moved by little: enough for the target, and less than most of them can hold in bfloat16.
WIDE = {"hidden_size": 128, "intermediate_size": 512}
SMALL = {"num_critical_paths": 512, "lr": 4e-5, "num_steps": 10}
NEARLY_SAID = {"prompt": "Anna Berg was born in", "target_new": "Grey"}


@torch.no_grad()
def measured(model, request):
    """(loss, said) of one request, by hand."""
    batch = collate(encode(make_tokenizer(), read_requests([request])))
    logits = answer_logits(model, batch)
    return token_losses(logits, batch.targets).mean().item(), bool((logits.argmax(-1) == batch.targets).all())


def said_of(rows):
    return [(r["loss"], r["said"]) for r in rows]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("hp", [PACKE, PLUS], ids=["PaCKE", "PaCKE+"])
def test_the_model_with_the_patch_does_what_the_patch_says(architecture, hp, dtype, tmp_path):
    """To the last digit, also from a file; and reverting restores every bit."""
    model = make_model(architecture, dtype)
    before = snapshot(model)
    patch = compute_patch(model, make_tokenizer(), REQUESTS, hp)
    assert_same_bits(model, before)
    rounded = patch.info["rounded"]
    assert rounded["dtype"] == str(dtype).removeprefix("torch.")
    loaded = WeightPatch.load(patch.save(tmp_path / "p.safetensors"))
    assert loaded.info["rounded"] == json.loads(json.dumps(rounded)) == rounded
    plain = [measured(model, r) for r in REQUESTS]
    loaded.apply(model)
    found = [measured(model, r) for r in REQUESTS]
    assert said_of(rounded["requests"]) == found
    assert sum(loss for loss, _ in found) < sum(loss for loss, _ in plain)  # and it is the edit that was measured
    loaded.revert(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("dtype", HALF)
def test_before_rounding_is_what_was_trained(dtype):
    """The float32 model's edit, up to the rounding of the forward pass, and not that of the rounded weights."""
    half, full = make_model("llama", dtype), make_model("llama")
    rows = compute_patch(half, make_tokenizer(), REQUESTS[:1], PACKE).info["rounded"]["requests"]
    compute_patch(full, make_tokenizer(), REQUESTS[:1], PACKE).apply(full)
    assert rows[0]["trained"]["loss"] == pytest.approx(measured(full, REQUESTS[0])[0], rel=0.1, abs=0.02)
    assert rows[0]["trained"]["loss"] != rows[0]["loss"]


def test_requests_in_turn_are_each_measured_when_they_are_made():
    model, hp = make_model("llama", torch.bfloat16), PaCKEHyperParams(**HP, trace="request")
    together = compute_patch(model, make_tokenizer(), REQUESTS, hp)
    rows = []
    for request in REQUESTS:
        patch = compute_patch(model, make_tokenizer(), [request], hp)
        patch.apply(model)
        rows += patch.info["rounded"]["requests"]
        assert said_of(rows[-1:]) == [measured(model, request)]
    assert together.info["rounded"] == {"dtype": "bfloat16", "requests": rows}


def test_a_merged_patch_has_a_row_for_each_request_or_none():
    model, tok = make_model("llama", torch.bfloat16), make_tokenizer()
    stack, patches = EditStack(model), []
    for requests in (REQUESTS[:2], REQUESTS[2:]):
        patches.append(compute_patch(model, tok, requests, PACKE))
        stack.apply(patches[-1])
    rows = [r for p in patches for r in p.info["rounded"]["requests"]]
    for merged in (WeightPatch.merge(patches), stack.merged()):
        assert merged.info["rounded"] == {"dtype": "bfloat16", "requests": rows}
        assert len(rows) == len(merged.info["requests"]) == 3
    del patches[0].info["rounded"]  # as one of an older version
    assert "rounded" not in WeightPatch.merge(patches).info


def lost(rounding, caplog):
    """An edit of small steps in bfloat16, and the warnings of it."""
    hp = PaCKEHyperParams(**SMALL, rounding=rounding)
    model = make_model("llama", torch.bfloat16, **WIDE)
    with caplog.at_level(logging.WARNING, logger="easyedit_packe"):
        patch = compute_patch(model, make_tokenizer(), [NEARLY_SAID], hp)
    return patch, caplog.text


def test_a_target_that_rounding_takes_is_announced_with_the_remedy(caplog):
    patch, text = lost("nearest", caplog)
    (row,) = patch.info["rounded"]["requests"]
    assert row["trained"]["said"]
    assert not row["said"]
    assert "the target of 1 of 1 requests is said with the change that was trained, and not with the rounded" in text
    assert "set rounding: stochastic, raise lr (now 4e-05), or load the model in float32" in text


def test_the_remedy_helps(caplog):
    """Noise of more than the change's size, and still the edit is there."""
    patch, text = lost("stochastic", caplog)
    (row,) = patch.info["rounded"]["requests"]
    assert row["said"]
    assert patch.info["rounding"]["error"] > 1
    assert patch.info["rounding"]["kept"] == pytest.approx(1, abs=0.1)
    assert text == ""


def test_stochastic_rounding_hangs_on_the_seed_alone():
    def made(seed, noise):
        torch.manual_seed(noise)
        hp = PaCKEHyperParams(**HP, rounding="stochastic", seed=seed)
        return compute_patch(make_model("llama", torch.bfloat16), make_tokenizer(), REQUESTS[:1], hp)

    assert same_patch(made(1, 0), made(1, 5))
    assert not same_patch(made(1, 0), made(2, 0))


def test_float32_is_the_same_however_it_would_be_rounded(architecture):
    made = [
        compute_patch(make_model(architecture), make_tokenizer(), REQUESTS, PaCKEHyperParams(**HP, rounding=r))
        for r in ("nearest", "stochastic")
    ]
    assert same_patch(*made)


@pytest.mark.parametrize(("lr", "little"), [(1e-5, True), (1e-2, False)])
def test_an_edit_of_which_little_is_kept_is_announced(lr, little, caplog):
    """Although its target was not said before rounding either."""
    model = make_model("llama", torch.bfloat16)
    with caplog.at_level(logging.WARNING, logger="easyedit_packe"):
        patch = compute_patch(model, make_tokenizer(), REQUESTS[:1], PaCKEHyperParams(**{**HP, "lr": lr}))
    before, _ = measured(model, REQUESTS[0])
    patch.apply(model)
    assert (patch.info["rounding"]["kept"] < 0.5) == little == (before - measured(model, REQUESTS[0])[0] < 0.1 * before)
    assert ("may do little of what it was trained for" in caplog.text) == little
    assert ("raise lr (now 1e-05)" in caplog.text) == little
    assert ("rounding" in caplog.text) == little


def test_the_remedy_is_one_of_the_editors_own_settings():
    assert achieved.remedy(PACKE) == "set rounding: stochastic, raise lr (now 0.01), or load the model in float32"
    drawn = PaCKEHyperParams(**HP, rounding="stochastic")
    assert achieved.remedy(drawn) == "raise lr (now 0.01), or load the model in float32"
    assert achieved.remedy(PLUS) == "raise margin (now 1.0), or load the model in float32"


def test_an_error_while_measuring_leaves_the_model_as_it_was(monkeypatch):
    model, calls = make_model("llama", torch.bfloat16), []
    before, answers = snapshot(model), achieved.answers

    def fails_the_second_time(*args):
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return answers(*args)

    monkeypatch.setattr(achieved, "answers", fails_the_second_time)
    with pytest.raises(RuntimeError, match="out of memory"):
        compute_patch(model, make_tokenizer(), REQUESTS[:1], PACKE)
    assert len(calls) == 2
    assert_same_bits(model, before)


def test_float32_pays_for_no_measuring(monkeypatch):
    monkeypatch.setattr(achieved, "answers", None)  # calling it would fail
    compute_patch(make_model("llama"), make_tokenizer(), REQUESTS[:1], PACKE)
