"""The exported adapter is the edit: same logits, same merged weights, in plain PEFT."""

import copy
import warnings

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from easyedit_packe import PaCKEHyperParams, WeightPatch, compute_patch
from easyedit_packe.errors import PatchError
from easyedit_packe.model.blocks import FORMS, find_blocks
from easyedit_packe.patch.slice import Slice

from ..conftest import REQUESTS, make_model, make_tokenizer

HP = PaCKEHyperParams(num_critical_paths=4, lr=2e-2, num_steps=6)


def ids():
    return make_tokenizer()(REQUESTS[2]["prompt"], return_tensors="pt").input_ids


def load_adapter(model, folder, **options):
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(model, folder, **options)
    bad = [str(w.message) for w in caught if "missing" in str(w.message) or "unexpected" in str(w.message)]
    assert bad == []
    return loaded.eval()


@torch.no_grad()
def logits(model):
    return model(ids()).logits


@pytest.mark.parametrize("value_bias", ["frozen", "trained"])
def test_same_logits_and_same_merged_weights(architecture, value_bias, tmp_path):
    model = make_model(architecture)
    hp = PaCKEHyperParams(**{**HP.to_dict(), "value_bias": value_bias})
    patch = compute_patch(model, make_tokenizer(), REQUESTS, hp)
    edited = copy.deepcopy(model)
    patch.apply(edited)
    adapter = patch.to_lora()
    assert set(adapter.errors.values()) == {0.0}
    loaded = load_adapter(copy.deepcopy(model), adapter.save(tmp_path))
    assert (logits(model) - logits(edited)).abs().max() > 0.1
    torch.testing.assert_close(logits(loaded), logits(edited), rtol=0, atol=2e-5)
    merged = loaded.merge_and_unload()
    for (name, p), q in zip(edited.named_parameters(), merged.parameters(), strict=True):
        torch.testing.assert_close(p.data, q.data, rtol=0, atol=1e-6, msg=name)


def test_ranks_follow_the_nodes_of_each_module(tmp_path):
    model = make_model("llama")
    hp = PaCKEHyperParams(**{**HP.to_dict(), "retrace_every": 2})  # modules end with different numbers of nodes
    patch = compute_patch(model, make_tokenizer(), REQUESTS, hp)
    adapter = patch.to_lora()
    for name, s in patch.slices.items():
        module = name.removesuffix(".weight")
        rank = adapter.config["rank_pattern"].get(module, adapter.config["r"])
        assert rank == len(s.index) == len(adapter.tensors[f"base_model.model.{module}.lora_A.weight"])
    assert adapter.config["rank_pattern"]
    edited = copy.deepcopy(model)
    patch.apply(edited)
    loaded = load_adapter(copy.deepcopy(model), adapter.save(tmp_path / "a"))
    torch.testing.assert_close(logits(loaded), logits(edited), rtol=0, atol=2e-5)
    uniform = patch.to_lora(uniform=True)
    assert uniform.config["rank_pattern"] == {}
    assert {t.shape[0 if "lora_A" in n else 1] for n, t in uniform.tensors.items()} == {uniform.config["r"]}
    loaded = load_adapter(copy.deepcopy(model), uniform.save(tmp_path / "b"))
    torch.testing.assert_close(logits(loaded), logits(edited), rtol=0, atol=2e-5)


def test_several_edits_as_several_adapters(tmp_path):
    model = make_model("gptj")
    base = logits(model)
    patches = [compute_patch(model, make_tokenizer(), [r], HP) for r in REQUESTS[:2]]
    expected = []
    for i, patch in enumerate(patches):
        patch.to_lora().save(tmp_path / str(i))
        patch.apply(model)
        expected.append(logits(model))
        patch.revert(model)
    loaded = load_adapter(model, tmp_path / "0", adapter_name="first")
    loaded.load_adapter(tmp_path / "1", adapter_name="second")
    for name, want in zip(("first", "second", "first"), (*expected, expected[0]), strict=True):
        loaded.set_adapter(name)
        torch.testing.assert_close(logits(loaded), want, rtol=0, atol=2e-5)
    with loaded.disable_adapter():
        torch.testing.assert_close(logits(loaded), base, rtol=0, atol=1e-6)


