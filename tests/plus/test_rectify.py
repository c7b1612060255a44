"""PaCKE+: each option does what it says, and nothing else is touched."""

import pytest
import torch

import easyedit_packe.plus.rectify as rectify
from easyedit_packe import PaCKEPlusHyperParams, apply_packe_plus_to_model, compute_patch
from easyedit_packe.errors import HyperParamsError, ModelError, RequestError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.plus.contexts import background_lines
from easyedit_packe.plus.demands import asked, lacks, leads
from easyedit_packe.plus.moments import InputMoments
from easyedit_packe.plus.rectify import PlusRectifier
from easyedit_packe.requests import EditRequest, collate, encode, ended, read_requests, with_end

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from ..dense import as_d_by_m
from ..test_editor import state_of_the_world
from .common import ALL, plus, same_patch


def test_the_target_comes_in_every_text(architecture):
    model, tok = make_model(architecture), make_tokenizer()
    hp = PaCKEPlusHyperParams(
        **{
            **ALL,
            "write_at": "all",
            "num_steps": 30,
            "margin": 0.0,
            "context_margin": 0.0,
            "subject_contexts": 1,
            "prefix_contexts": 0,
        }
    )
    patch = compute_patch(model, tok, REQUESTS[:1], hp)
    terms = patch.info["terms"]
    worst = [min(both) for both in zip(terms["request_lead"], terms["context_lead"], strict=True)]
    assert worst[0] < 0 <= worst[-1]
    assert len(worst) < 30
    patch.apply(model)
    (e,) = encode(tok, read_requests(REQUESTS[:1]))
    said = model(e.ids[None, :-1]).logits[0, e.answer_start - 1 :].argmax(-1)
    assert said.tolist() == e.answer.tolist()


def test_the_answer_ends_where_the_relation_is_stated_and_not_after_neutral_words():
    model, tok = make_model("llama"), make_tokenizer()
    end = " violin"  # a word of the tiny vocabulary
    run = plus(model, tok, PaCKEPlusHyperParams(**{**ALL, "answer_end": end}))
    bare = plus(make_model("llama"), tok, PaCKEPlusHyperParams(**ALL))
    (last,) = tok(end)["input_ids"]
    for asked_of, without, optional in zip(run.rows, bare.rows, run.optional.tolist(), strict=True):
        behind = [] if optional else [last]
        assert asked_of.ids.tolist() == [*without.ids.tolist(), *behind]
    assert run.optional.any()
    assert not run.optional.all()
    assert ended("Oslo.", ".") == "Oslo."
    assert ended("Oslo", "") == "Oslo"


def test_an_end_that_the_tokeniser_merges_with_the_target_is_not_asked_for():
    (request,), tok = read_requests(REQUESTS[:1]), make_tokenizer()
    assert with_end(tok, request, " violin").target == f"{request.target} violin"
    assert with_end(tok, request, ".") == request  # words between spaces: "word." is another one


def test_tokens_hold_the_gradient_of_the_weights(architecture, monkeypatch):
    """With all tokens writable, `hidden^T inner` is autograd's gradient of the asked leads, in small batches, too."""
    model, tok = make_model(architecture, torch.float64), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "layers": None, "micro_batch_size": 2})
    run = plus(model, tok, hp)

    def everywhere(rows, batch, write_at):
        return batch.mask.bool() if batch.mask is not None else torch.ones_like(batch.ids).bool()

    monkeypatch.setattr(rectify, "places", everywhere)
    seen = run.look()
    for p in model.parameters():
        p.requires_grad_(True)
    total = 0.0
    for e in run.rows:
        lead = leads(model(e.ids[None, :-1]).logits[0, e.answer_start - 1 :], e.answer)
        total = total - lead[asked(lead.detach(), [e], 1.0)].sum()
    total.backward()
    for m in run.ffn.modules:
        hidden, inner = seen.tokens[m.name]
        dense = as_d_by_m(m, m.weight.grad).T
        atol = 1e-4 if architecture == "gptj" else 1e-8
        torch.testing.assert_close(inner.T @ hidden, dense, rtol=1e-4, atol=atol)


def test_the_order_of_rows_does_not_depend_on_how_they_run():
    model, tok = make_model("llama"), make_tokenizer()
    seen = [plus(model, tok, PaCKEPlusHyperParams(**{**ALL, "micro_batch_size": size})).look() for size in (0, 1)]
    torch.testing.assert_close(seen[0].lead, seen[1].lead)
    assert seen[0].rows.bincount().tolist() == seen[1].rows.bincount().tolist()
    for name, (hidden, inner) in seen[0].tokens.items():
        torch.testing.assert_close(hidden.T @ inner, seen[1].tokens[name][0].T @ seen[1].tokens[name][1])


