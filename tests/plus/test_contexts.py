"""Texts around a request."""

import torch

from easyedit_packe.plus.contexts import FRAGMENTS, NAMES, ORDERS, in_other_orders, of_another, prefixes, sample_texts
from easyedit_packe.requests import EditRequest

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


def test_a_model_that_is_sure_to_end_still_writes(monkeypatch):
    model, tok = make_model("llama"), make_tokenizer()
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _, __, logits: torch.where(torch.arange(logits.shape[-1]) == 1, 1e4, logits))
    assert 1 in tok.all_special_ids
    assert not (sample_texts(model, tok, 3, 6, seed=1)[:, 1:] == 1).any()


def test_the_subject_is_where_it_stands_last_whole_and_as_it_is_written():
    twice = EditRequest("Oslo wrote the piano who Oslo", "Bergen", "Oslo")
    assert of_another(twice, "Port Ellery").prompt == "Oslo wrote the piano who Port Ellery"
    assert in_other_orders(twice, 1)[0].prompt == "Oslo. Oslo wrote the piano who it"
    inside = EditRequest("The Omaric author Omar", "Bergen", "Omar")
    assert of_another(inside, "Nina").prompt == "The Omaric author Nina"
    wide = EditRequest("Who  wrote Grey\u00a0 Tides for", "Bergen", "Grey\u00a0 Tides")
    for text in in_other_orders(wide, len(ORDERS)):
        assert "Grey\u00a0 Tides" in text.prompt
        assert "Who wrote" in text.prompt


def test_shipped_words():
    assert all(f.count("{}") == 1 for f in FRAGMENTS)
    assert len(set(NAMES)) == len(NAMES)
