"""Texts around a request."""

import torch

from easyedit_packe.plus import contexts
from easyedit_packe.plus.contexts import FRAGMENTS, NAMES, kept_texts, prefixes, sample_texts

from ..conftest import make_model, make_tokenizer


def test_texts_are_sampled_with_their_own_seed():
    model, tok = make_model("llama"), make_tokenizer()
    first = sample_texts(model, tok, 3, 6, seed=1)
    torch.manual_seed(5)
    assert first.shape == (3, 6)
    assert torch.equal(first, sample_texts(model, tok, 3, 6, seed=1))
    assert not torch.equal(first, sample_texts(model, tok, 3, 6, seed=2))
    import random

    assert all(text.endswith(". ") for text in prefixes(tok, first, 2, 3, random.Random(0)))


def test_texts_are_kept_for_the_very_weights_that_wrote_them(tmp_path, monkeypatch):
    monkeypatch.setattr(contexts, "cache_dir", lambda: tmp_path)
    model, tok = make_model("llama"), make_tokenizer()
    first = kept_texts(model, tok, 3, 6, seed=1)
    assert torch.equal(first, sample_texts(model, tok, 3, 6, seed=1))
    other = kept_texts(model, tok, 3, 6, seed=2)
    monkeypatch.setattr(contexts, "sample_texts", lambda *_: other)
    assert torch.equal(first, kept_texts(model, tok, 3, 6, seed=1))
    model.model.layers[1].mlp.up_proj.weight.data[3] += 1e-4
    assert torch.equal(other, kept_texts(model, tok, 3, 6, seed=1))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_a_cache_that_cannot_be_written_does_not_stop_an_edit(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(contexts, "cache_dir", lambda: tmp_path / "file")
    assert kept_texts(make_model("llama"), make_tokenizer(), 3, 6, seed=1).shape == (3, 6)


def test_shipped_words():
    assert all(f.count("{}") == 1 for f in FRAGMENTS)
    assert len(set(NAMES)) == len(NAMES)