def test_a_capped_rank_is_the_best_approximation_and_says_its_error(tmp_path):
    model = make_model("gpt2")
    patch = compute_patch(model, make_tokenizer(), REQUESTS, HP)
    adapter = patch.to_lora(max_rank=2)
    for name, s in patch.slices.items():
        if name.endswith("bias"):
            continue
        module = name.removesuffix(".weight")
        a = adapter.tensors[f"base_model.model.{module}.lora_A.weight"]
        b = adapter.tensors[f"base_model.model.{module}.lora_B.weight"]
        full = torch.zeros(s.shape)
        s.write(full, s.change)
        error = ((b @ a).T - full).norm() / full.norm()  # Conv1D stores [in, out]
        sigma = torch.linalg.svdvals(full)
        assert error == pytest.approx((sigma[2:].norm() / sigma.norm()).item(), abs=1e-5)
        assert adapter.errors[module] == pytest.approx(error.item(), abs=1e-5)
    load_adapter(model, adapter.save(tmp_path))
    with pytest.raises(PatchError, match="at least 1"):
        patch.to_lora(max_rank=0)


def test_of_more_nodes_than_a_vector_is_long_the_rank_is_its_length():
    hp = PaCKEHyperParams(num_critical_paths=24, lr=2e-2, num_steps=3)
    patch = compute_patch(make_model("llama"), make_tokenizer(), REQUESTS[:1], hp)
    adapter = patch.to_lora()
    assert adapter.ranks == [16]
    assert set(adapter.errors.values()) == {0.0}
    for name, s in patch.slices.items():
        a, b = (adapter.tensors[f"base_model.model.{name[:-7]}.lora_{x}.weight"] for x in "AB")
        whole = torch.zeros(b.shape[0], a.shape[1])
        whole.index_copy_(s.axis, s.index, s.change if s.axis == 0 else s.change.T)
        torch.testing.assert_close(b @ a, whole, rtol=0, atol=0)
    assert patch.to_lora(max_rank=3).ranks == [3]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gptj", "gpt2"])
def test_a_patch_of_version_0_1_0_says_its_family_alone(architecture):
    patch = compute_patch(make_model(architecture), make_tokenizer(), REQUESTS[:1], HP)
    old = WeightPatch(patch.slices, {k: v for k, v in patch.info.items() if k != "ffn"})
    ours, theirs = patch.to_lora(), old.to_lora()
    assert ours.config == theirs.config
    assert all(torch.equal(t, theirs.tensors[name]) for name, t in ours.tensors.items())


def test_what_lora_cannot_hold_is_refused():
    s = Slice(0, torch.tensor([0]), torch.zeros(1), torch.ones(1), 4)
    rows = Slice(0, torch.tensor([0]), torch.zeros(1, 2), torch.ones(1, 2), 4)
    for slices, message in [
        ({}, "nothing to export"),
        ({"model.norm.weight": s}, "linear modules of feed-forward blocks"),
        ({"model.layers.0.mlp.down_proj.bias": s, "model.layers.0.mlp.up_proj.weight": rows}, "its weight does not"),
        ({"model.layers.0.mlp.up_proj.weight": rows, "model.norm.bias": s}, "linear modules of feed-forward blocks"),
    ]:
        with pytest.raises(PatchError, match=message):
            WeightPatch(slices, {"model_type": "llama"}).to_lora()
    with pytest.raises(PatchError, match="architecture"):
        WeightPatch({}, {"model_type": "opt"}).to_lora()


def rows(k, size=600, width=600):
    return Slice(0, torch.arange(k), torch.zeros(k, width), torch.randn(k, width), size)


