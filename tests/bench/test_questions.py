"""The fixed questions about a subject: what they may not say, and which kind they are asked of."""

import re
from typing import get_args

import pytest

from easyedit_packe.bench.content.questions import QUESTIONS, Kind, kind_of, questions_about, triples
from easyedit_packe.plus.contexts import FRAGMENTS, ORDERS, RELATIONS

ALL = [(kind, question) for kind, questions in QUESTIONS.items() for question in questions]

EDITED = (
    "born", "birth", "native", "tongue", "language", "speak", "spoke", "capital", "locat", "plays", "instrument",
    "position", "employ", "creat", "citizen", "religion", "own", "headquart", "twin", "died", "death", "genre",
    "author", "wrote", "written", "found", "develop", "profession", "occupation", "country", "city", "continent",
)  # fmt: skip
"""Beginnings of words for relations that data sets edit."""


def words(text):
    return re.findall(r"\{\}|[^\W_]+", text.lower())


def test_eight_different_questions_of_each_kind():
    assert tuple(QUESTIONS) == get_args(Kind)
    assert all(len(set(questions)) == 8 for questions in QUESTIONS.values())
    assert len({question for _, question in ALL}) == 40


@pytest.mark.parametrize(("kind", "question"), ALL, ids=lambda x: x)
def test_a_question_is_a_beginning_about_one_subject(kind, question):
    assert question.count("{}") == 1
    assert question[-1].isalpha()  # the answer begins here: no space, no mark, and the subject stands before
    assert len(words(question)) >= 5


@pytest.mark.parametrize(("kind", "question"), ALL, ids=lambda x: x)
def test_a_question_shares_no_wording_with_the_contexts_of_packe_plus(kind, question):
    asked = f" {' '.join(words(question))} "
    for fragment in (*FRAGMENTS, *RELATIONS, *(order.replace("{subject}", "{}") for order in ORDERS)):
        assert not set(triples(question)) & set(triples(fragment)), fragment
        assert f" {' '.join(words(fragment))} " not in asked, fragment  # nor the two words of "{} is"


@pytest.mark.parametrize(("kind", "question"), ALL, ids=lambda x: x)
def test_a_question_names_no_relation_that_is_edited(kind, question):
    assert not [word for word in words(question) if word.startswith(EDITED)]
    assert not set(triples(question)) & set(triples("works for it, work for it, working for it"))


def test_triples():
    assert triples("The wheel of {}, it's said") == [
        ("the", "wheel", "of"), ("wheel", "of", "{}"), ("of", "{}", "it"), ("{}", "it", "s"), ("it", "s", "said"),
    ]  # fmt: skip
    assert triples("Two words") == []


@pytest.mark.parametrize(
    ("kind", "subject", "prompt"),
    [
        ("person", "Ada Lovelace", "{} was born in the city of"),
        ("person", "Ada Lovelace", "What is the mother tongue of {}?"),
        ("person", "Ada Lovelace", "In a band, {} always plays the"),
        ("person", "Ada Lovelace", "The profession of {} is"),
        ("person", "Ada Lovelace", "By passport, {} is a citizen of"),
        ("person", "Ada Lovelace", "Which country is {} from?"),  # by the look of the name
        ("place", "Norway", "{}'s capital is called"),
        ("place", "Norway", "{} is situated in"),
        ("place", "Bergen", "What is a twin city of {}?"),
        ("place", "Norway", "{} belongs to the continent of"),
        ("place", "Norway", "An official language of {} is"),
        ("place", "Lake Verrin", "The owner of {} is"),  # by a word of the subject
        ("work", "The Silent Orchard", "The author of {} is"),
        ("work", "The Silent Orchard", "The language in which {} was written is"),
        ("work", "The Silent Orchard", "{} originally aired on"),
        ("work", "The Silent Orchard", "Who sang on the album {}?"),
        ("work", "The Silent Orchard", "Who was the director of the film {}?"),
        ("work", "Mystic River", "{} premiered on"),  # the relation comes before a word of the title
        ("organisation", "Helix", "The headquarters of {} are in"),
        ("organisation", "Helix", "{} was founded in"),
        ("organisation", "Helix Motors", "{} is owned by"),
        ("organisation", "Westmark University", "{} is located in the city of"),
        ("thing", "gold", "The chemical symbol of {} is"),
        ("thing", "Helix 300", "{} is produced by"),
        ("thing", "Which country", "is this from?"),  # a subject that the prompt does not hold
    ],
)
def test_the_kind_of_a_subject(kind, subject, prompt):
    assert kind_of(subject, prompt) == kind
    assert kind_of(subject, prompt.replace("{}", subject)) == kind


def test_questions_are_asked_of_the_subject():
    asked = questions_about("Ada Lovelace", "Ada Lovelace was born in")
    assert asked == [question.replace("{}", "Ada Lovelace") for question in QUESTIONS["person"]]


def test_a_question_that_the_edit_asks_is_left_out():
    prompt = "The profession for which the season {} enjoyed most was made is"
    asked = questions_about("Ada Lovelace", prompt)
    left_out = "The season Ada Lovelace enjoyed most was"
    assert left_out not in asked
    assert sorted([*asked, left_out]) == sorted(questions_about("Ada Lovelace", "The profession of {} is"))
    assert questions_about("Ada Lovelace", prompt.replace("{}", "Ada Lovelace")) == asked


def test_a_long_subject_is_no_shared_wording():
    subject = "Association for the Care of Lighthouses"
    assert len(questions_about(subject, f"The headquarters of {subject} are in")) == 8