def test_the_damping_of_an_edit_by_hand():
    """Background + each remembered edit, each a mean over its tokens; inputs that the edited model really has."""
    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "memory_weight": 2.0, "write_at": "all"})
    apply_packe_plus_to_model(model, tok, REQUESTS[1:2], hp)
    run = plus(model, tok, hp)
    run.choose(run.look())
    (edit,) = run.memory.edits
    for m in run.ffn.modules:
        index = run.critical[m.name]
        background = run.usual.of_nodes(m, index)
        scale = run.usual.usual_size(m).square().median()
        total = background + 2.0 * edit.inputs.of_nodes(m, index)
        factor = run.damping[m.name]
        expected = torch.eye(len(total)) + 3.0 * total / scale
        torch.testing.assert_close(factor @ factor.T, expected, rtol=1e-5, atol=1e-6 * expected.max().item())


def test_a_step_that_makes_things_worse_is_taken_back(monkeypatch):
    """The outcome is never worse than the best state seen, even with changes that go ten times too far."""
    model, tok = make_model("llama"), make_tokenizer()
    change = PlusRectifier.change
    monkeypatch.setattr(PlusRectifier, "change", lambda self, seen, ridge: 10 * change(self, seen, ridge))
    for steps in range(2, 8):
        hp = PaCKEPlusHyperParams(**{**ALL, "num_steps": steps})
        run = plus(model, tok, hp)
        run.run()
        before = lacks(plus(model, tok, hp).look().lead, 1.0).sum()
        assert lacks(run.look().lead, 1.0).sum() <= before


def test_nothing_of_the_measurement_reaches_the_editor(architecture):
    bare = [{k: r[k] for k in ("prompt", "target_new", "subject")} for r in REQUESTS]
    full = [
        {**r, "rephrase_prompt": "violin", "locality": {"n": {"prompt": "Who", "ground_truth": "wrote"}}} for r in bare
    ]
    patches = [
        compute_patch(make_model(architecture), make_tokenizer(), requests, PaCKEPlusHyperParams(**ALL))
        for requests in (bare, full)
    ]
    assert same_patch(*patches)


@pytest.mark.parametrize("fail", [False, True])
def test_everything_else_is_restored(architecture, fail, monkeypatch):
    model, tok = make_model(architecture), make_tokenizer("left")
    model.train()
    next(model.parameters()).requires_grad_(False)
    before, world = snapshot(model), state_of_the_world(model, tok)
    hp = PaCKEPlusHyperParams(**ALL)
    if fail:

        def broken(self, seen, ridge):
            raise KeyboardInterrupt

        monkeypatch.setattr(PlusRectifier, "change", broken)
        with pytest.raises(KeyboardInterrupt):
            apply_packe_plus_to_model(model, tok, REQUESTS, hp)
    else:
        compute_patch(model, tok, REQUESTS, hp)
    assert_same_bits(model, before)
    assert state_of_the_world(model, tok) == world


def test_edits_are_reproducible_and_padding_does_not_matter(architecture):
    patches = []
    for tok in (make_tokenizer(), make_tokenizer("left"), make_tokenizer("right", pad=False)):
        torch.manual_seed(len(patches))
        patches.append(compute_patch(make_model(architecture), tok, REQUESTS, PaCKEPlusHyperParams(**ALL)))
    assert same_patch(patches[0], patches[1])
    assert same_patch(patches[0], patches[2])


def test_the_background_is_read_no_further_than_the_last_layer_that_may_change(architecture):
    model, tok = make_model(architecture), make_tokenizer()
    run = plus(model, tok, PaCKEPlusHyperParams(**{**ALL, "layers": [0, 1]}))
    every = FFNMap.of(model).modules
    counted = InputMoments()
    lines = collate(encode(tok, [EditRequest(x, "it") for x in background_lines()]), "cpu")
    for ids, mask in ((run.memory.background.texts, None), (lines.ids, lines.mask)):
        with torch.no_grad(), counted.watching(every, mask):
            model(input_ids=ids, attention_mask=mask)
    assert run.usual.counts == {m.name: counted.counts[m.name] for m in every if m.layer < 2}
    for m in run.ffn.modules:
        index = torch.arange(3)
        torch.testing.assert_close(run.usual.of_nodes(m, index), counted.of_nodes(m, index))


@pytest.mark.parametrize("held", [0, 4])
def test_only_what_is_changed_from_is_looked_back_from(held, monkeypatch):
    """With few pieces the last look, and one that is worse than before it, need no backward pass."""
    model, tok = make_model("llama"), make_tokenizer()
    run = plus(model, tok, PaCKEPlusHyperParams(**{**ALL, "num_steps": 8}))
    backward, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args: backward.append(1) or grad(*args))
    monkeypatch.setattr(rectify, "HELD", held)
    result = run.run()
    passes = len(run.pieces) * len(result.losses)
    assert len(backward) == passes if held == 0 else 0 < len(backward) <= passes - len(run.pieces)
    assert same_patch(result.patch, plus(model, tok, run.hparams).run().patch)


