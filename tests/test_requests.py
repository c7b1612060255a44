"""Requests are checked before anything happens, and the answer begins where EasyEdit's metrics say."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.decoders import ByteLevel, Metaspace
from transformers import PreTrainedTokenizerFast

from easyedit_packe.errors import RequestError
from easyedit_packe.requests import EditRequest, collate, encode, last_place, read_requests, token_ids

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
        ({"subject": 3}, "non-empty text in 'subject'"),
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
        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [5] * len(text.replace("x", "").split())}

    with pytest.raises(RequestError, match="tokenises to nothing after 'The capital is'"):
        encode(Mute(), read_requests([{"prompt": "The capital is", "target_new": "x"}]))
    with pytest.raises(RequestError, match="prompt 'x' tokenises to nothing"):
        encode(Mute(), read_requests([{"prompt": "x", "target_new": "Rome"}]))


def test_longer_than_the_model():
    with pytest.raises(RequestError, match="at most 5 tokens"):
        encode(make_tokenizer(), read_requests(REQUESTS), max_tokens=5)


# Tokens that a tokeniser adds by itself, and the subject's tokens.


def ending(tok, template="$A <eos>"):
    """The tokeniser, which now puts an end token behind every text, or what the template says."""
    tok.add_special_tokens({"bos_token": "<s>"})
    added = [(t, tok.convert_tokens_to_ids(t)) for t in ("<s>", "<eos>")]
    own = tok.backend_tokenizer.post_processor
    parts = [own] if own is not None else []
    tok.backend_tokenizer.post_processor = processors.Sequence(
        [*parts, processors.TemplateProcessing(single=template, special_tokens=added)]
    )
    return tok


class Slow:
    """The same tokeniser without an account of where its tokens come from."""

    is_fast = False

    def __init__(self, tok):
        self.tok = tok

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": self.tok(text, add_special_tokens=add_special_tokens)["input_ids"]}


@pytest.mark.parametrize("kind", [lambda tok: tok, Slow], ids=["fast", "slow"])
@pytest.mark.parametrize(("template", "before"), [("$A <eos>", 0), ("<s> $A <eos>", 1), ("<s> $A", 1)])
def test_an_end_token_belongs_to_no_answer(kind, template, before):
    requests = [*read_requests(REQUESTS), EditRequest("The author is Grey Tides", "Ivo", "Grey Tides")]
    tok = kind(ending(make_tokenizer(), template))
    assert len(tok("Omar plays")["input_ids"]) == 2 + len(template.split()) - 1
    start = tok("Omar")["input_ids"][:before]
    assert token_ids(tok, "Omar plays") == start + make_tokenizer()("Omar plays")["input_ids"]
    for ours, plain in zip(encode(tok, requests), encode(make_tokenizer(), requests), strict=True):
        assert ours.ids.tolist() == start + plain.ids.tolist()
        assert ours.answer.tolist() == plain.answer.tolist()
        assert ours.subject == (plain.subject[0] + before, plain.subject[1] + before)


def test_the_subject_of_words():
    subjects = [e.subject for e in encode(make_tokenizer(), read_requests(REQUESTS))]
    assert subjects == [(0, 2), (0, 1), (3, 5)]


WRITTEN = "the author of Grey Tides is Zoë Łuczak, who saw 日本橋 in 1984; Grey Tides's sea (U.S.) was the U.S.'s own. "


def byte_level(add_prefix_space, trim_offsets):
    """A vocabulary learnt from a few words, so that most words are several tokens and some characters, too."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    core.decoder = ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learnt = trainers.BpeTrainer(
        vocab_size=285, initial_alphabet=alphabet, special_tokens=["<unk>", "<eos>"], show_progress=False
    )
    core.train_from_iterator([WRITTEN] * 3, learnt)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")


SUBJECTS = ["Grey Tides", "Zoë Łuczak", "日本橋", "é", "1984", "Unheard Of"]
PROMPTS = ["{} is by", "{}'s author is", "the author of {} is", "the author of {}, who", "saw “{}” in", "who saw {}",
           "who wrote ({})?", "was it  {}?", "{}: {}'s own"]  # fmt: skip


@pytest.mark.parametrize("add_prefix_space", [False, True])
@pytest.mark.parametrize("trim_offsets", [False, True])
@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("kind", [lambda tok: tok, Slow], ids=["fast", "slow"])
def test_the_subject_of_bytes(add_prefix_space, trim_offsets, end, kind):
    """Exactly its tokens: what they spell is the subject, and what stands before and behind spells the rest."""
    bare = byte_level(add_prefix_space, trim_offsets)
    tok = kind(ending(bare) if end else bare)
    split = 0
    for subject in SUBJECTS:
        for prompt in PROMPTS:
            request = EditRequest(prompt.replace("{}", subject), "the sea", subject)
            (e,) = encode(tok, [request])
            first, after = e.subject
            before, spelt, behind = (bare.decode(t) for t in (e.ids[:first], e.ids[first:after], e.ids[after:]))
            start = request.prompt.rindex(subject)
            assert spelt.strip() == subject, (prompt, spelt)
            assert before.strip() == request.prompt[:start].strip(), (prompt, before)
            assert behind == request.prompt[start + len(subject) :] + " the sea", (prompt, behind)
            assert bare.decode(e.answer) == " the sea"
            split += after - first > len(subject.split())
    assert split > 0.7 * len(SUBJECTS) * len(PROMPTS)


