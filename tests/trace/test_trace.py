"""The nodes that are shown are those that an edit then changes, and the model stays as it was."""

import dataclasses

import pytest
import torch

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, compute_patch, trace_requests, trace_together
from easyedit_packe.errors import HyperParamsError, ModelError, RequestError
from easyedit_packe.requests import EditRequest
from easyedit_packe.trace.picture import draw_path
from easyedit_packe.trace.text import path_table
from easyedit_packe.trace.trace import name_of, would_change

from ..conftest import CHAT, REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot

HP = PaCKEHyperParams(num_critical_paths=4, num_negative_paths=2, lr=1e-2, num_steps=3, edit_batch_size=0, device="cpu")


def changed_by(patch, traces):
    """By module; in a packed matrix, nodes are counted from the first key on."""
    slices = {m.name: (patch.slices[f"{m.name}.weight"], m.first) for m in traces[0].modules}
    assert {f"{name}.weight" for name in slices} == {name for name in patch.slices if name.endswith(".weight")}
    return {name: sorted(j - first for j in s.index.tolist()) for name, (s, first) in slices.items()}


def shown_by(traces):
    """T+ and T- of all of them, by module."""
    return {
        m.name: sorted({
            j for t in traces for nodes in (t.nodes.critical, t.nodes.negative) for j in nodes[m.name].tolist()
        })
        for m in traces[0].modules
    }  # fmt: skip


@pytest.mark.parametrize("score", ["zscore", "gradient_sum", "gradient_norm"])
@pytest.mark.parametrize("reuse_trace", [True, False])
def test_of_one_request_they_are_the_edits(architecture, score, reuse_trace):
    model, tok = make_model(architecture), make_tokenizer()
    hparams = dataclasses.replace(HP, score=score, reuse_trace=reuse_trace)
    for request in REQUESTS:
        (trace,) = trace_requests(model, tok, [request], hparams)
        assert shown_by([trace]) == changed_by(compute_patch(model, tok, [request], hparams), [trace])


@pytest.mark.parametrize("changes", [
    {}, {"edit_batch_size": 2}, {"edit_batch_size": 1, "micro_batch_size": 1}, {"shuffle": True, "edit_batch_size": 2},
])  # fmt: skip
def test_of_requests_that_are_traced_together_they_are_the_edits(architecture, changes):
    model, tok = make_model(architecture), make_tokenizer()
    hparams = dataclasses.replace(HP, **changes)
    trace = trace_together(model, tok, REQUESTS, hparams)
    assert [r.prompt for r in trace.requests] == [r["prompt"] for r in REQUESTS]
    assert shown_by([trace]) == changed_by(compute_patch(model, tok, REQUESTS, hparams), [trace])


def test_critical_and_negative_are_told_apart():
    """With no contrast there is no T-, and the edit changes T+ alone; T- is then what the edit with it adds."""
    model, tok = make_model("llama"), make_tokenizer()
    (trace,) = trace_requests(model, tok, REQUESTS[:1], HP)
    alone = dataclasses.replace(HP, num_negative_paths=0, contrast_weight=0.0)
    without = changed_by(compute_patch(model, tok, REQUESTS[:1], alone), [trace])
    assert without == {name: sorted(index.tolist()) for name, index in trace.nodes.critical.items()}
    both = changed_by(compute_patch(model, tok, REQUESTS[:1], HP), [trace])
    for name, index in trace.nodes.negative.items():
        assert sorted({*both[name]} - {*without[name]}) == sorted(index.tolist())


def test_a_chat_template_is_traced_as_it_is_edited():
    model, tok = make_model("llama"), make_tokenizer()
    tok.chat_template = CHAT
    hparams = dataclasses.replace(HP, use_chat_template=True)
    (bare,), (trace,) = (trace_requests(model, tok, REQUESTS[:1], hp) for hp in (HP, hparams))
    patch = compute_patch(model, tok, REQUESTS[:1], hparams)
    assert shown_by([trace]) == changed_by(patch, [trace]) != shown_by([bare])


