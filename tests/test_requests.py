"""Requests are checked before anything happens, and the answer begins where EasyEdit's metrics say."""

import pytest
import torch

from easyedit_packe.errors import RequestError
from easyedit_packe.requests import EditRequest, collate, encode, read_requests

from .conftest import REQUESTS, make_tokenizer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_new": ""}, "non-empty text in 'target_new'"),
        ({"target_new": "  "}, "non-empty text in 'target_new'"),
        ({"target_new": None}, "non-empty text in 'target_new'"),
        ({"prompt": ""}, "non-empty text in 'prompt'"),
        ({"prompt": 3}, "non-empty text in 'prompt'"),
        ({"subject": "Nobody"}, "expected the subject 'Nobody' in the prompt"),
        ({"subject": ""}, "non-empty text in 'subject'"),
        ({"prompt": "{} was born in", "subject": None}, "no subject"),
    ],
)
def test_bad_requests(change, message):
    with pytest.raises(RequestError, match=message):
        EditRequest.from_dict({**REQUESTS[0], **change})


def test_missing_field_and_wrong_type():
    with pytest.raises(RequestError, match="is missing"):
        EditRequest.from_dict({"prompt": "a"})
    with pytest.raises(RequestError, match="mapping"):
        read_requests(["The capital of France is"])
    with pytest.raises(RequestError, match="at least one request"):
        read_requests([])


def test_every_request_is_checked_first():
    with pytest.raises(RequestError):
        read_requests([REQUESTS[0], {**REQUESTS[1], "target_new": ""}])


def test_subject_fills_the_prompt_and_space_is_trimmed():
    r = EditRequest.from_dict({"prompt": "{} was born in", "subject": "Anna Berg", "target_new": " Bergen "})
    assert r.text == "Anna Berg was born in Bergen"
    assert EditRequest.from_dict(REQUESTS[1]).ground_truth is None


def test_the_answer_span_in_a_padded_batch():
    tok = make_tokenizer()
    encoded = encode(tok, read_requests(REQUESTS))
    assert [len(e.answer) for e in encoded] == [1, 2, 4]
    batch = collate(encoded)
    assert batch.ids.shape == (3, 9)
    assert batch.mask.sum(1).tolist() == [5, 3, 9]
    words = tok.convert_ids_to_tokens(batch.targets.tolist())
    assert words == ["Bergen", "the", "piano", "Ivo", "Marsh", "the", "piano"]
    predicted_from = tok.convert_ids_to_tokens(batch.ids[batch.rows, batch.cols].tolist())
    assert predicted_from == ["in", "plays", "the", "is", "Ivo", "Marsh", "the"]
    assert collate(encoded[:1]).mask is None


@pytest.mark.parametrize(("side", "pad"), [("left", True), ("right", True), ("right", False)])
def test_the_tokenizers_padding_does_not_matter(side, pad):
    tok = make_tokenizer(side, pad)
    expected = collate(encode(make_tokenizer(), read_requests(REQUESTS)))
    batch = collate(encode(tok, read_requests(REQUESTS)))
    for name in ("ids", "mask", "rows", "cols", "targets"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    assert tok.padding_side == side


def test_targets_and_prompts_that_tokenise_to_nothing():
    class Mute:
        def __call__(self, text):
            return {"input_ids": [5] * len(text.replace("x", "").split())}

    with pytest.raises(RequestError, match="tokenises to nothing after 'The capital is'"):
        encode(Mute(), read_requests([{"prompt": "The capital is", "target_new": "x"}]))
    with pytest.raises(RequestError, match="prompt 'x' tokenises to nothing"):
        encode(Mute(), read_requests([{"prompt": "x", "target_new": "Rome"}]))


def test_longer_than_the_model():
    with pytest.raises(RequestError, match="at most 5 tokens"):
        encode(make_tokenizer(), read_requests(REQUESTS), max_tokens=5)
