"""The text that an instruct model is asked, and edits of just that text."""

import dataclasses

import pytest
import torch
from tokenizers import processors

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, compute_patch
from easyedit_packe.errors import HyperParamsError
from easyedit_packe.model.chat import framed, in_turn
from easyedit_packe.plus.background import Background
from easyedit_packe.plus.demands import neutral, stated
from easyedit_packe.requests import EditRequest, encode

from ..conftest import CHAT, REQUESTS, make_model, make_tokenizer

REQUEST = EditRequest("Omar plays", "the piano", "Omar")
TEXT = "Omar wrote Omar plays <eos> Omar is"


def chat_tokenizer(template=CHAT, begins=False):
    tok = make_tokenizer()
    tok.chat_template = template
    if begins:
        tok.bos_token = "<eos>"
        add = processors.TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", tok.eos_token_id)])
        tok.backend_tokenizer.post_processor = add
    return tok


def test_the_prompt_is_a_users_turn():
    tok = chat_tokenizer()
    assert in_turn(tok, "Omar plays") == TEXT
    request = framed(tok, REQUEST)
    assert (request.prompt, request.asked, request.text) == ("Omar plays", TEXT, f"{TEXT} the piano")
    assert framed(tok, request) == request  # never twice
    (e,) = encode(tok, [request])
    assert e.ids.tolist() == tok(f"{TEXT} the piano")["input_ids"]
    assert (e.answer_start, e.subject) == (7, (2, 3))  # not the template's own Omar


def test_there_is_one_beginning_token():
    """The template has one, and the tokeniser puts one before every text."""
    tok = chat_tokenizer("{{ bos_token }}" + CHAT.replace("<eos>", "in"), begins=True)
    assert tok("Omar")["input_ids"][0] == tok.bos_token_id
    assert tok(in_turn(tok, "Omar plays"))["input_ids"].count(tok.bos_token_id) == 1
    (e,) = encode(tok, [framed(tok, REQUEST)])
    assert (e.answer_start, e.subject) == (8, (3, 4))
    quiet = chat_tokenizer("{{ bos_token }} " + CHAT.replace("<eos>", "in"))
    quiet.bos_token = "<eos>"  # a tokeniser that puts none: the template's own stays
    assert quiet(in_turn(quiet, "Omar plays"))["input_ids"][0] == quiet.bos_token_id


def test_white_space_around_a_prompt_is_the_templates_to_drop():
    tok = chat_tokenizer(CHAT.replace("m['content']", "m['content'] | trim"))
    assert framed(tok, EditRequest(" Omar plays ", "the piano")).asked == TEXT


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "expected a tokeniser with a chat template, got one without"),
        ("{{ raise_exception('no users') }}", "chat template fails: no users"),
        ("{{ messages[0]['content'] | upper }}", "has the prompt once, word for word, got '[A-Z ]+' for"),
        ("{{ messages[0]['content'] * 2 }}", "has the prompt once, word for word"),
    ],
)
def test_templates_that_do_not_fit(template, message, hparams):
    tok = chat_tokenizer(template)
    with pytest.raises(HyperParamsError, match=f"use_chat_template: .*{message}"):
        framed(tok, REQUEST)
    with pytest.raises(HyperParamsError, match=message):
        compute_patch(make_model("llama"), tok, REQUESTS[:1], dataclasses.replace(hparams, use_chat_template=True))


PLUS = {"num_critical_paths": 4, "prefix_contexts": 0, "orders": 0, "likeness": 1.0, "elsewhere": 0.0, "device": "cpu"}


@pytest.mark.parametrize(
    "settings",
    [PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=3, device="cpu"), PaCKEPlusHyperParams(**PLUS)],
    ids=["PaCKE", "PaCKE+"],
)
def test_an_edit_is_that_of_the_text_itself(settings):
    """As if the prompt had been written with the template's text; for a template that does not hold the subject."""
    tok = chat_tokenizer(CHAT.replace("Omar", "Who"))
    request = {"prompt": "Omar plays", "target_new": "the piano", "subject": "Omar"}
    chat = compute_patch(make_model("llama"), tok, [request], dataclasses.replace(settings, use_chat_template=True))
    text = {**request, "prompt": in_turn(tok, "Omar plays")}
    plain = compute_patch(make_model("llama"), make_tokenizer(), [text], settings)
    other = compute_patch(make_model("llama"), make_tokenizer(), [request], settings)
    assert chat.slices.keys() == plain.slices.keys()
    for name, s in plain.slices.items():
        assert torch.equal(chat.slices[name].index, s.index)
        assert torch.equal(chat.slices[name].new, s.new)
    assert any(not torch.equal(s.new, other.slices[name].new) for name, s in chat.slices.items())
    assert chat.info["requests"][0]["prompt"] == "Omar plays"
    assert chat.info["hparams"]["use_chat_template"] is True


def test_prefixes_stand_in_the_turn_and_contexts_of_the_subject_are_plain():
    tok, settings = chat_tokenizer(), PaCKEPlusHyperParams(prefix_contexts=1, subject_contexts=2, orders=0, relations=1)
    background = Background()
    background.texts = torch.tensor([tok("Who wrote the violin")["input_ids"]])
    request, model = framed(tok, REQUEST), make_model("llama")
    contexts = stated([request], [["{} was born in", "{} speaks"]], settings, background, model, tok) + neutral(
        [request], settings
    )
    assert [c.asked for c in contexts] == [
        "Omar wrote Who wrote the violin. Omar plays <eos> Omar is",
        "Omar was born in",
        "Omar can be found with",
        "The story of Omar includes",
    ]