def test_the_path_is_the_best_key_and_value_of_each_layer():
    (trace,) = trace_requests(make_model("gptj"), make_tokenizer(), REQUESTS[:1], HP)
    assert [(m.layer, m.kind) for m, _, _ in trace.path] == [(i, kind) for i in range(3) for kind in ("key", "value")]
    for m, node, score in trace.path:
        assert score == trace.scores[m.name].max() == trace.scores[m.name][node]
    assert trace.layers == [0, 1, 2]
    assert len(trace.critical) == 3 * 2 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_would_change_is_what_the_patch_holds(architecture, dtype, tmp_path):
    """Two facts share some nodes, and their edit, on top of each other, changes these once."""
    model, tok = make_model(architecture, dtype), make_tokenizer()
    trace = trace_together(model, tok, REQUESTS, HP)
    patch = compute_patch(model, tok, REQUESTS, HP)
    change = would_change([trace])
    assert change.vectors == 3 * 2 * (4 + 2)
    assert change.weights == patch.num_weights
    assert change.share == patch.num_weights / sum(p.numel() for p in model.parameters())
    held = [t for s in patch.slices.values() for t in (s.index, s.old, s.new)]
    assert change.bytes == sum(t.numel() * t.element_size() for t in held)
    assert change.bytes < patch.save(tmp_path / "p").stat().st_size
    traces = trace_requests(model, tok, REQUESTS, HP)
    assert would_change(traces).vectors == sum(map(len, shown_by(traces).values())) < 3 * change.vectors


def test_the_model_comes_out_as_it_went_in():
    model, tok = make_model("gpt2").train(), make_tokenizer()
    before, state = snapshot(model), torch.get_rng_state()
    trace_requests(model, tok, REQUESTS, HP)
    with pytest.raises(ModelError, match="at most the model's 32 nodes"):
        trace_requests(model, tok, REQUESTS, dataclasses.replace(HP, num_critical_paths=31))
    assert_same_bits(model, before)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_traced_is_refused():
    model, tok = make_model("llama"), make_tokenizer()
    with pytest.raises(HyperParamsError, match="PaCKE\\+ has no path to show before its edit"):
        trace_requests(model, tok, REQUESTS, PaCKEPlusHyperParams(num_critical_paths=4))
    with pytest.raises(HyperParamsError, match="num_critical_paths: expected at least 1 to show a path, got 0"):
        trace_requests(model, tok, REQUESTS, dataclasses.replace(HP, num_critical_paths=0))
    with pytest.raises(RequestError, match="non-empty text in 'target_new'"):
        trace_requests(model, tok, [{"prompt": "Omar plays"}], HP)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_those_of_an_edit_of_the_default_model(dtype):
    from easyedit_packe.model.load import load

    model, tok = load("smollm2-135m", dtype=dtype)
    hparams = PaCKEHyperParams.from_hparams("smollm2-135m")
    request = {"prompt": "The Eiffel Tower is located in the city of", "target_new": "Rome"}
    (trace,) = trace_requests(model, tok, [request], hparams)
    patch = compute_patch(model, tok, [request], hparams)
    assert shown_by([trace]) == changed_by(patch, [trace])
    assert would_change([trace]).weights == patch.num_weights


def test_a_name_without_spaces_is_cut_at_a_character():
    (trace,) = trace_requests(make_model("llama"), make_tokenizer(), REQUESTS[:1], HP)
    long = dataclasses.replace(trace, requests=(EditRequest("埃菲尔铁塔位于以下城市" * 6, "罗马"),))
    assert name_of(long, 20) == f"{('埃菲尔铁塔位于以下城市' * 6)[:18]} … → 罗马"
    assert name_of(trace, 50) == f"{REQUESTS[0]['prompt']} → {REQUESTS[0]['target_new']}"


def test_scores_of_nothing_are_shown_as_nothing():
    """Where the model is so sure already that no gradient is left."""
    pytest.importorskip("matplotlib")
    (trace,) = trace_requests(make_model("llama"), make_tokenizer(), REQUESTS[:1], HP)
    nothing = {name: torch.zeros_like(score) for name, score in trace.scores.items()}
    flat = dataclasses.replace(trace, scores=nothing)
    assert "nan" not in "".join(str(cell) for column in path_table(flat).columns for cell in column.cells)
    draw_path(flat)
