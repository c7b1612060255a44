"""What a model says: the same tokens as transformers' own greedy decoding, in fewer passes."""

import copy
import warnings

import pytest
import torch
from transformers import GenerationConfig

from easyedit_packe.errors import RequestError
from easyedit_packe.model.forward import remembered
from easyedit_packe.model.generation import greedy, greedy_all
from easyedit_packe.model.sampling import continued

from ..conftest import WORDS, make_model, make_tokenizer
from ..families import make_family
from ..test_requests import ending

PROMPTS = ["Omar plays", "The author of Grey Tides is", "Anna", "Who wrote Ivo Marsh"]
TOKENS = 9


def by_generate(model, tok, prompts=PROMPTS, tokens=TOKENS):
    """Token ids, from batches padded on the left, as transformers decodes them; up to the end token."""
    tok = copy.deepcopy(tok)
    tok.padding_side = "left"
    encoded = tok(prompts, return_tensors="pt", padding=True)
    own, ends = model.generation_config, model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tok.pad_token_id)
    out = model.generate(**encoded, max_new_tokens=tokens, do_sample=False)
    model.generation_config = own
    ends = [ends] if isinstance(ends, int) else ends or []
    found = out[:, encoded["input_ids"].shape[1] :].tolist()
    return [ids[: next((i + 1 for i, t in enumerate(ids) if t in ends), None)] for ids in found]


def texts(tok, ids):
    return tok.batch_decode(ids, skip_special_tokens=True)


def counting(*most):
    """Enough after so many tokens of each text."""
    seen = [0] * len(most)

    def enough(i, text):
        seen[i] += 1
        return seen[i] >= most[i]

    return enough


@pytest.fixture
def speaker(architecture):
    """In float64, where two tokens are never as likely by rounding. Nothing ends a text but its length.

    It says several things, and repeats itself, by weights that no release of transformers draws otherwise.
    """
    model, generator = make_model(architecture), torch.Generator().manual_seed(11)
    for _, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        p.data = 0.3 * noise if p.ndim > 1 else p.data.round() + 0.1 * noise  # near 1 in norms, near 0 in biases
    model.double()
    model.generation_config.eos_token_id = None
    return model, make_tokenizer()


def test_the_same_as_generate(speaker):
    model, tok = speaker
    expected = by_generate(model, tok)
    assert len({t for ids in expected for t in ids}) > 4
    assert greedy_all(model, tok, PROMPTS, TOKENS) == texts(tok, expected)
    assert [greedy(model, tok, p, TOKENS) for p in PROMPTS] == [" ".join(t.split()) for t in texts(tok, expected)]


@pytest.mark.parametrize("where", [1, 4])
def test_each_text_ends_by_itself(speaker, where):
    """At a token that the model holds for its end, or at a stop; those that go on do so from what is remembered."""
    model, tok = speaker
    whole = by_generate(model, tok)
    end = [t for t in whole[0] if t > 1][where]  # one that is seen in the text
    model.generation_config.eos_token_id = [1, end]
    assert greedy_all(model, tok, PROMPTS, TOKENS) == texts(tok, by_generate(model, tok))
    model.generation_config.eos_token_id = None
    (stop,) = tok.convert_ids_to_tokens([end])
    has_it = [[stop in word for word in tok.convert_ids_to_tokens(ids)] for ids in whole]  # "Bergen" has "Berg"
    until = [ids[: has.index(True) + 1] if any(has) else ids for ids, has in zip(whole, has_it, strict=True)]
    assert greedy_all(model, tok, PROMPTS, TOKENS, [stop]) == texts(tok, until)
    few = greedy_all(model, tok, PROMPTS, TOKENS, enough=counting(2, 5, 1, 4))
    assert few == texts(tok, [ids[:n] for ids, n in zip(whole, (2, 5, 1, 4), strict=True)])


def passes(model):
    """[texts, tokens] of each pass of the model."""
    shapes = []
    model.register_forward_pre_hook(lambda m, a, given: shapes.append(list(given["input_ids"].shape)), with_kwargs=True)
    return shapes


def test_guesses_change_nothing_and_right_ones_save_passes(speaker):
    model, tok = speaker
    whole = by_generate(model, tok)
    expected, words = texts(tok, whole), tok.convert_ids_to_tokens(range(2, 12))
    right = [" ".join(tok.convert_ids_to_tokens(ids[:6])) for ids in whole]
    half = [" ".join(tok.convert_ids_to_tokens([*ids[:3], *range(2, 5)])) for ids in whole]
    wrong = [words[0], f"{words[1]} {words[2]}", words[3], " ".join(words[4:9])]
    shapes = passes(model)
    for guesses in (right, half, wrong, right[:2] + wrong[2:]):
        shapes.clear()
        assert greedy_all(model, tok, PROMPTS, TOKENS, guesses=guesses) == expected
        assert guesses != right or len(shapes) == TOKENS - 6
    shapes.clear()
    assert greedy_all(model, tok, PROMPTS, 3, guesses=right) == texts(tok, [ids[:3] for ids in whole])
    assert len(shapes) == 1


