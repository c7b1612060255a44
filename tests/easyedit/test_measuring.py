"""What EasyEdit measures of PaCKE's and PaCKE+'s edits, in each of its ways, held against the edited model itself."""

import copy
import math

import nltk
import pytest
import torch

from easyedit_packe import LoadedModel, PaCKEPlusHyperParams
from easyedit_packe.bench.metrics.scoring import score
from easyedit_packe.easyedit.bridge import bridged, needs_cuda
from easyedit_packe.easyedit.host import host
from easyedit_packe.errors import EasyEditError
from easyedit_packe.model.generation import greedy_all

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from ..plus.common import ALL

ONE = REQUESTS[2]
REPHRASED = "Who wrote Grey Tides"
LOCALITY = {
    "neighborhood": (["Omar plays the"], ["violin"]),
    "other": (["Anna Berg was", "Omar plays"], ["born", "the piano"]),
}
PORTABILITY = {"hop": (["The author is"], ["Ivo Marsh"]), "alias": (["Anna was born in", "Omar"], ["Oslo", "plays"])}


@pytest.fixture(params=["PaCKE", "PaCKE+"])
def settings(request, hparams):
    plus = {**ALL, "write_at": "all", "num_steps": 20, "margin": 3.0, "device": "cpu"}
    return hparams if request.param == "PaCKE" else PaCKEPlusHyperParams(**plus)


@pytest.fixture
def head(found):
    if needs_cuda():
        pytest.skip("the PyPI release does not have it")


@pytest.fixture
def pypi(found):
    if not needs_cuda():
        pytest.skip("HEAD has it")


def columns(kinds):
    return {name: {"prompt": [list(p)], "ground_truth": [list(t)]} for name, (p, t) in kinds.items()}


def arguments():
    return {
        "prompts": [ONE["prompt"]], "target_new": [ONE["target_new"]], "ground_truth": ["Oslo"],
        "subject": [ONE["subject"]], "rephrase_prompts": [REPHRASED],
        "locality_inputs": columns(LOCALITY), "portability_inputs": columns(PORTABILITY), "verbose": False,
    }  # fmt: skip


def one_request():
    plain = {
        kind: {name: {"prompt": list(p), "ground_truth": list(t)} for name, (p, t) in probes.items()}
        for kind, probes in (("locality", LOCALITY), ("portability", PORTABILITY))
    }
    return [{**copy.deepcopy(ONE), "ground_truth": "Oslo", "rephrase_prompt": REPHRASED, **plain}]


@pytest.fixture
def edited(editor_of, settings):
    """Call a method on one request; the world has to be as it was. Gives EasyEdit's metrics and the edited model."""

    def edited(method="edit", editor=None, **options):
        editor = editor or editor_of(settings)
        before = snapshot(editor.model)
        world = editor.tok.padding_side, editor.model.training, editor.model.name_or_path, editor.hparams.batch_size
        given = {"requests": one_request(), "verbose": False} if method == "edit_requests" else arguments()
        metrics, model, originals = getattr(editor, method)(**given, **options)
        assert_same_bits(editor.model, before)
        assert world == (
            editor.tok.padding_side, editor.model.training, editor.model.name_or_path, editor.hparams.batch_size
        )  # fmt: skip
        originals.patch.apply(model)
        return metrics[0], model, editor

    return edited


def accuracies(model, tok, probes):
    return [s.accuracy for s in score(model, tok, list(zip(*probes, strict=True)))]


def perplexity(model, tok, prompt):
    (s,) = score(model, tok, [(prompt, ONE["target_new"])])
    return math.exp(-s.log_prob)


def check_probes(metrics, model, editor):
    """Locality and portability by every name: the same numbers from the edited model and the one before it."""
    tok, before = editor.tok, make_model("llama")
    for name, (prompts, answers) in LOCALITY.items():
        pairs = list(zip(prompts, answers, strict=True))
        said = [[s.said for s in score(m, tok, pairs)] for m in (before, model)]
        same = [sum(map(int.__eq__, a, b)) / len(a) for a, b in zip(*said, strict=True)]
        assert [float(x) for x in metrics["post"]["locality"][f"{name}_acc"]] == same
    for name, probes in PORTABILITY.items():
        assert [float(x) for x in metrics["post"]["portability"][f"{name}_acc"]] == accuracies(model, tok, probes)


def test_token_accuracy(edited):
    metrics, model, editor = edited()
    check_probes(metrics, model, editor)
    for key, prompt in (("rewrite_acc", ONE["prompt"]), ("rephrase_acc", REPHRASED)):
        found = accuracies(model, editor.tok, ([prompt], [ONE["target_new"]]))
        assert [float(x) for x in metrics["post"][key]] == found


