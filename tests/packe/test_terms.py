"""The fallback from one backward pass for both terms to one for each."""

import gc
import logging
import weakref

import pytest
import torch

import easyedit_packe.packe.rectify as rectify
from easyedit_packe import PaCKEHyperParams, compute_patch
from easyedit_packe.model.bits import same_bits
from easyedit_packe.packe.terms import Backward

from ..conftest import REQUESTS, make_model, make_tokenizer


def test_what_failed_is_gone_before_the_next_try():
    backward, graphs = Backward(batched=True), []

    def run():
        assert [ref() for ref in graphs] == [None] * len(graphs)
        graph = 2 * torch.zeros(3, requires_grad=True)
        graphs.append(weakref.ref(graph))
        if backward.batched:
            raise RuntimeError("CUDA out of memory")
        return "done"

    assert backward.if_possible(run) == "done"
    assert len(graphs) == 2
    assert not backward.batched


def test_what_fails_without_batching_is_an_error():
    def run():
        tried.append(1)
        raise RuntimeError("CUDA out of memory")

    for batched, tries in ((True, 2), (False, 1)):
        tried = []
        with pytest.raises(RuntimeError, match="out of memory"):
            Backward(batched).if_possible(run)
        assert len(tried) == tries


@pytest.mark.parametrize(
    "settings",
    [{}, {"reuse_trace": False}, {"contrast_step": "separate", "retrace_every": 1}, {"micro_batch_size": 2}],
    ids=str,
)
def test_no_forward_pass_begins_while_an_earlier_ones_graph_is_held(settings, monkeypatch, caplog):
    hp = PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=3, **settings)
    expected = compute_patch(
        make_model("llama"), make_tokenizer(), REQUESTS, PaCKEHyperParams(**{**hp.to_dict(), "batch_terms": False})
    )
    forward, grad, graphs = rectify.answer_logits, torch.autograd.grad, []

    def watched(model, batch):
        assert [ref for ref in graphs if ref() is not None] == []
        logits = forward(model, batch)
        graphs.append(weakref.ref(logits))
        return logits

    def without_batches(*args, is_grads_batched=False, **kwargs):
        if is_grads_batched:
            raise RuntimeError("CUDA out of memory")
        return grad(*args, **kwargs)

    monkeypatch.setattr(rectify, "answer_logits", watched)
    monkeypatch.setattr(torch.autograd, "grad", without_batches)
    gc.disable()  # what only the collector frees would still take memory while the next pass runs
    try:
        with caplog.at_level(logging.WARNING):
            patch = compute_patch(make_model("llama"), make_tokenizer(), REQUESTS, hp)
    finally:
        gc.enable()
    assert ("CUDA out of memory" in caplog.text) == (settings.get("contrast_step") != "separate")
    for name, s in expected.slices.items():
        assert same_bits(s.new, patch.slices[name].new)
