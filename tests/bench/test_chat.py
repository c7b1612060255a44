"""Runs that ask through a chat template: the same text for every editor, every question and the unedited model."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from easyedit_packe import LoadedModel, PaCKEHyperParams
from easyedit_packe.bench import measure, session
from easyedit_packe.bench.data import Probe, Record, read_records
from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.measure import Measure
from easyedit_packe.bench.metrics import free, subject
from easyedit_packe.bench.report import find_runs, markdown
from easyedit_packe.bench.runner import run
from easyedit_packe.bench.settings import Settings
from easyedit_packe.bench.simie import SimIE
from easyedit_packe.bench.store import StoreError
from easyedit_packe.bench.through_easyedit import edit_records
from easyedit_packe.easyedit import parts
from easyedit_packe.easyedit.bridge import needs_cuda
from easyedit_packe.errors import HyperParamsError
from easyedit_packe.model.chat import in_turn

from ..conftest import CHAT, make_model, make_tokenizer
from .folders import read_rows
from .test_metrics import RECORD
from .world import make_world, settings_of


def chat_tokenizer(side="left"):
    tok = make_tokenizer(side)
    tok.chat_template = CHAT
    return tok


def turn(prompt):
    return f"Omar wrote {prompt} <eos> Omar is"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    chat_tokenizer().save_pretrained(folder / "tiny")
    return folder


@pytest.fixture
def settings(world, tmp_path):
    def settings(editor="PaCKE", **changes):
        return Settings.from_dict(settings_of(world, editor, out=str(tmp_path / "runs"), **changes))

    return settings


def test_every_question_is_asked_in_a_turn(monkeypatch):
    """Request, paraphrases, neighbours, other localities, portability, distracting ones, and those of the subject."""
    seen = {"texts": [], "free": []}

    def wanted(tok, pairs, prompts):
        seen["texts"] += [prompt for prompt, _ in pairs] + list(prompts)
        raise ZeroDivisionError

    def greedy_all(model, tok, prompts, *_, **__):
        seen["free"] += prompts
        return ["Rome"] * len(prompts)

    monkeypatch.setattr(measure, "wanted", wanted)
    monkeypatch.setattr(free, "greedy_all", greedy_all)
    asked, model, tok = Measure(compares=True, generation=True, turn=turn), torch.nn.Identity(), chat_tokenizer("right")
    with pytest.raises(ZeroDivisionError):
        next(asked.unedited(model, tok, [RECORD]))
    plain = [
        "Omar plays", "Who plays", "Omar wrote", "Anna Berg plays", "Grey Tides is", "The author plays", "Who is",
        "Omar plays the piano. Anna Berg plays", "Omar plays the piano. Grey Tides is", *subject.questions(RECORD),
    ]  # fmt: skip
    assert set(seen["texts"]) == set(map(turn, plain))
    asked._spoken(model, tok, [RECORD], None, ())
    assert seen["free"] == [turn(p) for p in ("Omar plays", "Who plays", "Omar wrote")]


def test_rows_by_hand():
    """The unedited model's figures, by a plain loop over tokens of the text with the template."""
    model, tok = make_model("llama"), chat_tokenizer("right")
    asked = Measure(compares=False, generation=True, turn=partial(in_turn, tok))
    (row,) = asked.unedited(model, tok, [RECORD])

    def said(text, answer):
        """What the model says at the positions of the answer, and the answer's ids."""
        start, ids = len(tok(text)["input_ids"]), tok(f"{text} {answer}".strip())["input_ids"]
        with torch.no_grad():
            found = [model(torch.tensor([ids[:at]])).logits[0, -1].argmax().item() for at in range(start, len(ids))]
        return found, ids[start:]

    def accuracy(prompt, answer):
        return float(np.mean(np.equal(*said(turn(prompt), answer))))

    assert row["easyedit"] == {
        "efficacy": accuracy("Omar plays", "the piano"),
        "generality": accuracy("Who plays", "the piano"),
        "portability_one_hop": (accuracy("The author plays", "the violin") + accuracy("Who is", "Omar")) / 2,
    }
    assert row["kept"]["said"]["locality"] == {
        "neighborhood": [said(turn("Anna Berg plays"), "violin")[0]], "other": [said(turn("Grey Tides is"), "Ivo")[0]],
    }  # fmt: skip
    assert row["rome"]["generality"] == (accuracy("Who plays", "the piano") + accuracy("Omar wrote", "the piano")) / 2
    with torch.no_grad():
        logits = model(torch.tensor([tok(turn("Omar is"))["input_ids"]])).logits[0, -1]
    assert row["kept"]["subject"][0]["ids"][0] == logits.argmax().item()
    plain = next(Measure(compares=False, generation=True).unedited(model, tok, [RECORD]))
    assert plain["kept"] != row["kept"]


