"""Metrics against numbers worked out by hand, and against a plain loop over tokens."""

import math

import pytest
import torch

from easyedit_packe.bench import metrics
from easyedit_packe.bench.data import Record
from easyedit_packe.bench.metrics import Answer, agreement, begins_with, exact_match

from ..conftest import make_model, make_tokenizer

RECORD = Record(3, "Omar plays", "Omar", "the piano", "violin", "Who plays", "Anna Berg plays", "violin")


def test_answers_are_a_plain_loop_over_tokens():
    model, tok = make_model("llama"), make_tokenizer()
    pairs = [("Omar plays", "the piano"), ("The author of Grey Tides is", "Ivo"), ("Who wrote", "Grey Tides the piano")]
    for (prompt, target), answer in zip(pairs, metrics.score_answers(model, tok, pairs), strict=True):
        ids, start = tok(f"{prompt} {target}")["input_ids"], len(tok(prompt)["input_ids"])
        log_prob, hits = 0.0, 0
        for at in range(start, len(ids)):
            with torch.no_grad():
                p = torch.log_softmax(model(torch.tensor([ids[:at]])).logits[0, -1], -1)
            log_prob, hits = log_prob + p[ids[at]].item(), hits + (p.argmax().item() == ids[at])
        assert answer.log_prob == pytest.approx(log_prob / (len(ids) - start), abs=1e-5)
        assert answer.accuracy == hits / (len(ids) - start)


def answering(monkeypatch, table):
    monkeypatch.setattr(metrics, "score_answers", lambda m, t, pairs: [table[pair] for pair in pairs])


def test_counterfact_compares_probabilities(monkeypatch):
    table = {
        ("Omar plays", "the piano"): Answer(-1.0, 0.5),
        ("Omar plays", "violin"): Answer(-2.0, 1.0),  # less likely than the new answer: a success
        ("Who plays", "the piano"): Answer(-3.0, 1.0),
        ("Who plays", "violin"): Answer(-2.5, 0.0),  # more likely: none
        ("Anna Berg plays", "the piano"): Answer(-4.0, 0.0),
        ("Anna Berg plays", "violin"): Answer(-0.1, 1.0),  # the truth holds for the neighbour: a success
    }
    answering(monkeypatch, table)
    expected = {"efficacy": 1.0, "generality": 0.0, "locality": 1.0}
    assert metrics.rome_family(None, None, RECORD, "CF") == expected
    assert metrics.rome_family(None, None, RECORD, "MCF") == expected


def test_zsre_is_accuracy_against_the_truth(monkeypatch):
    answering(
        monkeypatch,
        {
            ("Omar plays", "the piano"): Answer(-9.0, 0.5),
            ("Who plays", "the piano"): Answer(-9.0, 0.25),
            ("Anna Berg plays", "violin"): Answer(-9.0, 0.75),
        },
    )
    assert metrics.rome_family(None, None, RECORD, "ZsRE") == {"efficacy": 0.5, "generality": 0.25, "locality": 0.75}


def test_agreement_by_hand():
    assert agreement([[5, 6, 7, 8]], [[5, 0, 7, 8]]) == 0.75
    assert agreement([[5], [1, 2]], [[5], [1, 3]]) == 0.75  # the mean of answers, not of tokens


@pytest.mark.parametrize(
    ("said", "target", "exact", "begins"),
    [
        (" Rome, Italy.", "Rome", True, True),
        (" Rome\nThe city", "Rome", True, True),
        (" Rome Italy is", "Rome", False, True),
        (" the city of Rome.", "Rome", False, False),
        (" The Hague. It is", "Hague", True, True),  # articles and case do not count
        (" St. Louis, in", "St. Louis", True, True),  # a mark inside the target is no stop
        (" Romeo.", "Rome", False, False),
        ("", "Rome", False, False),
    ],
)
def test_generation_by_hand(said, target, exact, begins):
    assert (exact_match(said, target), begins_with(said, target)) == (exact, begins)


def test_generation_leaves_the_padding_side_and_pads_without_effect():
    from easyedit_packe.model.generation import greedy, greedy_all

    model, tok = make_model("llama"), make_tokenizer("right")
    prompts = ["Omar plays", "The author of Grey Tides is"]
    together = [" ".join(s.split()) for s in greedy_all(model, tok, prompts, 4)]
    assert together == [greedy(model, tok, p, 4) for p in prompts]
    assert tok.padding_side == "right"


def test_perplexity_is_the_exponential_of_the_mean_loss():
    model, tok = make_model("llama"), make_tokenizer()
    ids = tok("Anna Berg was born in Bergen")["input_ids"]
    with torch.no_grad():
        p = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    mean = -sum(p[i, ids[i + 1]].item() for i in range(5)) / 5
    assert metrics.perplexity(model, tok, "Anna Berg was born in Bergen") == pytest.approx(math.exp(mean), rel=1e-5)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    assert metrics.perplexity(model, tok, "Anna Berg was born in Bergen") is None
