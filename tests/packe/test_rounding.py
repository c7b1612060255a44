"""What an edit of a half-precision model does is known on the rounded weights."""

import json
import logging

import pytest
import torch

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, WeightPatch, compute_patch
from easyedit_packe.errors import ModelError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.rounding import rounding
from easyedit_packe.packe.slices import Slices
from easyedit_packe.patch.slice import Slice
from easyedit_packe.requests import collate, encode, read_requests

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from ..plus.common import ALL

HALF = [torch.bfloat16, torch.float16]
HP = PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=6)
PLUS = PaCKEPlusHyperParams(**{**ALL, "write_at": "all", "layers": None})


def rounded(old, wanted):
    new = (old.to(wanted.dtype) + wanted).to(old.dtype)
    return Slice(0, torch.arange(len(old)), old, new, len(old)), wanted


def test_by_hand():
    """Near 1 bfloat16 has steps of 1/128: a change of 1/512 is lost, 1/128 is kept, 3/256 becomes 2/128."""
    part = rounded(torch.tensor([1, 1, 1, 1], dtype=torch.bfloat16), torch.tensor([1 / 512, 1 / 128, 3 / 256, 0]))
    assert (part[0].new - part[0].old).tolist() == [0, 1 / 128, 2 / 128, 0]
    off, meant = (1 / 512) ** 2 + (1 / 256) ** 2, (1 / 512) ** 2 + (1 / 128) ** 2 + (3 / 256) ** 2
    assert rounding([part]) == {"unmoved": pytest.approx(1 / 3), "error": pytest.approx((off / meant) ** 0.5)}
    exact = rounded(torch.ones(2, dtype=torch.float16), torch.tensor([0.5, 0.25]))
    assert rounding([exact]) == {"unmoved": 0, "error": 0}
    assert rounding([part, exact])["unmoved"] == pytest.approx(1 / 5)


def test_nothing_is_said_where_nothing_is_rounded():
    assert rounding([rounded(torch.ones(2), torch.tensor([1e-9, 1.0]))]) == {}
    assert rounding([rounded(torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))]) == {}
    assert rounding([rounded(torch.ones(2, dtype=torch.float16), torch.zeros(2))]) == {}


def test_usual_weights_in_bfloat16():
    """Weights of a trained model, about N(0, 0.02), and a change of one entry after one and after twelve of the
    paper's steps."""
    old = (0.02 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    assert rounding([rounded(old, torch.full((20_000,), 1e-5))])["unmoved"] == pytest.approx(0.84, abs=0.02)
    assert rounding([rounded(old, torch.full((20_000,), 1.2e-4))])["error"] == pytest.approx(0.34, abs=0.02)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_the_applied_patch_does_what_it_says(architecture, hp, dtype, monkeypatch, tmp_path):
    """Measured on the model's weights, before and after, against the change that was trained."""
    wanted, patch_of = [], Slices.patch

    def remembered(self):
        wanted.append((self.weight.detach().clone(), self.key_bias.detach().clone(), dict(self.index)))
        return patch_of(self)

    monkeypatch.setattr(Slices, "patch", remembered)
    model = make_model(architecture, dtype)
    before = snapshot(model)
    patch = compute_patch(model, make_tokenizer(), REQUESTS[:1], hp)
    patch.apply(model)
    [(weight, key_bias, index)] = wanted
    row = key_row = 0
    meant, got = [], []
    for m in FFNMap.of(model).modules:
        nodes = index.get(m.name, torch.arange(0))
        change = (m.weight.double() - before[f"{m.name}.weight"].double()).movedim(m.node_axis, 0)[m.places(nodes)]
        meant.append(weight[row : row + len(nodes)].flatten())
        got.append(change.flatten())
        row += len(nodes)
        if m.has_node_bias and len(nodes):
            meant.append(key_bias[key_row : key_row + len(nodes)])
            got.append((m.bias.double() - before[f"{m.name}.bias"].double())[nodes])
            key_row += len(nodes)
    meant, got = torch.cat(meant).double(), torch.cat(got)
    assert row == len(weight)
    assert meant.any()
    said = patch.info["rounding"]
    assert said["unmoved"] == pytest.approx(((got == 0) & (meant != 0)).sum().item() / (meant != 0).sum().item())
    assert said["error"] == pytest.approx(((got - meant).norm() / meant.norm()).item(), rel=1e-4)
    assert 0 < said["error"] < 0.5
    assert json.loads(json.dumps(WeightPatch.load(patch.save(tmp_path / "p.safetensors")).info))["rounding"] == said


@torch.no_grad()
def loss_of(model):
    batch = collate(encode(make_tokenizer(), read_requests(REQUESTS[:1])))
    return token_losses(answer_logits(model, batch), batch.targets).mean().item()


@pytest.mark.parametrize(("lr", "lost"), [(1e-5, True), (1e-2, False)])
def test_an_edit_that_rounding_takes_away_is_announced(lr, lost, caplog):
    model = make_model("llama", torch.bfloat16)
    with caplog.at_level(logging.WARNING, logger="easyedit_packe"):
        patch = compute_patch(model, make_tokenizer(), REQUESTS[:1], PaCKEHyperParams(**{**HP.to_dict(), "lr": lr}))
    before = loss_of(model)
    patch.apply(model)
    assert (patch.info["rounding"]["error"] > 0.5) == lost == (before - loss_of(model) < 0.1 * before)
    assert ("load the model in float32, or raise lr (now 1e-05)" in caplog.text) == lost
    assert ("rounding" in caplog.text) == lost


@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_float32_patches_say_nothing_of_it(architecture, hp, caplog):
    patch = compute_patch(make_model(architecture), make_tokenizer(), REQUESTS, hp)
    assert "rounding" not in patch.info
    assert caplog.text == ""


def test_a_merged_patch_says_what_rounding_took_of_the_worst(architecture):
    model, tok = make_model(architecture, torch.bfloat16), make_tokenizer()
    patches = []
    for request, lr in zip(REQUESTS, (1e-2, 1e-3, 2e-2), strict=True):
        patches.append(compute_patch(model, tok, [request], PaCKEHyperParams(**{**HP.to_dict(), "lr": lr})))
        patches[-1].apply(model)
    errors = [p.info["rounding"]["error"] for p in patches]
    assert max(errors) == errors[1] > errors[0]
    assert WeightPatch.merge(patches).info["rounding"] == patches[1].info["rounding"]


def test_a_change_too_large_for_the_dtype_is_refused():
    """It is finite where it is trained, in float32, and would be infinite in the model."""
    model = make_model("llama", torch.float16)
    before = snapshot(model)
    hp = PaCKEHyperParams(**{**HP.to_dict(), "num_steps": 1, "lr": 1e6})
    with pytest.raises(ModelError, match=r"too large for torch\.float16.*lower lr"):
        compute_patch(model, make_tokenizer(), REQUESTS[:1], hp)
    assert_same_bits(model, before)
