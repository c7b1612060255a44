"""A step that goes so far that the model overflows is taken back, and the edit that is left can be kept."""

import math

import pytest
import torch

from easyedit_packe import PaCKEPlusHyperParams, WeightPatch, compute_patch
from easyedit_packe.plus.demands import lacks
from easyedit_packe.plus.rectify import PlusRectifier

from ..conftest import REQUESTS, make_model, make_tokenizer
from .common import ALL, plus


def test_what_is_no_number_is_not_enough():
    lead = torch.tensor([2.0, 1.0, 0.0, -math.inf, math.nan])
    assert lacks(lead, 1.0)[:4].tolist() == [0, 0, 1.5, math.inf]
    assert lacks(lead, 1.0)[4].isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("which", ["first", "second", "all"])
def test_an_overshoot_is_taken_back_and_the_edit_is_saved(architecture, dtype, which, monkeypatch, tmp_path):
    change, steps = PlusRectifier.change, []

    def far_too_much(self, seen, ridge):
        steps.append(len(steps) + 1)
        overshoots = which == "all" or steps[-1] == {"first": 1, "second": 2}[which]
        return change(self, seen, ridge) * (1e30 if overshoots else 1)

    monkeypatch.setattr(PlusRectifier, "change", far_too_much)
    model, tok = make_model(architecture, dtype), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "write_at": "all", "num_steps": 6})
    patch = compute_patch(model, tok, REQUESTS[:1], hp)
    terms = [patch.info["losses"], *patch.info["terms"].values()]
    at = {"first": [1], "second": [2], "all": range(1, len(terms[0]))}[which]
    assert len(steps) == len(terms[0]) - 1 >= 2
    assert all((step is None) == (i in at) for i, step in enumerate(patch.info["losses"])), terms
    loaded = WeightPatch.load(patch.save(tmp_path / "p.safetensors"))
    assert loaded.info["losses"] == patch.info["losses"]
    assert any(s.change.any() for s in patch.slices.values()) == (which != "all")
    before = lacks(plus(model, tok, hp).look().lead, 1.0).sum()
    loaded.apply(model)
    after = lacks(plus(model, tok, hp).look().lead, 1.0).sum()
    assert after < before if which != "all" else after == before


def test_a_step_goes_no_further_than_a_quarter_of_what_it_changes(monkeypatch):
    """A text that hardly moves asks for far more than first order can tell of: the direction stays, not the length."""
    model, tok = make_model("llama"), make_tokenizer()
    rectifier = plus(model, tok, PaCKEPlusHyperParams(**ALL))
    seen = rectifier.look()
    rectifier.choose(seen)
    weights = torch.cat([m.weight.flatten() for m in rectifier.ffn.modules])
    lacking, steps = rectifier.lacking(seen), []
    for much in (0.01, 0.02, 1e6):
        monkeypatch.setattr(rectifier, "lacking", lambda _, much=much: much * lacking)
        steps.append(rectifier.change(seen, 0.05))
    torch.testing.assert_close(steps[1], 2 * steps[0])
    torch.testing.assert_close(steps[2].norm(), 0.25 * weights.norm())
    torch.testing.assert_close(steps[2] / steps[2].norm(), steps[0] / steps[0].norm())