@pytest.mark.parametrize("method", ["edit", "edit_requests"])
def test_perplexity(edited, method, head):
    metrics, model, editor = edited(method, eval_metric="ppl")
    for key, prompt in (("rewrite_ppl", ONE["prompt"]), ("rephrase_ppl", REPHRASED)):
        assert metrics["post"][key] == pytest.approx(perplexity(model, editor.tok, prompt), rel=1e-5)
        assert metrics["pre"][key] == pytest.approx(perplexity(make_model("llama"), editor.tok, prompt), rel=1e-5)
    check_probes(metrics, model, editor)


def test_perplexity_in_the_release_that_has_it_by_one_method(edited, pypi):
    metrics, model, editor = edited("edit_requests", eval_metric="ppl")
    assert metrics["post"]["rewrite_ppl"] < metrics["pre"]["rewrite_ppl"]
    check_probes(metrics, model, editor)


@pytest.fixture
def no_words(monkeypatch):
    """A machine without NLTK's data."""
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [])
    yield
    nltk.tokenize._get_punkt_tokenizer.cache_clear()


@pytest.fixture
def words(no_words, tmp_path, monkeypatch):
    """NLTK's data, of a language without abbreviations."""
    folder = tmp_path / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (folder / name).touch()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


@pytest.mark.parametrize("method", ["edit", "edit_requests"])
def test_fluency(edited, method, words, monkeypatch):
    module, texts = host("evaluate.evaluate_utils"), []
    entropy = module.n_gram_entropy
    monkeypatch.setattr(module, "n_gram_entropy", lambda said: texts.append(said) or entropy(said))
    metrics, model, editor = edited(method, test_generation=True)
    check_probes(metrics, model, editor)
    assert [text.startswith(ONE["prompt"]) for (text,) in texts] == [True, True]
    for when, said in zip(("pre", "post"), texts, strict=True):
        assert metrics[when]["fluency"]["ngram_entropy"] == entropy(said) > 0


@pytest.mark.parametrize("architecture", ["llama", "gptj"])
def test_fluency_is_of_what_the_model_would_say(editor_of, hparams, architecture):
    """Sampled from the likeliest token alone, the text is the model's greedy one, also where HEAD's mask hides it."""
    editor = editor_of(hparams, architecture)
    prompt = ONE["prompt"]
    (said,) = greedy_all(editor.model, editor.tok, [prompt], 12)
    with bridged(editor.hparams):
        sample = host("evaluate.evaluate_utils").generate_fast
        (text,) = sample(editor.model, editor.tok, [prompt], top_k=1, max_out_len=len(prompt.split()) + 12)
    assert text.split()[: len(prompt.split()) + len(said.split())] == [*prompt.split(), *said.split()]


def test_fluency_without_the_data_it_needs(edited, no_words):
    with pytest.raises(EasyEditError, match=r"python -m nltk\.downloader punkt_tab"):
        edited(test_generation=True)


# HEAD: text that the model writes freely


TOKENS = 3


@pytest.fixture
def speaking(settings, head):
    """An editor whose model says three tokens, after a chat template; EasyEdit would have it say up to 512."""
    from easyeditor import BaseEditor

    tok = make_tokenizer("left")
    tok.add_tokens(["abcdef", "."])  # what transformers looks for before it stops at a text
    tok.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    model = make_model("llama", vocab_size=len(tok))
    generate = model.generate
    model.generate = lambda **options: generate(**{**options, "max_new_tokens": TOKENS})

    def speaking(kind, **more):
        settings.model_name, settings.evaluation_type = LoadedModel("any", model, tok), kind
        vars(settings).update(more)
        return BaseEditor.from_hparams(settings)

    return speaking