def test_a_target_begins_with_or_without_a_space_in_a_chat():
    """Drawn is what becomes the target's first token: a tokeniser may have two for one word."""

    words = {"<unk>": 0, "<p>": 1, "p": 2, " Rome": 3, "Rome": 4}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("<p>|^p| ?Rome"), "isolated")
    tok = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    record = Record(1, "p", "p", "Rome", "")
    assert Measure(False, False)._first_tokens(tok, record) == {3}
    assert Measure(False, False, turn=lambda p: f"<{p}>")._first_tokens(tok, record) == {3, 4}
    split = make_tokenizer()  # at white space only: what is joined to the template's last word is another word
    record = Record(1, "Omar plays", "Omar", "violin", "")
    assert Measure(False, False, turn=turn)._first_tokens(split, record) == {split("violin")["input_ids"][0]}


@pytest.mark.parametrize("editor", ["PaCKE", "PaCKE+", "FT-C"])
def test_every_editor_edits_that_text(settings, monkeypatch, editor):
    """PaCKE and PaCKE+ make the turn themselves, once; to others it is the prompt."""
    real, seen = session.apply_function, []

    def watching(name):
        def call(model, tok, requests, hparams, **kwargs):
            wraps = getattr(hparams, "use_chat_template", False)
            seen.extend((in_turn(tok, r["prompt"]) if wraps else r["prompt"], r["subject"]) for r in requests)
            return real(name)(model, tok, requests, hparams, **kwargs)

        return call

    monkeypatch.setattr(session, "apply_function", watching)
    folder = run(settings(editor, n=2, generation=False, use_chat_template=True))
    assert seen == [(turn("Who wrote Omar"), "Omar"), (turn("Who wrote Anna Berg"), "Anna Berg")]
    assert any(row["weights_changed"] > 0 for row in read_rows(folder / "edits.jsonl"))
    if editor == "PaCKE":
        assert any(row["easyedit"]["efficacy"] == 1.0 for row in read_rows(folder / "cases.jsonl"))


def test_simie_merges_by_what_the_model_saw_in_that_text(settings, monkeypatch):
    """Around an editor that makes the turn itself, too."""
    seen, real = [], SimIE._inputs

    def watching(self, model, tok, request, names):
        seen.append("".join(request.frame) and request.frame[0] + request.prompt + request.frame[1])
        return real(self, model, tok, request, names)

    monkeypatch.setattr(SimIE, "_inputs", watching)
    asked = settings("PaCKE", n=2, generation=False, use_chat_template=True)
    run(dataclasses.replace(asked, editor="SimIE-PaCKE"))
    assert seen == [turn("Who wrote Omar"), turn("Who wrote Anna Berg")]


@pytest.mark.skipif("needs_cuda()", reason="the PyPI release's metrics know no chat template")
def test_single_is_easyedits_own_figure(settings, found):
    """HEAD measures with the template what is edited with it, to the digit. It leaves it out for localities: those are
    given to it in a turn."""
    s = settings(n=3, generation=False, use_chat_template=True)
    cases = read_rows(run(s) / "cases.jsonl")
    hparams = PaCKEHyperParams.from_hparams(s.hparams_file)
    hparams.device, hparams.model_name = "cpu", LoadedModel("tiny", make_model("llama"), chat_tokenizer())
    hparams.use_chat_template = True
    records = [
        dataclasses.replace(
            r, localities={k: tuple(Probe(turn(p.prompt), p.answers) for p in ps) for k, ps in r.localities.items()}
        )
        for r in read_records(s.data_file, s.data, 3)
    ]
    theirs = edit_records(parts.base_editor().from_hparams(hparams), records)
    for mine, other, record in zip(cases, theirs, records, strict=True):
        ours, post = mine["easyedit"], other["post"]
        assert ours["efficacy"] == float(np.mean(post["rewrite_acc"]))
        assert ours["generality"] == float(np.mean(post["rephrase_acc"]))
        (name,) = record.localities
        assert ours[f"locality_{name}"] == float(np.mean(post["locality"][f"{name}_acc"]))
    assert {row["easyedit"]["efficacy"] for row in cases} != {0.0}


