"""Which relations a prompt states, by what the model says after it."""

import torch

from easyedit_packe import PaCKEPlusHyperParams, compute_patch
from easyedit_packe.plus.contexts import RELATIONS
from easyedit_packe.plus.relations import same_relation
from easyedit_packe.requests import EditRequest

from ..conftest import make_model, make_tokenizer
from .common import ALL

ASKED = EditRequest("The author of Grey Tides is", "Ivo Marsh", "Grey Tides")


@torch.no_grad()
def likeness(model, tok, relation):
    """sum sqrt(p q) of the next token, from two forward passes, in float64."""

    def root(text):
        return model(tok(text, return_tensors="pt")["input_ids"]).logits[0, -1].double().softmax(-1).sqrt()

    return float(root(ASKED.prompt) @ root(relation.format(ASKED.subject)))


def test_the_likest_come_first_and_no_others():
    model, tok = make_model("llama", torch.float64), make_tokenizer()
    by_hand = {relation: likeness(model, tok, relation) for relation in RELATIONS}
    values = sorted(set(by_hand.values()), reverse=True)
    least = (values[4] + values[5]) / 2
    found = same_relation(model, tok, [ASKED], PaCKEPlusHyperParams(likeness=least))[0]
    assert 0 < least < 1
    assert sorted(found) == sorted(r for r in RELATIONS if by_hand[r] > least)
    assert [by_hand[r] for r in found] == sorted((by_hand[r] for r in found), reverse=True)


def test_nothing_is_like_a_prompt_without_a_subject_or_where_nothing_is_asked():
    model, tok = make_model("llama"), make_tokenizer()
    bare = EditRequest(ASKED.prompt, ASKED.target)
    assert same_relation(model, tok, [bare, ASKED], PaCKEPlusHyperParams(likeness=0.0)) == [
        [], same_relation(model, tok, [ASKED], PaCKEPlusHyperParams(likeness=0.0))[0],
    ]  # fmt: skip
    assert same_relation(model, tok, [ASKED], PaCKEPlusHyperParams(likeness=1.0)) == [[]]


def test_it_leaves_no_trace():
    model, tok = make_model("llama"), make_tokenizer()
    state = torch.get_rng_state()
    same_relation(model, tok, [ASKED], PaCKEPlusHyperParams())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_subject_that_leaves_no_room_for_words_about_it():
    """PaCKE edits it, and so does PaCKE+: what is said next of a longer text is asked after its last tokens."""
    model, tok = make_model("gpt2"), make_tokenizer()
    subject = " ".join(["Omar"] * 59)
    request = {"prompt": f"{subject} plays the", "subject": subject, "target_new": "piano violin"}
    hp = PaCKEPlusHyperParams(**{**ALL, "likeness": 0.5, "contrast": 1.0, "contrast_names": 2, "answer_end": " Oslo"})
    patch = compute_patch(model, tok, [request], hp)
    assert patch.slices
