"""The demo: what it counts, by hand on a tiny model; its table; and two facts of the real model."""

import importlib.util
import io
import json
import re
import sys

import pytest
import torch
from rich.console import Console

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.bench.through_easyedit import Stopwatch
from easyedit_packe.model.load import load

from ..cli.common import packe
from ..conftest import ROOT, assert_same_bits, snapshot


def script(name):
    """An example as a module; it is no part of a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for their own module
    spec.loader.exec_module(module)
    return module


demo = script("quickstart")
FACTS = json.loads(demo.FACTS.read_text(encoding="utf-8"))

TINY = {
    "subject": "Omar",
    "prompt": "{} plays",
    "old": "violin",
    "new": "piano",
    "paraphrases": ["Who plays {}", "{} plays the"],
    "neighbours": [{"prompt": "Anna Berg plays", "answer": "violin"}],
    "others": [{"prompt": "{} was born in"}, {"prompt": "{} wrote"}, {"prompt": "{} plays"}],
}


def shown(renderable, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue().splitlines()


def test_other_facts_are_counted_by_their_first_token(editor_of):
    editor = editor_of(PaCKEHyperParams(num_critical_paths=8, lr=1e-2, num_steps=20, device="cpu"))
    before = snapshot(editor.model)
    watch = Stopwatch(editor)
    outcome, said, patch = demo.edit(editor, watch, TINY)
    assert_same_bits(editor.model, before)
    assert (outcome.efficacy, said.split()[0], outcome.seconds) == (1.0, "piano", watch.seconds)

    def tokens():
        with torch.no_grad():
            prompts = [o["prompt"].replace("{}", "Omar") for o in TINY["others"]]
            return [editor.tok.decode(editor.model(**encoded(p)).logits[0, -1].argmax()) for p in prompts]

    def encoded(prompt):
        return editor.tok(prompt, return_tensors="pt", return_token_type_ids=False)

    was = tokens()
    patch.apply(editor.model)
    now = tokens()
    assert now[2] == "piano"  # the last of the others is the edited prompt itself: drawn, whatever the edit does
    assert outcome.drawn == pytest.approx(sum(t == "piano" for t in now) / 3)
    assert outcome.kept == pytest.approx(sum(a == b for a, b in zip(was, now, strict=True)) / 3)


def test_means_by_hand_in_a_table_that_fits():
    def row(fact, a, b):
        return demo.Row(fact, {"PaCKE": (demo.Outcome(*a), "Rome, Italy. The E"), "PaCKE+": (demo.Outcome(*b), "")})

    rows = [
        row("The Eiffel Tower is located in the city of Rome, not Paris", (1, 1, 0.5, 0, 0.25, 1), (1, 0, 0, 0, 0, 3)),
        row("The capital of Japan is the city of Oslo, not Tokyo", (0, 1, 0, 0, 0.75, 2), (1, 0, 0, 0, 0, 4.5)),
    ]
    for width in (100, 80):
        told = shown(demo.table_of(rows), width)
        assert max(map(len, told)) <= width
        assert told[-2].split() == ["mean", "PaCKE", "0.50", "1.00", "0.25", "0.00", "0.50", "1.5"]
        assert told[-1].split() == ["PaCKE+", "1.00", "0.00", "0.00", "0.00", "0.00", "3.8"]
        assert max(map(len, shown(demo.legend(), width))) <= width
    assert all(len(line) <= 100 for line in demo.next_steps().splitlines())


def test_every_fact_has_what_the_demo_counts():
    assert len(FACTS) == 10
    for fact in FACTS:
        assert fact.keys() == FACTS[0].keys()
        assert (len(fact["paraphrases"]), len(fact["neighbours"]), len(fact["others"])) == (2, 2, 3)
        prompts = [fact["prompt"], *fact["paraphrases"], *(o["prompt"] for o in fact["others"])]
        assert all("{}" in p for p in prompts)
        assert len(set(prompts)) == 6


@pytest.mark.slow
def test_the_facts_record_what_the_model_says_of_each_subject():
    model, tok = load("smollm2-135m")
    for fact in FACTS:
        for other in fact["others"]:
            encoded = tok(other["prompt"].replace("{}", fact["subject"]), return_tensors="pt")
            out = model.generate(**encoded, max_new_tokens=8, do_sample=False)
            said = tok.decode(out[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True).strip()
            assert said == other["model_says"]


@pytest.mark.slow
def test_two_facts_of_the_real_model_by_both_editors(found, background_kept):
    console = Console(file=io.StringIO(), width=100)
    assert demo.run(FACTS[:2], console)
    told = console.file.getvalue()
    assert max(map(len, told.splitlines())) <= 100
    rows = re.findall(r"(PaCKE\+?) +(Rome|Oslo).*? +1\.00 ", told)
    assert rows == [("PaCKE", "Rome"), ("PaCKE+", "Rome"), ("PaCKE", "Oslo"), ("PaCKE+", "Oslo")]
    assert "After all rollbacks the weights are the original ones, bit for bit." in told
    assert "PaCKE 0.4%, PaCKE+ 7.7%" in told


def test_the_commands_to_try_next_exist():
    commands = re.findall(r"^ +(?:\S+/)?packe (\w+)", demo.next_steps(), re.MULTILINE)
    assert commands == ["edit", "ask", "bench"]
    for command in commands:
        assert packe(command, "--help")
