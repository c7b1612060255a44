"""Other subjects of the same kind, as the model reads them."""

import pytest
import torch

from easyedit_packe.model.load import load
from easyedit_packe.plus import names
from easyedit_packe.plus.names import OF_A_KIND, OTHERS, kinds, of_a_kind
from easyedit_packe.requests import EditRequest

from ..conftest import make_model, make_tokenizer

TINY = ("Anna", "Anna Berg", "Omar", "born", "Rome city", "wrote")


@torch.no_grad()
def likeness(model, tok, one, other):
    """sum sqrt(p q) over all tokens that may follow, from two forward passes, in float64."""

    def root(name):
        ids = tok(f"{name} is a", return_tensors="pt")["input_ids"]
        return model(ids).logits[0, -1].double().softmax(-1).sqrt()

    return float(root(one) @ root(other))


def asked(subject):
    return EditRequest(f"{subject} was born in", "Rome", subject)


def test_the_likest_come_first(monkeypatch):
    monkeypatch.setattr(names, "OTHERS", TINY)
    model, tok = make_model("llama", torch.float64), make_tokenizer()
    by_hand = {name: likeness(model, tok, "Omar wrote", name) for name in TINY}
    found = of_a_kind(model, tok, [asked("Omar wrote")], kinds(model, tok), 4)
    assert len(set(by_hand.values())) == len(TINY)
    assert found == [sorted(TINY, key=by_hand.__getitem__, reverse=True)[:4]]


def test_never_the_subject_itself_and_none_without_one(monkeypatch):
    monkeypatch.setattr(names, "OTHERS", TINY)
    model, tok = make_model("llama"), make_tokenizer()
    requests = [asked("Omar"), EditRequest("Who was born in", "Rome"), asked("Anna Berg")]
    first, none, last = of_a_kind(model, tok, requests, kinds(model, tok), 99)
    assert sorted(first) == sorted({*TINY} - {"Omar"})
    assert none == []
    assert sorted(last) == sorted({*TINY} - {"Anna Berg"})
    assert of_a_kind(model, tok, requests, kinds(model, tok), 0) == [[], [], []]


def test_the_tokens_that_tell_most_are_enough(monkeypatch):
    monkeypatch.setattr(names, "OTHERS", TINY)
    model, tok = make_model("llama"), make_tokenizer()
    every = kinds(model, tok)
    torch.testing.assert_close(every["roots"].square().sum(1), torch.ones(len(TINY)))
    monkeypatch.setattr(names, "TELLING", 3)
    few = kinds(model, tok)
    likely = every["roots"].square().mean(0)
    assert set(few["tokens"].tolist()) == set(likely.topk(3).indices.tolist())
    assert torch.equal(few["roots"], every["roots"][:, few["tokens"]])


def test_names_are_told_apart():
    assert len(set(OTHERS)) == len(OTHERS) == 8 * len(OF_A_KIND)
    assert all(name == name.strip() for name in OTHERS)


PEOPLE = (
    "politicians",
    "footballers",
    "other athletes",
    "musicians",
    "actors",
    "scholars",
    "writers",
    "rulers and saints",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subject", "of"),
    [
        ("Marion Keller", PEOPLE),
        ("King Harald III", PEOPLE),
        ("Long Island", ("landscapes", "towns", "regions", "buildings")),
    ],
)
def test_a_real_model_knows_a_persons_name_from_a_places(subject, of):
    model, tok = load()
    (found,) = of_a_kind(model, tok, [asked(subject)], kinds(model, tok), 5)
    alike = {name for kind in of for name in OF_A_KIND[kind].split(", ")}
    assert len({*found} & alike) >= 3, found
