"""A model of full size on the device of tensors without values: for what an edit holds, by the sizes of all tensors."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from easyedit_packe.model import ffn


def llama3_8b(monkeypatch):
    """(Model, its bytes); its weights, which are not in memory, and what it does are not looked at."""
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, dtype=torch.bfloat16,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    monkeypatch.setattr(ffn, "_check_weight", lambda *_: None)
    monkeypatch.setattr(ffn, "check_behaviour", lambda *_: None)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    assert size == 2 * 8_030_261_248
    return model, size
