"""A model whose layers and head lie on different devices is edited as one that lies on the CPU, bit for bit."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from easyedit_packe import (
    EditStack,
    OriginalWeights,
    PaCKEHyperParams,
    PaCKEPlusHyperParams,
    WeightPatch,
    apply_packe_to_model,
    compute_patch,
)
from easyedit_packe.model.bits import same_bits
from easyedit_packe.model.generation import greedy, token_accuracy
from easyedit_packe.plus.contexts import sample_texts
from easyedit_packe.plus.state import EditMemory

from ..conftest import REQUESTS, make_model, make_tokenizer
from ..plus.common import ALL
from ..pretended_devices import pretended_devices, spread

HP = PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=3, device="cpu")
PLUS = PaCKEPlusHyperParams(**{**ALL, "layers": None, "write_at": "all", "device": "cpu"})
SAME_SUBJECT = {"prompt": "Who wrote Grey Tides is", "target_new": "Omar", "subject": "Grey Tides"}
ONE_MORE = {"prompt": "Anna Berg plays", "target_new": "violin", "subject": "Anna Berg"}


@pytest.fixture(params=["llama", "gptj"])
def architecture(request):
    return request.param


@pytest.fixture(autouse=True)
def placed():
    """All of a test runs with several devices, and what was refused on the way counts, even if somebody caught it."""
    with pretended_devices() as placed:
        yield placed
    assert placed.refused == []


def untied(architecture, dtype=torch.float32):
    return make_model(architecture, dtype, tie_word_embeddings=False)


def both(architecture):
    """(on the CPU, spread)"""
    plain = untied(architecture)
    return plain, spread(copy.deepcopy(plain))


def assert_same_patch(here, there, model=None):
    """Equal, and each parameter's part of `there` lies beside it in `model`."""
    assert here.slices.keys() == there.slices.keys()
    assert here.info == there.info
    for name, s in here.slices.items():
        t = there.slices[name]
        assert (t.axis, t.index.tolist(), t.size) == (s.axis, s.index.tolist(), s.size)
        assert same_bits(s.old, t.old.cpu()), name
        assert same_bits(s.new, t.new.cpu()), name
        if model is not None:
            assert s.new.device.type == "cpu"
            assert t.new.device == t.old.device == model.get_parameter(name).device, name
    assert any(s.change.any() for s in here.slices.values()), "nothing was edited: the comparison says nothing"


def assert_same_weights(here, there):
    for (name, p), q in zip(here.named_parameters(), there.parameters(), strict=True):
        assert q.device.type == "cuda", name
        assert same_bits(p, q.cpu()), name


PACKE = {
    "one request": (1, {}),
    "separate steps": (1, {"contrast_step": "separate"}),
    "one backward pass a term": (1, {"batch_terms": False, "reuse_trace": False}),
    "no contrast": (1, {"contrast_weight": 0}),
    "early stop": (1, {"loss_threshold": 1e-9}),
    "micro batches": (3, {"micro_batch_size": 1, "edit_batch_size": 0}),
    "several batches, traced again": (3, {"edit_batch_size": 2, "retrace_every": 1, "optimizer_state": "carried"}),
    "one batch, traced again": (
        3,
        {"edit_batch_size": 0, "retrace_every": 2, "optimizer_state": "carried", "value_bias": "trained"},
    ),
    "the authors' program": (3, {**HP.authors_program().to_dict(), "edit_batch_size": 2}),
    "by gradient_sum": (3, {"score": "gradient_sum"}),
    "by gradient_norm": (3, {"score": "gradient_norm", "micro_batch_size": 2, "edit_batch_size": 0}),
    "request by request": (3, {"trace": "request"}),
}


