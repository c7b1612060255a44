"""What a person reads: prompts with their answers, and what the model said to each."""

import pytest
import torch

from easyedit_packe.bench import measure
from easyedit_packe.bench.data import Record
from easyedit_packe.bench.metrics import words

from ..conftest import make_model, make_tokenizer
from .test_metrics import RECORD


def test_what_is_asked_by_hand():
    found = words.asked(RECORD)
    assert found.pop("subject")[0] == ("Omar is", "")
    assert found == {
        "efficacy": [("Omar plays", "the piano")],
        "generality": [("Who plays", "the piano")],
        "locality_neighborhood": [("Anna Berg plays", "violin")],
        "locality_other": [("Grey Tides is", "Ivo")],
        "portability_one_hop": [("The author plays", "the violin"), ("Who is", "Omar")],
        "free": [("Omar plays", "the piano"), ("Who plays", "the piano"), ("Omar wrote", "the piano")],
    }
    assert set(words.asked(Record(0, "Who", None, "Ivo", ""))) == {"efficacy", "free"}


@pytest.mark.parametrize("generation", [True, False])
def test_each_question_has_what_the_model_says_to_it(generation):
    model, tok = make_model("llama"), make_tokenizer()
    (row,) = measure.Measure(compares=True, generation=generation).unedited(model, tok, [RECORD])
    asked, said = words.asked(RECORD), row["said"]
    assert asked.keys() - said.keys() == (set() if generation else {"free"})
    assert all(len(said[metric]) == len(asked[metric]) for metric in said)
    (prompt, target), (question, _) = asked["efficacy"][0], asked["subject"][0]
    with torch.no_grad():
        choice = model(**tok(f"{prompt} {target}", return_tensors="pt")).logits[0].argmax(-1)
        first = model(**tok(question, return_tensors="pt")).logits[0, -1].argmax()
    start = len(tok(prompt)["input_ids"])
    assert said["efficacy"] == [tok.decode(choice[start - 1 : -1]).strip()]
    assert said["subject"][0] == tok.decode(first).strip()