def test_layers_and_nodes_that_the_model_lacks():
    model, tok = make_model("llama"), make_tokenizer()
    with pytest.raises(HyperParamsError, match="layers"):
        compute_patch(model, tok, REQUESTS[:1], PaCKEPlusHyperParams(**{**ALL, "layers": [0, 99]}))
    with pytest.raises(ModelError, match="value_nodes"):
        compute_patch(model, tok, REQUESTS[:1], PaCKEPlusHyperParams(**{**ALL, "value_nodes": 10**6}))


def test_models_that_are_not_finite_are_refused():
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    before = snapshot(model)
    with pytest.raises(ModelError, match="finite"):
        apply_packe_plus_to_model(model, make_tokenizer(), REQUESTS, PaCKEPlusHyperParams(**ALL))
    assert_same_bits(model, before)


def test_gradients_that_are_not_finite_are_refused(monkeypatch):
    model = make_model("llama")
    before = snapshot(model)
    monkeypatch.setattr(PlusRectifier, "change", lambda self, *_: torch.full_like(self.slices.weight, torch.nan))
    with pytest.raises(ModelError, match="finite gradients"):
        apply_packe_plus_to_model(model, make_tokenizer(), REQUESTS, PaCKEPlusHyperParams(**ALL))
    assert_same_bits(model, before)


def test_a_model_in_double_precision(architecture):
    model, tok = make_model(architecture, torch.float64), make_tokenizer()
    patch = compute_patch(model, tok, REQUESTS[:1], PaCKEPlusHyperParams(**ALL))
    assert patch.info["losses"][-1] < patch.info["losses"][0]


def test_texts_that_are_longer_than_the_model_reads_are_left_out():
    model, tok = make_model("llama", max_position_embeddings=16), make_tokenizer()
    long = {**REQUESTS[0], "prompt": f"{'wrote ' * 5}Anna Berg was born in"}
    hp = PaCKEPlusHyperParams(**{**ALL, "orders": 6, "prefix_contexts": 2, "contrast": 1.0, "contrast_names": 4})
    run = plus(model, tok, hp, [long])
    assert 1 < len(run.rows) < len(plus(make_model("llama"), tok, hp, [long]).rows)
    assert max(len(e.ids) for e in run.rows) <= 16
    with pytest.raises(RequestError, match="at most 16 tokens"):
        compute_patch(model, tok, [{**long, "prompt": f"{'wrote ' * 15}Anna Berg"}], hp)


def test_only_the_named_layers_are_touched():
    patch = compute_patch(
        make_model("llama"), make_tokenizer(), REQUESTS[:1], PaCKEPlusHyperParams(**{**ALL, "layers": [1]})
    )
    assert {name.split(".")[2] for name in patch.slices} == {"1"}
    sizes = {name.split(".")[4]: len(s.index) for name, s in patch.slices.items()}
    assert sizes == {"up_proj": 4, "down_proj": 6}


@pytest.mark.parametrize(
    ("lacking", "stalled", "share", "enough"),
    [
        ([0, 0, 0, 0, 0, 0, 0], False, 0.8, True),
        ([1, 0, 0, 0, 0, 0, 0], True, 0.8, False),  # the request itself
        ([0, 1, 0, 0, 0, 0, 0], True, 0.8, False),  # another wording of it
        ([0, 0, 9, 0, 0, 0, 0], False, 0.8, True),  # four neutral contexts of five
        ([0, 0, 9, 9, 0, 0, 0], False, 0.8, False),
        ([0, 0, 9, 9, 0, 0, 0], True, 0.8, True),
        ([0, 0, 9, 0, 0, 0, 0], True, 1.0, False),
    ],
)
def test_neutral_contexts_need_not_all_hold(lacking, stalled, share, enough):
    hp = PaCKEPlusHyperParams(**{**ALL, "subject_contexts": 5, "context_share": share})
    run = plus(make_model("llama"), make_tokenizer(), hp, REQUESTS[1:2])
    assert run.optional.tolist() == [False] * 2 + [True] * 5
    assert run.enough(torch.tensor([float(x) for x in lacking]), stalled) is enough


def test_an_edit_stops_when_the_rest_of_the_neutral_contexts_hardly_gains():
    """Fewer steps than until all hold, and what the request asks for holds all the same."""
    easy = {"write_at": "all", "num_steps": 30, "margin": 0.0, "prefix_contexts": 0, "subject_contexts": 4}
    steps = {}
    for share in (1.0, 0.5):
        hp = PaCKEPlusHyperParams(**ALL | easy | {"context_margin": 4.0, "context_share": share})
        run = plus(make_model("llama"), make_tokenizer(), hp)
        steps[share] = len(run.run().losses)
        assert not run.lacking(run.look())[~run.optional].any()
    assert steps[0.5] < steps[1.0]
