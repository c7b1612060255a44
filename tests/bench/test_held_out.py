"""The text on which an edited model's perplexity is measured."""

import json
import sys
from datetime import date
from importlib.resources import files
from types import ModuleType

import pytest

from easyedit_packe.bench.content.held_out import KINDS, held_out


def words(text):
    """Pieces between white space that hold a letter or a digit: the bars of a table are no words."""
    return [piece for piece in text.split() if any(c.isalnum() for c in piece)]


def test_six_kinds_of_three_thousand_words():
    texts = held_out()
    assert tuple(texts) == KINDS == ("prose", "dialogue", "code", "tables", "german", "questions")
    counts = {kind: len(words(text)) for kind, text in texts.items()}
    assert min(counts.values()) >= 500, counts
    assert sum(counts.values()) >= 3000, counts
    assert words("| a | -- | b2 |") == ["a", "b2"]


def test_no_text_is_left_out_of_the_kinds():
    folder = files("easyedit_packe.bench.content.held_out")
    assert sorted(p.name for p in folder.iterdir() if p.name.endswith(".txt")) == sorted(
        f"{kind}.txt" for kind in KINDS
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_tells_of_what_the_demo_edits(kind):
    """An edit may change what the model says about its subject: that would be no cost."""
    facts = json.loads(files("easyedit_packe.bench.content").joinpath("demo.json").read_text("utf-8"))
    names = {fact["subject"] for fact in facts if fact["subject"] != fact["subject"].lower()}
    assert len(names) > 50
    assert not [name for name in names if name in held_out()[kind]]


def test_the_python_runs(monkeypatch):
    code, _, script = held_out()["code"].partition("\n// ")
    assert "class Network {" in script
    module = ModuleType("held_out_code")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    exec(compile(code, "code.txt", "exec", dont_inherit=True), vars(module))
    library = module.Library()
    library.add("Atlas")
    loan = library.lend("Atlas", "Ada", date(2024, 3, 1))
    assert loan.due == date(2024, 3, 29)
    assert loan.fee(date(2024, 4, 2)) == 4 * 0.25
    with pytest.raises(module.LoanError, match="lent until 29 March"):
        library.lend("Atlas", "Ben", date(2024, 3, 2))


def test_the_rows_of_each_table_have_as_many_cells():
    blocks = [block.splitlines() for block in held_out()["tables"].split("\n\n") if not block.startswith("#")]
    assert len(blocks) == 5
    for block in blocks:
        mark = "|" if block[0].startswith("|") else ","
        assert len({row.count(mark) for row in block}) == 1, block[0]


def test_questions_have_answers():
    pairs = [block.splitlines() for block in held_out()["questions"].split("\n\n")]
    for question, answer in pairs:
        assert question.startswith("Question: ")
        assert question.endswith("?")
        assert answer.startswith("Answer: ")