def test_vllm_gets_the_next_rank_that_it_allows():
    patch = WeightPatch(
        {"model.layers.0.mlp.up_proj.weight": rows(17), "model.layers.0.mlp.gate_proj.weight": rows(3)},
        {"model_type": "llama"},
    )
    padded, native = patch.to_lora(vllm=True), patch.to_lora()
    assert (padded.config["r"], padded.config["rank_pattern"], padded.ranks) == (32, {}, [32])
    assert padded.config["lora_alpha"] == 32  # the scale stays 1
    for name in ("up_proj", "gate_proj"):
        key = f"base_model.model.model.layers.0.mlp.{name}.lora_{{}}.weight"
        products = [adapter.tensors[key.format("B")] @ adapter.tensors[key.format("A")] for adapter in (padded, native)]
        assert torch.equal(*products)


def test_what_vllm_cannot_hold_is_refused():
    name, info = "model.layers.0.mlp.up_proj", {"model_type": "llama"}
    patch = WeightPatch({f"{name}.weight": rows(513)}, info)
    with pytest.raises(PatchError, match=r"at most 512, and this edit one of 513.*--max-rank 512"):
        patch.to_lora(vllm=True)
    assert patch.to_lora(512, vllm=True).config["r"] == 512
    short = WeightPatch({f"{name}.weight": rows(513, width=4)}, info)
    assert short.to_lora(vllm=True).config["r"] == 8  # rows of length 4 have no higher rank than that
    bias = Slice(0, torch.tensor([0]), torch.zeros(1), torch.ones(1), 600)
    with pytest.raises(PatchError, match="value_bias: frozen"):
        WeightPatch({f"{name}.weight": rows(3), f"{name}.bias": bias}, info).to_lora(vllm=True)


def changed(architecture, name, **options):
    """A model, the same with one parameter changed, and the patch between them."""
    before = make_model(architecture, **options)
    after = copy.deepcopy(before)
    after.get_parameter(name).data.add_(0.1)
    return before, after, WeightPatch.between(before, after)


@pytest.mark.parametrize("part", ["embeddings", "head", "attention", "norm"])
def test_a_change_that_is_not_of_a_feed_forward_block_is_refused(architecture, part):
    """PEFT would load such an adapter, and an embedding's would change nothing."""
    names = dict(make_model(architecture, tie_word_embeddings=False).named_parameters())
    word = {
        "embeddings": ("embed_tokens.weight", "wte.weight"),
        "head": ("lm_head.weight",),
        "attention": ("q_proj.weight", "qkv_proj.weight", "c_attn.weight"),
        "norm": ("norm.weight", "ln_f.weight"),
    }[part]
    name = next(n for n in names if n.endswith(word))
    *_, patch = changed(architecture, name, tie_word_embeddings=False)
    assert list(patch.slices) == [name]
    with pytest.raises(PatchError, match=rf"{name}: expected changes of .*WeightPatch\.save"):
        patch.to_lora()


@pytest.mark.parametrize("architecture", ["llama", "gptj", "gpt2"])
def test_every_linear_module_of_a_feed_forward_block_is_exported(architecture, tmp_path):
    """And those that a form names are all there are."""
    model = make_model(architecture)
    form = FORMS[find_blocks(model)[0].form]
    blocks = [(name, m) for name, m in model.named_modules() if name.endswith(".0.mlp")]
    linear = [n for n, m in blocks[0][1].named_modules() if isinstance(m, torch.nn.Linear | Conv1D)]
    assert sorted(linear) == sorted(form.linear)
    for n in linear:
        before, after, patch = changed(architecture, f"{blocks[0][0]}.{n}.weight")
        loaded = load_adapter(before, patch.to_lora().save(tmp_path / n))
        torch.testing.assert_close(logits(loaded), logits(after), rtol=0, atol=2e-5)
