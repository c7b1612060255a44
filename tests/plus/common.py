"""Small settings of PaCKE+, and its parts made ready to be looked at."""

from easyedit_packe.model.bits import same_bits
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.plus.rectify import PlusRectifier
from easyedit_packe.plus.state import EditMemory
from easyedit_packe.requests import read_requests

from ..conftest import REQUESTS

ALL = {
    "score": "zscore", "num_critical_paths": 4, "num_steps": 4, "trace": "call", "write_at": "subject",
    "value_nodes": 6, "prefix_contexts": 1, "prefix_tokens": 5, "subject_contexts": 2, "null_space": 3.0, "margin": 1.0,
    "ridge": 0.05, "memory_size": 4, "memory_weight": 1.0, "replay": 2, "layers": [0, 1], "orders": 0,
    "context_margin": 1.0, "context_share": 1.0, "contrast": 0.0, "elsewhere": 0.0, "likeness": 1.0, "answer_end": "",
    "outputs": 3.0, "prefix_reworded": 0,
}  # fmt: skip


def same_patch(a, b):
    return a.slices.keys() == b.slices.keys() and all(same_bits(s.new, b.slices[n].new) for n, s in a.slices.items())


def plus(model, tok, hp, requests=REQUESTS[:1]):
    """One edit's `PlusRectifier`, ready to be looked at."""
    for p in model.parameters():
        p.requires_grad_(False)
    return PlusRectifier(model, tok, FFNMap.of(model), read_requests(requests), hp, EditMemory.of(model))
