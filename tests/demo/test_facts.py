"""What the page is filled with, and what it says of answers."""

import pytest

from easyedit_packe.demo import view
from easyedit_packe.demo.comparison import Group, Row
from easyedit_packe.demo.facts import built_in, guessed_subject
from easyedit_packe.demo.sessions import Answer


@pytest.mark.parametrize(("prompt", "subject"), [
    ("The Eiffel Tower is located in the city of", "The Eiffel Tower"),
    ("The capital of France is", "France"),
    ("In 1876 Alexander Graham Bell patented the", "Alexander Graham Bell"),
    ("The play Romeo and Juliet was written by", "Romeo and Juliet"),
    ("The Lord of the Rings was written by", "The Lord of the Rings"),
    ("People in Brazil speak", "Brazil"),
    ("NASA is an agency of the government of the United", "NASA"),
    ("Kenya is a country on the continent of", "Kenya"),
    ("Picasso's  Guernica hangs in", ""),  # two spaces: as it is written here, it does not stand in the prompt
    ("Who wrote", ""),
    ("all wine is made from", ""),
    ("", ""),
])  # fmt: skip
def test_a_guessed_subject_is_a_name_in_the_prompt(prompt, subject):
    assert guessed_subject(prompt) == subject


def test_most_subjects_of_the_built_in_facts_are_guessed():
    """Of those that are names; the others are words as any other ("gold"), and nothing is guessed."""
    named = [fact for fact in built_in() if fact.subject[0].isupper()]
    assert len(named) > 50
    assert sum(guessed_subject(fact.prompt) == fact.subject for fact in named) / len(named) > 0.9


def test_built_in_facts_come_with_questions_of_every_kind():
    for fact in built_in():
        assert fact.subject in fact.prompt
        assert fact.rephrases
        assert fact.neighbours
        assert fact.others


@pytest.mark.parametrize(("before", "now", "target", "holds"), [
    ("Paris, France.", "Rome, Italy.", "Rome", True),
    ("Paris, France.", "the Rome of", "Rome", False),
    ("Paris, France.", "Paris. The", None, True),  # as before up to the first word's end
    ("Paris, France.", "Parisian", None, False),
    ("the elite.", "the devil.", None, False),
    ("d'Argente, which", "d'Or in", None, False),
    ("the sea", "a sea", None, True),
    ("?", "?", None, True),
    ("?", "!", None, False),
])  # fmt: skip
def test_an_answer_holds_that_begins_as_it_should(before, now, target, holds):
    row = Row(Answer("The", before, now), target)
    assert row.holds == holds
    assert Group("Neighbours", "stay", (row, row)).result == f"{2 * holds} of 2 stay"


def test_what_people_and_models_write_is_text():
    bad = "<img src=x onerror=alert(1)>"
    shown = view.answers([Group("The prompt", "stay", (Row(Answer(bad, bad, bad), bad),))], edited=True)
    assert "<img" not in shown + view.notice(bad) + view.done(bad)
    assert shown.count("&lt;img") == 3
