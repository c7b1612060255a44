"""Editors that only EasyEdit's HEAD has, and SimIE around any editor."""

import copy
import functools

import pytest
import torch

from easyedit_packe.bench.metrics.scoring import score
from easyedit_packe.bench.session import seeded
from easyedit_packe.bench.simie import SimIE
from easyedit_packe.bench.weights import Weights
from easyedit_packe.easyedit import routed
from easyedit_packe.easyedit.host import host
from easyedit_packe.easyedit.state import accumulated, forget, fresh_state
from easyedit_packe.errors import EasyEditError, HyperParamsError, RequestError
from easyedit_packe.registry import hparams_class, missing_editor, register
from easyedit_packe.requests import EditRequest

from ..conftest import assert_same_bits, make_tokenizer, snapshot
from .test_baselines import ALL, by_name, cache, settings, tiny  # noqa: F401 (a fixture)

register()
head = pytest.mark.skipif(bool(missing_editor("GRACE")), reason="only EasyEdit's HEAD has these editors")
ONE, TWO = ALL[:2]


@pytest.fixture(autouse=True)
def _seeds():
    """WISE draws which of its entries an edit may change; GRACE, where its values start."""
    with seeded(0):
        yield


def pair(request):
    return request["prompt"], request["target_new"]


@pytest.mark.skipif(not missing_editor("GRACE"), reason="EasyEdit's HEAD has these editors")
@pytest.mark.parametrize("name", ["GRACE", "WISE", "ULTRAEDIT", "SPHERE"])
def test_the_release_says_where_they_are(name):
    with pytest.raises(EasyEditError, match=f"has no {name}; set EASYEDIT_HOME to a checkout of EasyEdit's HEAD"):
        hparams_class(name)


@head
@pytest.mark.parametrize("name", ["GRACE", "WISE"])
def test_a_router_answers_its_question_and_leaves_the_model(name):
    model, tok = tiny(), make_tokenizer("left")
    before, modules, weights = snapshot(model), dict(model.named_modules()), Weights(model)
    flags = [p.requires_grad for p in model.parameters()]
    (unedited,) = score(model, tok, [pair(ONE)])
    with fresh_state():
        # with act_ratio 0 WISE's router takes every text that its memory changes: a tiny model tells texts ill apart
        wrapped, _ = by_name(name, model, [ONE], settings(name, n_iter=40, act_ratio=0.0), tok=tok)
    assert routed.unwrapped(wrapped) is model
    assert len(routed.adapters(model)) == 1
    assert weights.changed() == {}
    assert score(model, tok, [pair(ONE)])[0].log_prob > unedited.log_prob
    assert tok.padding_side == "left"
    weights.restore(model)
    assert dict(model.named_modules()) == modules
    assert_same_bits(model, before)
    assert [p.requires_grad for p in model.parameters()] == flags


@head
@pytest.mark.parametrize("name", ["GRACE", "WISE"])
def test_a_routed_model_sees_each_text_alone(name):
    model, tok = tiny(), make_tokenizer("left")
    with fresh_state():
        by_name(name, model, [ONE], settings(name, n_iter=40), tok=tok)
    pairs = [pair(TWO), pair(ONE), ("Who wrote", "the piano")]
    assert score(model, tok, pairs) == [score(model, tok, [p])[0] for p in pairs]


@head
def test_grace_is_asked_at_the_end_of_each_question():
    """EasyEdit looks up the position at which the last edited question ended, whatever is asked."""
    model, tok = tiny(), make_tokenizer("left")
    with fresh_state():
        for request in (ONE, {**TWO, "prompt": f"Who plays {TWO['prompt']}"}):
            by_name("GRACE", model, [request], settings("GRACE", n_iter=60), tok=tok)
    (adapter,) = routed.adapters(model)
    assert len(adapter.keys) == 2
    seen = []
    adapter.register_forward_pre_hook(lambda m, _: seen.append(m.key_id))
    score(model, tok, [pair(ONE), pair(TWO)])
    assert seen == [len(tok(r["prompt"])["input_ids"]) - 1 for r in (ONE, TWO)]


