"""Texts around a request."""

import torch

from easyedit_packe.plus.contexts import FRAGMENTS, NAMES, prefixes, sample_texts

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


def test_shipped_words():
    assert all(f.count("{}") == 1 for f in FRAGMENTS)
    assert len(set(NAMES)) == len(NAMES)
