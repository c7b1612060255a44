"""An edit needs little more memory than a forward pass: slices, a few tokens' activations, and nothing of full size."""

import platform

import pytest
import torch

from easyedit_packe.bench.peak_memory import peak_memory
from easyedit_packe.config.packe import PaCKEHyperParams
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen
from easyedit_packe.packe.rectify import Rectifier, rectify
from easyedit_packe.packe.tracing import NodeSets
from easyedit_packe.requests import Encoded, collate, encode, read_requests

from ..conftest import REQUESTS, make_model, make_tokenizer
from ..live_bytes import peak_bytes
from ..meta_models import llama3_8b


@pytest.mark.slow
def test_a_hundred_requests_over_several_epochs_within_a_tenth_of_the_model():
    model = make_model("llama", layers=6, hidden_size=512, intermediate_size=2048, num_attention_heads=8)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    encoded = encode(make_tokenizer(), read_requests(REQUESTS * 33 + REQUESTS[:1]))
    ffn = FFNMap.of(model)

    @torch.no_grad()
    def forward():
        answer_logits(model, collate(encoded[:2]))

    floor = peak_bytes(forward)
    hp = PaCKEHyperParams(num_steps=2, micro_batch_size=2, lr=1e-4, optimizer_state="carried")
    assert peak_bytes(lambda: rectify(model, ffn, encoded, hp)) - floor <= 0.1 * size


def test_one_request_with_the_papers_sizes():
    model = make_model("llama", layers=6, hidden_size=512, intermediate_size=2048, num_attention_heads=8)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    encoded = encode(make_tokenizer(), read_requests(REQUESTS[:1]))
    assert peak_bytes(lambda: rectify(model, FFNMap.of(model), encoded, PaCKEHyperParams(num_steps=3))) <= 0.1 * size


@pytest.mark.slow
@pytest.mark.parametrize("num_requests", [1, 4])
def test_llama3_8b_with_its_shipped_settings_within_a_tenth_of_the_model(num_requests, monkeypatch):
    """Nodes are given, as there are no scores.

    Two passes, each traced, of one batch and of two, whose gradients have to be summed. The patch is left out.
    """
    model, size = llama3_8b(monkeypatch)

    def given(scores, critical, negative):
        nodes = torch.arange(critical + negative)
        return NodeSets(dict.fromkeys(scores, nodes[:critical]), dict.fromkeys(scores, nodes[critical:]))

    monkeypatch.setattr("easyedit_packe.packe.rectify.choose_nodes", given)
    monkeypatch.setattr("easyedit_packe.packe.rectify.require_finite", lambda *_: None)
    hp = PaCKEHyperParams.from_hparams("llama3-8b")
    encoded = [Encoded(torch.arange(32), 24, None)] * num_requests  # a question and an answer of eight tokens
    edit = Rectifier(model, FFNMap.of(model), encoded, hp)

    def run():
        with frozen(model):
            for _ in range(2):
                batches = list(edit.optimizer_batches())
                edit.known = None
                edit.trace_for(batches)
                for batch in batches:
                    edit.train_on(batch, may_stop=len(batches) == 1)

    assert 0.01 * size <= peak_bytes(run) <= 0.1 * size


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="resident memory is read where the C library is glibc")
def test_the_benchmarks_peak_sees_what_goes_into_freed_memory():
    last = []
    for _ in range(2):  # the second round fits into what the first has freed, and needs as much
        with peak_memory(torch.device("cpu")) as peak:
            blocks = [torch.ones(2**14) for _ in range(2000)]  # small: taken from the heap, not from the system
            last.append(blocks[-1])  # keeps the heap from shrinking by itself
            del blocks
        assert peak.bytes == pytest.approx(2000 * 2**16, rel=0.1)
