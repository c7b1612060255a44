"""The facts of `data=demo`: what every record holds, and what is written down about the unedited model."""

import json
from collections import Counter
from importlib.resources import files
from typing import get_args

import pytest

from easyedit_packe.bench.content.questions import Kind

FACTS = json.loads(files("easyedit_packe.bench.content").joinpath("demo.json").read_text("utf-8"))


def test_a_dozen_of_each_kind():
    counts = Counter(fact["kind"] for fact in FACTS)
    assert set(counts) == set(get_args(Kind))
    assert min(counts.values()) >= 12
    assert sum(counts.values()) >= 60
    assert len({fact["subject"] for fact in FACTS}) == len(FACTS)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["subject"])
def test_a_fact(fact):
    subject, old, new = fact["subject"], fact["old"], fact["new"]
    assert set(fact) == {
        "kind", "subject", "prompt", "old", "new", "paraphrases", "neighbours", "same_subject", "one_hop", "alias",
        "unedited",
    }  # fmt: skip
    assert old != new
    assert 1 <= len(new.split()) <= 3
    assert [len(fact[field]) for field in ("paraphrases", "neighbours", "same_subject")] == [3, 3, 3]
    assert len(fact["one_hop"]) in (1, 2)
    assert len(fact["alias"]) in (0, 1)

    about_it = [fact["prompt"], *fact["paraphrases"], *(p["prompt"] for p in fact["same_subject"] + fact["one_hop"])]
    others = [p["prompt"] for p in fact["neighbours"] + fact["alias"]]
    assert len({*about_it, *others}) == len(about_it) + len(others)
    assert all(prompt.count("{}") == 1 for prompt in about_it)
    assert not [prompt for prompt in others if "{}" in prompt or subject in prompt]
    assert all(prompt == prompt.strip() and prompt[-1] not in ".?!:" for prompt in about_it + others)
    assert all(old not in prompt and new not in prompt for prompt in [fact["prompt"], *fact["paraphrases"]])


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["subject"])
def test_what_must_stay_is_not_what_is_edited(fact):
    """The other facts of the subject hold neither answer, and some neighbour's answer is not the new one."""
    assert not [p for p in fact["same_subject"] if p["answer"] in (fact["old"], fact["new"])]
    assert [p for p in fact["neighbours"] if p["answer"] != fact["new"]]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["subject"])
def test_the_unedited_answers_are_recorded(fact):
    unedited = fact["unedited"]
    assert list(unedited) == ["prompt", "paraphrase", "neighbours", "same_subject"]
    said = [(unedited["prompt"], fact["old"]), (unedited["paraphrase"], fact["old"])]
    for field in ("neighbours", "same_subject"):
        said += zip(unedited[field], (p["answer"] for p in fact[field]), strict=True)
    for record, answer in said:
        assert isinstance(record["known"], bool)
        assert "\n" not in record["says"]
        if record["says"].startswith(answer + " "):  # all its tokens, so the first one, too
            assert record["known"]
        if record["known"]:
            assert record["says"][:1] == answer[:1]


def test_the_model_knows_most_of_what_is_edited():
    known = sum(fact["unedited"]["prompt"]["known"] for fact in FACTS)
    assert known >= len(FACTS) / 2
