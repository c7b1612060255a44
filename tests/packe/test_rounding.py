"""What an edit of a half-precision model does is known on the rounded weights."""

import json
import math

import pytest
import torch

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, WeightPatch, compute_patch
from easyedit_packe.errors import ModelError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.packe.rounding import round_to, rounding, seed_for
from easyedit_packe.packe.slices import Slices
from easyedit_packe.patch.slice import Slice
from easyedit_packe.requests import encode, read_requests

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
    assert rounding([part]) == {
        "unmoved": pytest.approx(1 / 3),
        "error": pytest.approx((off / meant) ** 0.5),
        "kept": pytest.approx((1 / 128**2 + 2 / 128 * 3 / 256) / meant),
    }
    exact = rounded(torch.ones(2, dtype=torch.float16), torch.tensor([0.5, 0.25]))
    assert rounding([exact]) == {"unmoved": 0, "error": 0, "kept": 1}
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
def test_a_draw_is_one_of_the_two_values_around(dtype):
    """Also next to zero, where a value has no sign yet, and where the exponent changes."""
    torch.manual_seed(0)
    exact = torch.cat([torch.randn(200), 1e-6 * torch.randn(50), -(2.0 ** -torch.arange(10)) * (1 - 2**-14)])
    exact = torch.cat([exact, torch.tensor([2e-8, -2e-8, 0.0, 1.0, -2.5])])
    near = exact.to(dtype)
    both = [torch.nextafter(near, torch.full_like(near, side)) for side in (-math.inf, math.inf)]
    low = torch.where(near.float() > exact, both[0], near).float()
    high = torch.where(near.float() < exact, both[1], near).float()
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([round_to(exact, dtype, generator).float() for _ in range(2000)])
    assert ((draws == low) | (draws == high)).all()
    # The mean over draws is the exact value: within five standard errors, the largest one of a fair coin.
    off = (draws.double().mean(0) - exact.double()).abs()
    assert (off <= 5 * 0.5 * (high - low).double() / 2000**0.5).all()
    assert (draws[:, low == high] == exact[low == high]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_drawn_for_a_dtype_that_holds_the_value(dtype):
    exact = torch.randn(100, dtype=dtype)
    assert torch.equal(round_to(exact, dtype, torch.Generator().manual_seed(0)), exact)


def test_what_is_too_large_stays_infinite_when_drawn():
    drawn = round_to(torch.tensor([1e6, -1e6, 65503.0]), torch.float16, torch.Generator().manual_seed(0))
    assert drawn[:2].tolist() == [math.inf, -math.inf]
    assert drawn[2].isfinite()


def test_small_changes_are_kept_on_average_when_drawn():
    """The paper's steps on usual weights: rounded to the nearest value, most are gone."""
    old = (0.02 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    wanted = torch.full((20_000,), 1e-5)
    new = round_to(old.float() + wanted, torch.bfloat16, torch.Generator().manual_seed(1))
    drawn = rounding([(Slice(0, torch.arange(20_000), old, new, 20_000), wanted)])
    assert drawn["kept"] == pytest.approx(1, abs=0.1)
    assert drawn["unmoved"] > 0.6
    assert rounding([rounded(old, wanted)])["error"] < drawn["error"]  # the price: noise


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_the_applied_patch_does_what_it_says(architecture, hp, dtype, monkeypatch, tmp_path):
    """Measured on the model's weights, before and after, against the change that was trained."""
    wanted, patch_of = [], Slices.patch

    def remembered(self, *drawn):
        wanted.append((self.weight.detach().clone(), self.key_bias.detach().clone(), dict(self.index)))
        return patch_of(self, *drawn)

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
    assert said["kept"] == pytest.approx(((got @ meant) / (meant @ meant)).item(), rel=1e-4)
    assert 0 < said["error"] < 0.5
    assert json.loads(json.dumps(WeightPatch.load(patch.save(tmp_path / "p.safetensors")).info))["rounding"] == said


@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_float32_patches_say_nothing_of_it(architecture, hp, caplog):
    patch = compute_patch(make_model(architecture), make_tokenizer(), REQUESTS, hp)
    assert not {"rounding", "rounded"} & set(patch.info)
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


def test_other_requests_draw_otherwise():
    """Else edits in a row would all round the same weights up, and the others never."""
    hp = PaCKEHyperParams(num_critical_paths=4, lr=2e-4, num_steps=2, rounding="stochastic", seed=3)
    old = torch.ones(200, 16, dtype=torch.bfloat16)
    moved = []
    for request in REQUESTS[:2]:
        (encoded,) = encode(make_tokenizer(), read_requests([request]))
        generator = torch.Generator().manual_seed(seed_for([encoded], hp.seed))
        moved.append(round_to(old.float() + 1 / 1024, torch.bfloat16, generator) != old)
    shared = (moved[0] & moved[1]).sum() / moved[0].sum()
    assert moved[0].float().mean() == pytest.approx(1 / 8, abs=0.02)
    assert shared == pytest.approx(1 / 8, abs=0.05)
    model, tok = make_model("llama", torch.bfloat16), make_tokenizer()
    one, again = (compute_patch(model, tok, REQUESTS[:1], hp) for _ in range(2))
    assert all(torch.equal(s.new, again.slices[n].new) for n, s in one.slices.items())