def freely(model, tok, prompt):
    """Greedy, up to a full stop, without it."""
    text = tok.apply_chat_template(
        [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": prompt}],
        tokenize=False, add_generation_prompt=True,
    )  # fmt: skip
    ids = tok(text)["input_ids"]
    start = len(ids)
    for _ in range(TOKENS):
        ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if tok.decode(ids[-1]) in (".", "<eos>"):
            break
    said = tok.decode(ids[start:])
    return said.removesuffix(".").removesuffix("<eos>")


def test_generated_text(edited, speaking):
    editor = speaking("generate-text")
    before = copy.deepcopy(editor.model)
    metrics, model, _ = edited(editor=editor)
    post, said = metrics["post"], []
    for key, prompts in (("rewrite_gen_content", [ONE["prompt"]]), ("rephrase_gen_content", [REPHRASED])):
        assert post[key] == [freely(model, editor.tok, p) for p in prompts]
    for name, (prompts, _) in PORTABILITY.items():
        assert post["portability"][f"{name}_gen_content"] == [freely(model, editor.tok, p) for p in prompts]
    for name, (prompts, _) in LOCALITY.items():
        then, now = ([freely(m, editor.tok, p) for p in prompts] for m in (before, model))
        assert post["locality"][f"{name}_gen_content"] == now
        assert post["locality"][f"{name}_acc"] == [float(a == b) for a, b in zip(then, now, strict=True)]
        said += now
    assert any(said)


def test_judged_text_without_a_key_is_an_exact_match(edited, speaking):
    metrics, model, editor = edited(editor=speaking("LLM-judge"))
    said = freely(model, editor.tok, ONE["prompt"])
    assert metrics["post"]["rewrite_gen_content"] == [said]
    assert metrics["post"]["rewrite_acc"] == [float(said.split() == ONE["target_new"].split())]


def test_judged_text_with_a_judge(edited, speaking, monkeypatch):
    """The judge is a company's service; here a function in its place."""
    asked = []

    def judge(question, ground_truth, prediction, api_key):
        asked.append((question, ground_truth, prediction, api_key))
        return 1.0 if question == REPHRASED else 0.0

    monkeypatch.setattr(host("evaluate.evaluate_utils"), "llm_judge", judge)
    metrics, model, editor = edited(editor=speaking("LLM-judge", api_key="a key"))
    assert (metrics["post"]["rewrite_acc"], metrics["post"]["rephrase_acc"]) == ([0.0], [1.0])
    assert (ONE["prompt"], ONE["target_new"], freely(model, editor.tok, ONE["prompt"]), "a key") in asked
    assert metrics["post"]["portability"]["alias_acc"] == [0.0, 0.0]


# What a release, or one of its methods, would pass over


def refused(editor, method, message, **options):
    before = snapshot(editor.model)
    with pytest.raises(EasyEditError, match=message):
        getattr(editor, method)(**options)
    assert_same_bits(editor.model, before)


def test_the_release_names_what_it_lacks(editor_of, settings, pypi):
    refused(
        editor_of(settings),
        "edit",
        "does not act on 'eval_metric'; these do: edit_requests",
        **arguments(),
        eval_metric="ppl",
    )
    refused(editor_of(settings), "edit_requests", "known: ppl", requests=one_request(), eval_metric="ood_ppl")
    refused(
        editor_of(settings),
        "batch_edit",
        "does not act on '(locality|portability)_inputs'; these do: edit",
        **arguments(),
    )
    refused(editor_of(settings), "edit", "take EasyEdit's HEAD", **arguments(), pre_file="here.json")
    editor = editor_of(settings)
    editor.hparams.evaluation_type = "generate-text"
    refused(editor, "edit", "does not act on evaluation_type, got 'generate-text'; take EasyEdit's HEAD", **arguments())


def test_head_names_what_its_methods_pass_over(editor_of, settings, head):
    refused(editor_of(settings), "batch_edit", "these do: edit, edit_requests", **arguments(), eval_metric="ppl")
    refused(editor_of(settings), "edit", "did you mean 'ppl'", **arguments(), eval_metric="pppl")
    editor = editor_of(settings)
    editor.hparams.evaluation_type = "generate_text"
    refused(editor, "edit", "did you mean 'generate-text'", **arguments())


def test_a_method_of_the_other_release(editor_of, settings):
    editor = editor_of(settings)
    missing = "normal_edit" if needs_cuda() else "edit_dataset"
    assert not hasattr(editor, missing)
    with pytest.raises(EasyEditError, match=rf"has no BaseEditor\.{missing}; it has edit, "):
        getattr(editor, missing)
    with pytest.raises(AttributeError, match="object has no attribute 'edits'"):
        editor.edits  # noqa: B018


def test_a_data_set_of_the_release(editor_of, settings, pypi, tmp_path):
    """Each chunk is rolled back; the release returns the last chunk's metrics alone."""
    import json

    from easyedit_packe.easyedit import parts

    record = {
        "subject": ONE["subject"], "src": ONE["prompt"], "rephrase": REPHRASED, "alt": ONE["target_new"],
        "answers": ["Oslo"], "loc": "nq question: who plays", "loc_ans": "Anna",
    }  # fmt: skip
    file = tmp_path / "zsre.json"
    file.write_text(json.dumps([{**record, "alt": "Oslo"}, record]))
    editor = editor_of(settings)
    before = snapshot(editor.model)
    dataset = parts.read_dataset("ZsreDataset", file)
    metrics, model, originals = editor.edit_dataset(dataset, verbose=False)
    assert_same_bits(editor.model, before)
    assert [m["case_id"] for m in metrics] == [1]
    originals.patch.apply(model)
    found = accuracies(model, editor.tok, ([ONE["prompt"]], [ONE["target_new"]]))
    assert [float(x) for x in metrics[0]["post"]["rewrite_acc"]] == found