def test_every_family_says_what_it_would_say_alone(family):
    """Also those with windows, and with layers that remember a state: in a batch whose texts end one after another, and
    whatever was guessed."""
    # These give NaN in double precision for a text that is padded on the left, Gemma's with transformers 5.24.
    single = family in ("bloom", "mpt", "gemma2", "vaultgemma")
    model, tok = make_family(family, torch.float32 if single else torch.float64), make_tokenizer()
    model.generation_config.eos_token_id = None
    prompts = [*PROMPTS, " ".join(WORDS[:9])]
    alone = [greedy_all(model, tok, [prompt], TOKENS)[0] for prompt in prompts]
    ids = torch.tensor([tok(prompts[0])["input_ids"]])
    for _ in range(TOKENS):  # nothing is remembered from token to token
        ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    assert alone[0] == tok.decode(ids[0, -TOKENS:], skip_special_tokens=True)
    few = greedy_all(model, tok, prompts, TOKENS, enough=counting(9, 2, 5, 1, 4))
    assert all(text.startswith(part) for text, part in zip(alone, few, strict=True))
    assert few[0] == alone[0]
    guesses = ["Anna Berg Omar", alone[1], "", alone[3].rsplit(" ", 3)[0] + " Omar plays", "Anna"]
    assert greedy_all(model, tok, prompts, TOKENS, guesses=guesses) == alone


def test_texts_that_repeat_themselves_take_fewer_passes(speaker):
    """To the last position that the model has, and as far as they do."""
    model, tok = speaker
    whole = by_generate(model, tok, tokens=56)
    assert any(ids[-3:] == ids[-6:-3] or ids[-4:] == ids[-8:-4] for ids in whole)
    shapes = passes(model)
    assert greedy_all(model, tok, PROMPTS, 56, guesses=[""] * 4) == texts(tok, whole)
    assert len(shapes) < 56
    shapes.clear()
    assert greedy_all(model, tok, PROMPTS, 56) == texts(tok, whole)
    assert [tokens for _, tokens in shapes[1:]] == [1] * 55


def test_those_that_are_done_are_not_asked_again(speaker):
    model, tok = speaker
    shapes = passes(model)
    greedy_all(model, tok, PROMPTS, TOKENS, enough=counting(1, 2, 3, 4))
    assert [rows for rows, _ in shapes] == [4, 3, 2, 1]


def test_an_end_token_behind_the_prompt_is_not_part_of_it(speaker):
    model, tok = speaker
    expected = greedy_all(model, tok, PROMPTS, TOKENS)
    tok = ending(tok)
    assert tok(PROMPTS[0])["input_ids"][-1] == tok.eos_token_id
    assert greedy_all(model, tok, PROMPTS, TOKENS) == expected
    assert greedy_all(model, tok, PROMPTS, TOKENS, guesses=["Omar"] * 4) == expected


def test_a_prompt_without_tokens():
    with pytest.raises(RequestError, match="the prompt '' tokenises to nothing"):
        greedy_all(make_model("llama"), make_tokenizer(), ["Omar", ""], 3)


def test_what_was_seen_is_handed_on_by_its_own_name(speaker, monkeypatch):
    """transformers takes the older name, too, and says so: some models by a warning, others by a line of the log."""
    model, tok = speaker
    logged = []
    monkeypatch.setattr("transformers.utils.generic.logger.warning_once", logged.append)
    ids = torch.tensor([tok(PROMPTS[0])["input_ids"]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        greedy_all(model, tok, PROMPTS, TOKENS)
        continued(model, ids, 6, torch.Generator().manual_seed(0))
        whole = model(input_ids=ids, use_cache=True)
    assert logged == []
    (seen,) = remembered(whole).values()
    assert seen.get_seq_length() == ids.shape[1]
    after = model(input_ids=ids[:, :1], **remembered(whole)).logits[:, -1]
    torch.testing.assert_close(after, model(input_ids=torch.cat([ids, ids[:, :1]], 1)).logits[:, -1])


def test_the_words_of_these_tests_are_known():
    assert {word for prompt in PROMPTS for word in prompt.split()} <= set(WORDS)
