"""PaCKE+ beside a large model: what an edit holds where the model is, and what lies in main memory."""

import pytest
import torch

from easyedit_packe import PaCKEPlusHyperParams
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.packe.tracing import NodeSets
from easyedit_packe.plus import background, rectify
from easyedit_packe.plus.moments import InputMoments
from easyedit_packe.plus.names import OTHERS
from easyedit_packe.plus.state import EditMemory
from easyedit_packe.requests import read_requests

from ..conftest import make_tokenizer
from ..live_bytes import peak_bytes
from ..meta_models import llama3_8b

REQUEST = {"prompt": "the capital of Fooland is", "subject": "Fooland", "target_new": "Bartown"}


@pytest.mark.slow
def test_llama3_8b_with_its_shipped_settings_within_035_of_the_model(monkeypatch):
    """The background, which lies in main memory, has the sizes of a real one; nodes are given, as there are no scores.

    Two changes, and the looks before and after.
    """
    model, size = llama3_8b(monkeypatch)

    def given(scores, critical, negative):
        return NodeSets(dict.fromkeys(scores, torch.arange(critical)), dict.fromkeys(scores, torch.arange(negative)))

    for owner, name, stand_in in (
        (torch.linalg, "cholesky_ex", lambda x: (torch.linalg.cholesky(x), False)),  # whether it failed: "yes"
        (rectify, "choose_nodes", given),
        (rectify, "asked", lambda lead, *_: torch.arange(len(lead))),
        (rectify, "same_relation", lambda *_: [["{} was founded by", "{} is owned by"]]),
        (rectify, "of_a_kind", lambda *_: [OTHERS[:24]]),
        (EditMemory, "moment", lambda *_: torch.zeros(4096, 4096, device="meta")),  # of earlier edits
        (background.Background, "prepare", lambda *_: None),
        (background.Background, "prepare_texts", lambda *_: None),
    ):
        monkeypatch.setattr(owner, name, stand_in)
    every = FFNMap.of(model)
    usual = seen(every, background.TEXTS * background.TEXT_TOKENS)
    monkeypatch.setattr(rectify, "contrast_moments", lambda *_: seen(every, 600, sparse=True))
    memory = EditMemory()
    memory.background.texts = torch.arange(background.TEXTS * background.TEXT_TOKENS).view(background.TEXTS, -1) % 20
    memory.background.usual = memory.background.elsewhere = usual
    nodes, square = torch.zeros(14336), torch.zeros(4096, 4096)
    memory.background.outputs = {m.name: nodes if m.kind == "key" else square for m in every.modules}
    hp = PaCKEPlusHyperParams.from_hparams("llama3-8b")

    def run():
        with rectify.frozen(model):
            edit = rectify.PlusRectifier(model, make_tokenizer(), every, read_requests([REQUEST]), hp, memory)
            first = edit.look()
            edit.choose(first)
            edit.slices.weight = edit.change(first, 0.3)
            del first
            edit.slices.weight = edit.change(edit.look(), 0.3)
            edit.look()

    used = peak_bytes(run, "meta")
    assert 0.1 * size <= used <= 0.35 * size


def seen(every, tokens, sparse=False):
    """Moments of that many tokens, all of them nought, which take no memory until they are read."""
    found = InputMoments(sparse)
    rows = {m.weight.shape[1]: torch.zeros(tokens, m.weight.shape[1], dtype=torch.bfloat16) for m in every.modules}
    for m in every.modules:
        width = m.weight.shape[1]
        found.counts[m.name] = tokens
        if sparse or width > 4096:
            found.rows[m.name] = rows[width]
        else:
            found.sums[m.name] = torch.zeros(width, width)
    return found