@pytest.mark.parametrize("name", PACKE)
def test_packe(architecture, name):
    n, settings = PACKE[name]
    hp = PaCKEHyperParams(**{**HP.to_dict(), **settings})
    here, there = both(architecture)
    patches = [compute_patch(m, make_tokenizer(), REQUESTS[:n], hp) for m in (here, there)]
    assert_same_patch(*patches, there)
    for model, patch in zip((here, there), patches, strict=True):
        patch.apply(model)
    assert_same_weights(here, there)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"layers": [1, 2]}, marks=pytest.mark.slow),
        pytest.param({"micro_batch_size": 4, "null_space": 0.0}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_plus_in_a_row_and_in_a_new_process(architecture, settings, tmp_path):
    """Null space, memory and replay on every device; then all that is known is read from a file, and one more."""
    hp, tok = PaCKEPlusHyperParams(**{**PLUS.to_dict(), **settings}), make_tokenizer()
    here, there = both(architecture)
    for request in [*REQUESTS, SAME_SUBJECT]:
        patches = [compute_patch(m, tok, [request], hp) for m in (here, there)]
        assert_same_patch(*patches, there)
        for model, patch in zip((here, there), patches, strict=True):
            patch.apply(model)
    assert "replay_lead" in patches[1].info["terms"]
    known = [EditMemory.of(m) for m in (here, there)]
    assert [len(k.edits) for k in known] == [4, 4]
    save_file({k: t.contiguous() for k, t in known[1].tensors().items()}, tmp_path / "memory.safetensors")
    save_file({n: p.detach().cpu() for n, p in there.named_parameters()}, tmp_path / "weights.safetensors")

    again = untied(architecture)
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=False)
    again = spread(again)
    assert len(EditMemory.restore(again, load_file(tmp_path / "memory.safetensors")).edits) == 4
    assert_same_patch(*(compute_patch(m, tok, [ONE_MORE], hp) for m in (here, again)), again)


@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_one_device_without_hooks(architecture, hp, tmp_path, monkeypatch):
    """Nobody moves what the model is given, and texts and everything else come from files on the CPU."""
    monkeypatch.setattr("easyedit_packe.model.kept.cache_dir", lambda: tmp_path)
    here, tok = untied(architecture), make_tokenizer()
    there = copy.deepcopy(here).to("cuda:0")
    for request in REQUESTS[:2]:
        patches = [compute_patch(m, tok, [request], hp) for m in (here, there)]
        assert_same_patch(*patches, there)
        for model, patch in zip((here, there), patches, strict=True):
            patch.apply(model)
    assert_same_weights(here, there)
    again = copy.deepcopy(there)
    EditMemory.restore(again, {k: t.cpu() for k, t in EditMemory.of(there).tensors().items()})
    patches = [compute_patch(m, tok, REQUESTS[2:], hp) for m in (here, again)]
    assert_same_patch(*patches, again)


def test_plus_with_several_requests(architecture):
    here, there = both(architecture)
    for settings in ({"trace": "call"}, {"trace": "request"}):
        hp = PaCKEPlusHyperParams(**{**PLUS.to_dict(), **settings})
        assert_same_patch(*(compute_patch(m, make_tokenizer(), REQUESTS, hp) for m in (here, there)), there)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_half_precision(dtype, hp):
    here = untied("llama", dtype)
    there = spread(copy.deepcopy(here))
    patches = [compute_patch(m, make_tokenizer(), REQUESTS[:1], hp) for m in (here, there)]
    assert_same_patch(*patches, there)


def test_what_the_model_writes(architecture):
    here, there = both(architecture)
    texts = [sample_texts(m, make_tokenizer(), 3, 6, seed=1) for m in (here, there)]
    assert torch.equal(*texts)
    tok, r = make_tokenizer(), REQUESTS[2]
    assert greedy(here, tok, r["prompt"]) == greedy(there, tok, r["prompt"])
    accuracy = [token_accuracy(m, tok, r["prompt"], r["target_new"]) for m in (here, there)]
    assert accuracy[0] == accuracy[1]


# Patches from here and there: of the spread model, from a file, and from a model on the CPU.