def test_easyedit_refuses_what_it_would_not_measure(found):
    """The PyPI release any template, HEAD a tokeniser without one: before anything is measured or edited."""
    hparams = PaCKEHyperParams(num_critical_paths=3, device="cpu", use_chat_template=True)
    hparams.model_name = LoadedModel("tiny", make_model("llama"), make_tokenizer("left"))
    message = "expected EasyEdit's HEAD" if needs_cuda() else "expected a tokeniser with a chat template"
    editor = parts.base_editor().from_hparams(hparams)
    with pytest.raises(HyperParamsError, match=message):
        edit_records(editor, [RECORD])


def test_the_two_kinds_of_runs_are_kept_apart(settings, tmp_path):
    plain, chat = run(settings(n=2)), run(settings(n=2, use_chat_template=True))
    assert (plain.name, chat.name) == ("PaCKE-seed42", "PaCKE-seed42-chat")
    identities = [json.loads((folder / "run.json").read_text())["identity"] for folder in (plain, chat)]
    assert identities[1].pop("chat_template") == turn("{}")
    assert identities[0] == identities[1]
    assert "use_chat_template" not in identities[0]["hparams"]  # nor in runs from before there were any
    beside = plain.parents[1]
    rows = [read_rows(beside / name / "cases.jsonl") for name in ("unedited", "unedited-chat")]
    assert rows[0][0]["kept"] != rows[1][0]["kept"]
    runs = find_runs([tmp_path / "runs"])
    assert {r.setting: list(r.unedited.values()) for r in runs} == {
        "single": rows[0], "single, chat template": rows[1],
    }  # fmt: skip
    assert "## tiny, single, chat template" in markdown(runs)
    about = [json.loads((beside / name / "run.json").read_text()) for name in ("unedited", "unedited-chat")]
    assert about[0]["perplexities"] == about[1]["perplexities"]  # of plain text in both


def test_a_template_that_changed_is_another_run(settings, world):
    """As those that hold the day's date do."""
    folder = run(settings(n=1, generation=False, use_chat_template=True))
    file = folder / "run.json"
    file.write_text(file.read_text().replace("Omar wrote {}", "Yesterday {}"))
    with pytest.raises(StoreError, match=r"chat_template: 'Yesterday \{\} <eos> Omar is' there, 'Omar wrote"):
        run(settings(n=1, generation=False, use_chat_template=True))
    file = folder.parents[1] / "unedited-chat" / "run.json"
    file.write_text(file.read_text().replace("Omar wrote {}", "Yesterday {}"))
    with pytest.raises(StoreError, match="was measured with another chat template"):
        run(settings(n=1, generation=False, use_chat_template=True, label="x"))


def test_what_does_not_go_together(settings, tmp_path):
    with pytest.raises(BenchError, match=r"hparams.use_chat_template: expected the benchmark's own setting"):
        run(settings(n=1, hparams={"use_chat_template": True}))
    other = make_world(tmp_path)
    with pytest.raises(HyperParamsError, match="expected a tokeniser with a chat template"):
        run(settings(n=1, use_chat_template=True, model=str(other / "tiny")))


def test_a_run_of_before_is_the_same_run(settings):
    """Its identity has no entry that the defaults of newer settings make."""
    assert set(settings().identity({}, "digest")) == {
        "model", "data", "protocol", "seed", "start", "generation", "curve", "label", "editor", "data_sha256",
        "model_sha256", "hparams",
    }  # fmt: skip
