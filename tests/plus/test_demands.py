"""What is asked of which text, and where the edit may write."""

import dataclasses

import torch

from easyedit_packe import PaCKEPlusHyperParams
from easyedit_packe.plus.background import Background
from easyedit_packe.plus.demands import asked, lacks, leads, neutral, stated
from easyedit_packe.plus.places import alike, places
from easyedit_packe.requests import Encoded, collate, encode, read_requests

from ..conftest import REQUESTS, make_model, make_tokenizer
from .common import ALL, plus


def test_leads_are_log_odds():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    p = logits.softmax(-1)[[0, 1], [0, 1]]
    torch.testing.assert_close(leads(logits, torch.tensor([0, 1])), (p / (1 - p)).log())


def test_what_is_asked_of_a_row():
    rows = [Encoded(torch.arange(5), 3), Encoded(torch.arange(5), 3)]
    lead = torch.tensor([-1.0, 4.0, 2.0, 3.0])
    assert asked(lead, rows, 1.0).tolist() == [True, False, True, True]
    assert lacks(lead, 1.0).tolist() == [2.5, 0.0, 0.0, 0.0]


def test_only_the_subjects_tokens_write_and_never_the_first():
    tok = make_tokenizer()
    run = plus(make_model("llama"), tok, PaCKEPlusHyperParams(**ALL), REQUESTS[1:2])
    subject = REQUESTS[1]["subject"]
    seen = run.look()
    for i, e in enumerate(run.rows):
        first, after = e.subject
        assert tok.decode(e.ids[first:after]).strip() == subject
        assert (seen.rows == i).sum() == (after - first if first else max(after, 3) - 1)
    short = [Encoded(torch.arange(6), 5, (0, 1)), Encoded(torch.arange(6), 5, (0, 2)), Encoded(torch.arange(2), 1)]
    rows = [*short, Encoded(torch.arange(5), 3, (1, 2)), Encoded(torch.arange(5), 4, (0, 4))]
    expected = [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 1, 0]]
    assert places(rows, collate(rows), "subject").int().tolist() == expected


def test_a_targets_tokens_write_what_follows_them():
    rows = [Encoded(torch.arange(8), 5, (2, 4)), Encoded(torch.arange(6), 5, (1, 2)), Encoded(torch.arange(5), 3)]
    expected = [[0, 0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0]]
    assert places(rows, collate(rows), "subject_and_target").int().tolist() == expected


def test_rows_of_similar_length_run_together():
    assert alike([10, 30, 11, 31, 9], 0) == [[4, 0, 2], [1, 3]]
    assert alike([5, 5, 5], 2) == [[0, 1], [2]]


def test_requests_without_a_subject_write_everywhere():
    model, tok, hp = make_model("llama"), make_tokenizer(), PaCKEPlusHyperParams(**ALL)
    bare = [{k: REQUESTS[0][k] for k in ("prompt", "target_new")}]
    bare[0]["prompt"] = bare[0]["prompt"].replace("{}", REQUESTS[0]["subject"])
    run = plus(model, tok, hp, bare)
    contexts = stated(read_requests(bare), [[]], hp, Background(), model, tok)
    assert encode(tok, contexts)[0].subject is None
    assert neutral(read_requests(bare), hp) == []
    assert len(run.rows) == 2  # itself, and behind a prefix
    assert run.look().rows.bincount().tolist() == [len(e.ids) - 2 for e in run.rows]


def test_texts_stand_before_the_prompt_and_before_other_words_relations_first():
    model, tok = make_model("llama"), make_tokenizer()
    request = read_requests([{"prompt": "Anna Berg was born in", "target_new": "Rome", "subject": "Anna Berg"}])
    bare = read_requests([{"prompt": "Anna Berg was born in", "target_new": "Rome"}])
    hp = PaCKEPlusHyperParams(**{**ALL, "prefix_contexts": 2, "prefix_reworded": 2, "orders": 2, "relations": 1})
    orders = ["Anna Berg. it was born in", "Question: Anna Berg was born in Answer:"]

    def texts(request, **changes):
        settings = dataclasses.replace(hp, **changes)
        return [r.prompt for r in stated(request, [["{} lives in", "{} wrote"]], settings, Background(), model, tok)]

    found = texts(request)
    assert found[4:] == [*orders, "Anna Berg lives in"]
    assert len(set(found)) == len(found)
    behind = ["Anna Berg was born in", "Anna Berg was born in", "Anna Berg lives in", orders[1]]
    assert [text.endswith(f". {words}") for text, words in zip(found, behind, strict=False)] == [True] * 4
    assert texts(request, prefix_reworded=0) == [*found[:2], *found[4:]]
    assert [t.endswith(". Anna Berg lives in") for t in texts(request, prefix_contexts=0, prefix_reworded=1)] == [
        True, False, False, False,
    ]  # fmt: skip
    assert [t.endswith(". Anna Berg was born in") for t in texts(bare, relations=0)] == [True, True]