def edits(architecture, tmp_path):
    """(plain model, spread model, patches on the CPU, the same for the spread one: beside its weights, loaded, moved);
    no patch is in force."""
    here, there = both(architecture)
    plain, patches = [], []
    for request in [*REQUESTS, REQUESTS[0]]:
        plain.append(compute_patch(here, make_tokenizer(), [request], HP))
        patches.append(compute_patch(there, make_tokenizer(), [request], HP))
        plain[-1].apply(here)
        patches[-1].apply(there)
    for p, q in zip(plain[::-1], patches[::-1], strict=True):
        p.revert(here)
        q.revert(there)
    patches[1] = WeightPatch.load(patches[1].save(tmp_path / "one.safetensors"))
    return here, there, plain, [*patches[:2], plain[2], patches[3]]


def test_applied_reverted_and_merged(architecture, tmp_path):
    here, there, plain, patches = edits(architecture, tmp_path)
    assert {s.new.device.type for p in patches for s in p.slices.values()} == {"cpu", "cuda"}
    for p, q in zip(plain, patches, strict=True):
        p.apply(here)
        q.apply(there)
        assert_same_weights(here, there)
    merged = WeightPatch.merge(patches)
    assert_same_patch(WeightPatch.merge(plain), merged)
    assert_same_patch(WeightPatch.merge(plain), WeightPatch.load(merged.save(tmp_path / "merged.safetensors")))
    assert merged.norms() == WeightPatch.merge(plain).norms()
    base = untied(architecture)
    assert_same_patch(WeightPatch.between(base, here), WeightPatch.between(base, there))
    assert_same_patch(WeightPatch.between(base, here), WeightPatch.between(spread(copy.deepcopy(base)), here))
    merged.revert(there)
    assert_same_weights(base, there)


def test_as_an_adapter(architecture, tmp_path):
    _, _, plain, patches = edits(architecture, tmp_path)
    for max_rank in (None, 2):
        a, b = (WeightPatch.merge(p).to_lora(max_rank) for p in (plain, patches))
        assert a.config == b.config
        assert all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())
        assert b.save(tmp_path / str(max_rank)).is_dir()


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (3, 1, 0, 2)])
def test_any_edit_of_a_stack_can_be_taken_back(architecture, order, tmp_path):
    """The first and the last edit touch the same nodes, so that reverting one of them replays the other."""
    here, there, plain, patches = edits(architecture, tmp_path)
    stacks = [EditStack(here), EditStack(there)]
    for stack, own in zip(stacks, (plain, patches), strict=True):
        for patch in own[:3]:
            stack.apply(patch)
        own[3].apply(stack.model)
        stack.push(own[3])
    assert any(set(plain[0].slices[n].index.tolist()) & set(plain[3].slices[n].index.tolist()) for n in plain[0].slices)
    for i in order:
        merged = [stack.merged() for stack in stacks]
        assert_same_patch(*merged)
        assert merged[0].norms() == merged[1].norms()
        for stack, own in zip(stacks, (plain, patches), strict=True):
            stack.revert(own[i])
        assert_same_weights(here, there)
    assert_same_weights(untied(architecture), there)


@pytest.mark.parametrize("loaded", [False, True])
def test_original_weights(architecture, loaded, tmp_path):
    base, there = both(architecture)
    _, originals = apply_packe_to_model(there, make_tokenizer(), REQUESTS, HP, return_orig_weights=True)
    if loaded:
        originals = OriginalWeights(there, WeightPatch.load(originals.patch.save(tmp_path / "p.safetensors")))
    for name, value in originals.items():
        assert value.device == there.get_parameter(name).device
        assert same_bits(value.cpu(), base.get_parameter(name).data)
    originals.restore()
    assert_same_weights(base, there)


def test_a_copy_of_the_model(architecture):
    base, there = both(architecture)
    edited, _ = apply_packe_to_model(there, make_tokenizer(), REQUESTS, HP, copy=True)
    assert_same_weights(base, there)
    assert_same_patch(WeightPatch.between(base, edited), WeightPatch.between(there, edited))
