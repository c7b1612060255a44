"""Models of full size on the device of tensors without values: for what an edit holds, by the sizes of all tensors."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from easyedit_packe.model import ffn


def llama3_8b(monkeypatch):
    """(Model, its bytes); its weights, which are not in memory, and what it does are not looked at."""
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8,
    )  # fmt: skip
    return _without_values(config, torch.bfloat16, 8_030_261_248, monkeypatch)


def smollm2_135m(monkeypatch):
    """The default model, in the same way."""
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return _without_values(config, torch.float32, 134_515_008, monkeypatch)


def _without_values(config, dtype, parameters, monkeypatch):
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    monkeypatch.setattr(ffn, "_check_weight", lambda *_: None)
    monkeypatch.setattr(ffn, "check_behaviour", lambda *_: None)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    assert size == dtype.itemsize * parameters
    return model, size