@head
@pytest.mark.parametrize("name", ["GRACE", "WISE"])
def test_a_router_is_built_again_from_its_state(name):
    model, tok = tiny(), make_tokenizer("left")
    hparams, pairs = settings(name, n_iter=20), [pair(ONE), pair(TWO)]
    with fresh_state():
        for request in (ONE, TWO):
            by_name(name, model, [request], hparams, tok=tok)
        state, expected = routed.state(model), score(model, tok, pairs)
        other = tiny()
        assert score(other, tok, pairs) != expected
        assert routed.put_back(other, hparams, {**state, "else": torch.ones(1)}) == {"else": torch.ones(1)}
        assert score(other, tok, pairs) == expected


@head
@pytest.mark.parametrize("name", ["GRACE", "WISE"])
def test_what_a_router_refuses(name):
    with pytest.raises(RequestError, match=f"expected one request a call, got 2: {name} writes one fact"):
        by_name(name, tiny(), [ONE, TWO], settings(name))
    if name == "WISE":
        with pytest.raises(HyperParamsError, match="retrieve: expected true, got false"):
            by_name(name, tiny(), [ONE], settings(name, retrieve=False))


@head
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gptj"])
def test_ultraedit_edits_a_model_of_any_name_and_can_be_taken_back(architecture):
    model = tiny(architecture)
    before = snapshot(model)
    _, originals = by_name("ULTRAEDIT", model, [ONE], settings("ULTRAEDIT", architecture, lr=1e-3))
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == set(originals)
    assert len(changed) == 2
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for name, value in originals.items():
        model.get_parameter(name).data.copy_(value)
    assert_same_bits(model, before)


@head
def test_ultraedits_means_last_for_a_run_and_no_longer():
    def counted():
        return {k: v.item() for k, v in accumulated("ULTRAEDIT").items() if k.endswith(".n")}

    tok, hparams = make_tokenizer("left"), settings("ULTRAEDIT", lr=1e-3)
    tokens = [len(tok(EditRequest.from_dict(r).text)["input_ids"]) for r in (ONE, TWO)]
    with fresh_state():
        model = tiny()
        by_name("ULTRAEDIT", model, [ONE], hparams, tok=tok)
        # two layers of one shape share their means, so each token counts twice
        assert list(counted().values()) == [2 * tokens[0]]
        by_name("ULTRAEDIT", model, [TWO], hparams, tok=tok)
        assert list(counted().values()) == [2 * sum(tokens)]
        forget("ULTRAEDIT")
        assert counted() == {}
    by_name("ULTRAEDIT", tiny(), [ONE], hparams, tok=tok)
    assert counted() == {}


