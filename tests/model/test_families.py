"""Every family: what an edit does to it is what full masked gradients do, and nothing else is touched."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch

from easyedit_packe.config.packe import PaCKEHyperParams
from easyedit_packe.config.plus import PaCKEPlusHyperParams
from easyedit_packe.editor import apply_packe_to_model, compute_patch
from easyedit_packe.errors import ModelError, PatchError
from easyedit_packe.model.blocks import EXPERTS, find_blocks
from easyedit_packe.model.ffn import ExpertsModule, FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.packe.rectify import rectify
from easyedit_packe.patch import EditStack, WeightPatch
from easyedit_packe.requests import collate, encode, read_requests

from ..conftest import REQUESTS, assert_same_bits, make_tokenizer, snapshot
from ..dense import DenseEditor
from ..families import FAMILIES, make_family
from ..test_editor import state_of_the_world

HP = PaCKEHyperParams(
    num_critical_paths=4, num_negative_paths=2, lr=1e-2, num_steps=3, retrace_every=2, edit_batch_size=2,
    value_bias="trained",
)  # fmt: skip


def test_an_edit_is_what_full_masked_gradients_give_and_comes_off_again(family, tmp_path):
    edit_like_full_gradients(make_family(family), tmp_path)


def test_packed_keys_with_a_bias(tmp_path):
    """Which no family has."""
    model = make_family("phi3")
    for layer in model.model.layers:
        packed = torch.nn.Linear(16, 48, dtype=torch.float64)
        packed.weight = layer.mlp.gate_up_proj.weight
        layer.mlp.gate_up_proj = packed
    assert all(m.has_node_bias for m in FFNMap.of(model).modules[::2])
    edit_like_full_gradients(model, tmp_path)


def edit_like_full_gradients(model, folder):
    tok = make_tokenizer()
    before, world = snapshot(model), state_of_the_world(model, tok)
    encoded = encode(tok, read_requests(REQUESTS))
    ffn = FFNMap.of(model)
    ours = rectify(model, ffn, encoded, HP)
    assert_same_bits(model, before)
    assert state_of_the_world(model, tok) == world
    dense = DenseEditor(copy.deepcopy(model), encoded, HP).run()
    for nodes, (critical, negative) in zip(ours.nodes, dense.nodes, strict=True):
        for name in critical:
            assert nodes.critical[name].tolist() == critical[name].tolist(), name
            assert nodes.negative[name].tolist() == negative[name].tolist(), name
    torch.testing.assert_close(torch.tensor(ours.losses), torch.tensor(dense.losses), rtol=1e-6, atol=1e-7)
    ours.patch.save(folder / "edit.safetensors")
    patch = WeightPatch.load(folder / "edit.safetensors")
    patch.apply(model)
    assert all(not torch.equal(m.weight, before[stored(m)]) for m in ffn.modules)
    for (name, p), q in zip(model.named_parameters(), dense.model.parameters(), strict=True):
        torch.testing.assert_close(p.data, q.data, rtol=0, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    patch.revert(model)
    assert_same_bits(model, before)


def stored(m):
    return m.name if isinstance(m, ExpertsModule) else f"{m.name}.weight"


def test_blocks_and_widths(family):
    model = make_family(family)
    blocks, ffn = find_blocks(model), FFNMap.of(model)
    assert blocks[-1].form == FAMILIES[family].form  # some families have experts from the second layer on
    assert [(m.layer, m.kind) for m in ffn.modules] == [(i, k) for i in range(2) for k in ("key", "value")]
    assert tuple(m.num_nodes for m in ffn.modules[::2]) == FAMILIES[family].widths
    assert tuple(m.num_nodes for m in ffn.modules[1::2]) == FAMILIES[family].widths
    assert ffn.num_nodes == min(FAMILIES[family].widths)
    assert model.config.model_type == family


@torch.no_grad()
def test_logits_are_the_models_own(family):
    model = make_family(family)
    encoded = encode(make_tokenizer(), read_requests(REQUESTS))
    ours = answer_logits(model, collate(encoded))
    theirs = torch.cat([model(e.ids[None]).logits[0, e.answer_start - 1 : -1] for e in encoded])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_adapter_is_the_edit(family, tmp_path):
    from peft import PeftModel

    model, tok = make_family(family, torch.float32), make_tokenizer()
    patch = compute_patch(model, tok, REQUESTS[:1], HP)
    if FAMILIES[family].form == EXPERTS:
        with pytest.raises(PatchError, match=r"mixture of experts.*as a patch"):
            patch.to_lora()
        return
    ids = encode(tok, read_requests(REQUESTS))[2].ids[None]
    with torch.no_grad():
        base = model(ids).logits
        patch.apply(model)
        edited = model(ids).logits
        patch.revert(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            loaded = PeftModel.from_pretrained(model, patch.to_lora().save(tmp_path)).eval()
        torch.testing.assert_close(loaded(ids).logits, edited, rtol=0, atol=1e-4)
    assert (edited - base).abs().max() > 1e-2


def test_packe_plus_makes_the_target_lead(family):
    model, tok = make_family(family, torch.float32), make_tokenizer()
    before = snapshot(model)
    hp = PaCKEPlusHyperParams(num_critical_paths=6, num_steps=20, layers=None, null_space=0.0, prefix_contexts=0)
    if FAMILIES[family].form == EXPERTS:
        with pytest.raises(ModelError, match=r"PaCKE\+ .*mixture of experts.*edit it with PaCKE"):
            compute_patch(model, tok, REQUESTS[:1], hp)
        return
    patch = compute_patch(model, tok, REQUESTS[:1], hp)
    assert_same_bits(model, before)
    patch.apply(model)
    (e,) = encode(tok, read_requests(REQUESTS[:1]))
    assert model(e.ids[None]).logits[0, e.answer_start - 1 : -1].argmax(-1).tolist() == e.answer.tolist()
    patch.revert(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_experts_are_given_back_whole_and_one_edit_at_a_time(family):
    """As EasyEdit restores its editors' work; two edits share nodes, and the first is taken out."""
    model, tok = make_family(family, torch.float32), make_tokenizer()
    before, stack = snapshot(model), EditStack(model)
    _, originals = apply_packe_to_model(model, tok, REQUESTS[:1], HP, return_orig_weights=True)
    assert set(originals) <= set(before)
    assert len(originals) == len(list(originals)) > 0
    assert all(torch.equal(originals[name], before[name]) for name in originals)
    with pytest.raises(KeyError):
        originals["no such"]
    originals.restore()
    assert_same_bits(model, before)
    for request in REQUESTS[:2]:
        stack.apply(compute_patch(model, tok, [request], HP))
    first, second = stack.edits
    assert {n.partition("[")[0] for n in stack.merged().slices} <= set(before)
    stack.revert(first)
    stack.revert(second)
    assert_same_bits(model, before)


def test_experts_in_bfloat16_as_transformers_computes_with_them():
    """Grouped, not one after the other; and their own way of computing is what is left behind."""
    model, tok = make_family("qwen3_moe", torch.bfloat16), make_tokenizer()
    model.set_experts_implementation("grouped_mm")
    before = snapshot(model)
    patch = compute_patch(model, tok, REQUESTS[:1], replace(HP, lr=0.1, num_steps=10))
    assert all("forward" not in module.__dict__ for module in model.modules())
    patch.apply(model)
    (e,) = encode(tok, read_requests(REQUESTS[:1]))
    assert model(e.ids[None]).logits[0, e.answer_start - 1 : -1].argmax(-1).tolist() == e.answer.tolist()
    patch.revert(model)
    assert_same_bits(model, before)