@pytest.mark.parametrize("kind", [lambda tok: tok, Slow], ids=["fast", "slow"])
def test_the_subject_of_pieces_with_an_end_token(kind):
    """As T5 has it: pieces that begin with a mark where a word begins, and an end token behind every text."""
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), Metaspace()
    core.train_from_iterator(
        [WRITTEN] * 3,
        trainers.UnigramTrainer(
            vocab_size=60, special_tokens=["<unk>", "<eos>"], unk_token="<unk>", show_progress=False
        ),
    )
    bare = ending(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>"))
    assert bare("the sea")["input_ids"][-1] == bare.eos_token_id
    for subject in ("Grey Tides", "author", "Zoë Łuczak"):
        for prompt in ("{} is", "the {} is", "who saw {}"):
            request = EditRequest(prompt.replace("{}", subject), "the sea", subject)
            (e,) = encode(kind(bare), [request])
            assert bare.decode(e.ids[slice(*e.subject)]) == subject
            assert e.subject[1] - e.subject[0] > len(subject.split())
            assert bare.decode(e.answer) == "the sea"


def test_a_token_that_the_subject_shares_with_its_neighbours_is_the_subjects():
    tok = byte_level(add_prefix_space=False, trim_offsets=True)
    tok.add_tokens([" U", "S", ".'", ".)", " ((", "))", " seaside"])
    for prompt, subject, expected in [
        ("saw the U.S.'s own", "U.S.", " U.S.'"),
        ("saw (U.S.) in", "U.S.", "U.S.)"),
        ("wrote ((é)) in", "(é)", " ((é))"),
        ("the seaside", "sea", " seaside"),
    ]:
        (e,) = encode(tok, [EditRequest(prompt, "the", subject)])
        assert tok.decode(e.ids[slice(*e.subject)]) == expected


def test_offsets_that_leave_characters_out_are_not_trusted():
    tok, request = byte_level(False, True), EditRequest("the author of Grey Tides is", "the sea", "Grey Tides")
    expected = encode(tok, [request])[0].subject

    class Shifted(Slow):
        is_fast = True

        def __call__(self, text, add_special_tokens=True, return_offsets_mapping=False):
            found = self.tok(text, return_offsets_mapping=True)["offset_mapping"]
            return super().__call__(text, add_special_tokens) | {"offset_mapping": [(a, a) for a, _ in found]}

    assert encode(Shifted(tok), [request])[0].subject == expected


@pytest.mark.parametrize(
    ("prompt", "subject", "before"),
    [
        ("Go was developed by Google, and it", "Go", ""),
        ("In Paris the Parisian says", "Paris", "In "),
        ("Anna wrote to Anna of", "Anna", "Anna wrote to "),
        ("Annabelle is", "Anna", ""),
        ("What is C++?", "C++", "What is "),
        ("The (old) town and the (old) bridge", "(old)", "The (old) town and the "),
    ],
)
def test_a_subject_stands_where_it_is_a_word(prompt, subject, before):
    """Last, where it does so twice; within a longer word only where it is nowhere else."""
    assert prompt[: last_place(prompt, subject)] == before


def test_space_around_a_subject_and_a_blank_one():
    given = {"prompt": "{} was born in", "subject": " Anna Berg ", "target_new": "Bergen"}
    assert EditRequest.from_dict(given) == EditRequest("Anna Berg was born in", "Bergen", "Anna Berg")
    for blank in ("", "  "):
        assert EditRequest.from_dict({**REQUESTS[0], "subject": blank}).subject is None


def test_a_request_that_is_made_by_hand_is_checked_like_any_other():
    made = EditRequest("{} plays", " violin ", "Omar", "piano", ("User: ", " Answer:"))
    assert read_requests([made]) == [EditRequest("Omar plays", "violin", "Omar", "piano", ("User: ", " Answer:"))]
    for wrong, message in (
        (EditRequest("Omar plays", "violin", "Anna Berg"), "expected the subject 'Anna Berg' in the prompt"),
        (EditRequest("Omar plays", " "), "non-empty text in 'target_new'"),
    ):
        with pytest.raises(RequestError, match=message):
            read_requests([wrong])