@head
@pytest.mark.parametrize("size", [1, 2, 3])
def test_ultraedit_takes_any_number_of_requests(size):
    hparams = settings("ULTRAEDIT", lr=1e-3, batch_size=100, batch_size_once=2)
    model = tiny()
    before = snapshot(model)
    by_name("ULTRAEDIT", model, ALL[:size], hparams)
    assert any(not torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert (hparams.batch_size, hparams.batch_size_once) == (100, 2)


# --- SimIE -------------------------------------------------------------------------------------------------------


def in_simie(model, strength, edits):
    """Edits that set one matrix each, given as (request, matrix's name, its edited value)."""
    weights = Weights(model)
    around = SimIE(weights, strength)
    for request, name, value in edits:

        def apply(name=name, value=value):
            assert weights.changed() == {}  # each edit is made of the unedited model
            with torch.no_grad():
                model.get_parameter(name).copy_(value)

        around.edit(model, make_tokenizer(), EditRequest.from_dict(request), apply)
    return around


def inputs_of(model, name, request):
    found = []
    module = model.get_submodule(name.removesuffix(".weight"))
    handle = module.register_forward_hook(lambda _, args, __: found.append(args[0][0].T.double()))
    model(**make_tokenizer()(EditRequest.from_dict(request).text, return_tensors="pt"))
    handle.remove()
    return found[0].detach()


def test_simie_is_the_least_squares_solution_over_all_edits():
    """min over W of sum_t |W K_t - W_t K_t|^2 + lambda |W - W_0|^2, solved here in one piece in float64."""
    model, name = tiny(), "model.layers.1.mlp.down_proj.weight"
    base = model.get_parameter(name).detach().clone()
    generator = torch.Generator().manual_seed(1)
    edited = [base + 0.3 * torch.randn(base.shape, generator=generator) for _ in range(2)]
    keys = [inputs_of(model, name, r) for r in (ONE, TWO)]
    in_simie(model, 0.7, [(r, name, w) for r, w in zip((ONE, TWO), edited, strict=True)])
    left = sum(k @ k.T for k in keys) + 0.7 * torch.eye(base.shape[1], dtype=torch.float64)
    right = sum((w - base).double() @ k @ k.T for w, k in zip(edited, keys, strict=True))
    expected = base.double() + torch.linalg.solve(left, right.T).T
    assert torch.allclose(model.get_parameter(name).double(), expected, atol=1e-5)
    assert not torch.allclose(expected, edited[1].double(), atol=1e-2)


def test_simie_goes_on_from_its_sums():
    name = "model.layers.1.mlp.down_proj.weight"
    whole, half = tiny(), tiny()
    values = [whole.get_parameter(name).detach() + s for s in (0.1, -0.2)]
    edits = list(zip((ONE, TWO), (name, name), values, strict=True))
    in_simie(whole, 1.0, edits)
    weights = Weights(half)  # of the unedited model
    first = in_simie(half, 1.0, edits[:1])
    again = SimIE(weights, 1.0)
    again.load(first.tensors())

    def apply():
        with torch.no_grad():
            half.get_parameter(name).copy_(values[1])

    again.edit(half, make_tokenizer(), EditRequest.from_dict(TWO), apply)
    assert_same_bits(half, snapshot(whole))


def test_simie_takes_linear_weights_only():
    model = tiny()
    name = "model.norm.weight"
    with pytest.raises(EasyEditError, match=f"weights of linear layers; the editor also changed {name}"):
        in_simie(model, 1.0, [(ONE, name, torch.full((16,), 2.0))])


@pytest.mark.skipif(host("models.simie") is None, reason="only EasyEdit's HEAD has SimIE")
def test_simie_is_easyedits_own_around_rome():
    theirs, ours = tiny(), tiny()
    rome = settings("ROME")
    outer = hparams_class("SimIE")(
        base_method="ROME", lamHyper=3.0, init_model=True, solver="LU", fast=False, alg_name="SimIE",
        model_name="tiny-llama", device="cpu", max_length=40, model_parallel=False, fp16=False,
    )  # fmt: skip
    outer._base_hparams = rome
    with fresh_state():
        for request in (ONE, TWO):
            torch.manual_seed(0)
            by_name("SimIE", theirs, [copy.deepcopy(request)], outer)
    weights = Weights(ours)
    around = SimIE(weights, 3.0)
    with fresh_state():
        for request in (ONE, TWO):
            torch.manual_seed(0)
            apply = functools.partial(by_name, "ROME", ours, [request], rome)
            around.edit(ours, make_tokenizer(), EditRequest.from_dict(request), apply)
    expected = snapshot(theirs)
    changed = weights.changed()
    assert changed
    for name, value in changed.items():
        assert torch.allclose(value, expected[name], atol=1e-5)


@head
@pytest.mark.parametrize("name", ["GRACE", "WISE"])
def test_a_router_that_is_taken_out_leaves_the_very_modules(name):
    model = tiny()
    modules, flags = dict(model.named_modules()), [p.requires_grad for p in model.parameters()]
    with fresh_state():
        _, take_out = by_name(name, model, [ONE], settings(name, n_iter=2))
    take_out()
    assert dict(model.named_modules()) == modules
    assert [p.requires_grad for p in model.parameters()] == flags


@head
def test_loras_own_checkpoints_and_hooks_stay_the_users():
    model = tiny()
    model.gradient_checkpointing_enable()
    hooks = list(model.get_input_embeddings()._forward_hooks)
    with fresh_state():
        edited, _ = by_name("LoRA", model, [ONE], settings("LoRA"))
        assert list(model.get_input_embeddings()._forward_hooks) == hooks
        copied, _ = by_name("LoRA", tiny(), [ONE], settings("LoRA"), copy=True)
    assert not any(m._forward_hooks for m in copied.modules())
    assert edited.unload().is_gradient_checkpointing
