"""The tasks of `examples/lm_eval/`: what they ask, and that the harness gives what this package computes."""

import json
import sys

import pytest
import yaml

from easyedit_packe.bench.content.held_out import KINDS, held_out
from easyedit_packe.bench.data import demo
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.requests import EditRequest, collate, encode, read_requests

from .. import conftest
from ..conftest import ROOT, make_model, make_tokenizer

sys.path.insert(0, str(ROOT / "examples" / "lm_eval"))
import demo_facts

FOLDER = ROOT / "examples" / "lm_eval"
FACTS = json.loads(demo.FILE.read_text(encoding="utf-8"))
REQUESTS = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))


def test_what_is_edited_are_the_first_facts_of_the_package():
    for request, fact in zip(REQUESTS, FACTS, strict=False):
        assert [request[k] for k in ("prompt", "subject", "ground_truth", "target_new")] == [
            fact[k] for k in ("prompt", "subject", "old", "new")
        ]
    assert len(read_requests(REQUESTS)) == 10
    edited = list(demo_facts.edited()["test"])
    assert [d["prompt"] for d in edited] == [r.prompt for r in read_requests(REQUESTS)]
    assert [d["choices"][d["label"]] for d in edited] == [r["target_new"] for r in REQUESTS]


def test_questions_are_those_that_the_unedited_model_answers_and_one_answer_is_right():
    for part, facts in (("near", FACTS[: len(REQUESTS)]), ("rest", FACTS[len(REQUESTS) :])):
        documents = iter(demo_facts.known(part)["test"])
        for fact in facts:
            for kind in ("neighbours", "same_subject"):
                for probe, said in zip(fact[kind], fact["unedited"][kind], strict=True):
                    if not said["known"]:
                        continue
                    document = next(documents)
                    assert document["prompt"] == probe["prompt"].replace("{}", fact["subject"])
                    choices = document["choices"]
                    assert choices[document["label"]] == probe["answer"]
                    assert len({c.lower() for c in choices}) == demo_facts.CHOICES
                    assert {fact["new"], fact["old"]} - {probe["answer"]} <= set(choices)
        assert list(documents) == []


def test_each_task_names_a_function_and_texts_are_whole():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    tasks = {file.stem: yaml.load(file.read_text(), Loader) for file in FOLDER.glob("*.yaml")}
    assert set(tasks) == {"packe_edited", "packe_near", "packe_rest", "packe_held_out"}
    for name, task in tasks.items():
        assert task["task"] == name
        module, function = task["custom_dataset"].split(".")
        assert module == "demo_facts"
        assert len(getattr(demo_facts, function)(**task.get("dataset_kwargs", {}), version=1.0)["test"]) > 5
    assert {d["kind"]: d["text"] for d in demo_facts.texts()["test"]} == held_out()
    assert len(KINDS) == 6


@pytest.mark.slow
def test_the_harness_chooses_what_is_most_probable(tmp_path, monkeypatch):
    """On a random model, whose answers are right by chance: the harness's accuracy is that of our own sums."""
    pytest.importorskip("lm_eval")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    words = " ".join(f"{d['prompt']} {' '.join(d['choices'])}" for d in demo_facts.known("near")["test"]).split()
    monkeypatch.setattr(conftest, "WORDS", sorted(set(words)))
    tok, model = make_tokenizer(), make_model("llama")
    tok.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    found = simple_evaluate(
        model="hf", model_args={"pretrained": str(tmp_path), "dtype": "float32"}, tasks=["packe_near"], device="cpu",
        task_manager=TaskManager(include_path=str(FOLDER), include_defaults=False), bootstrap_iters=0,
    )  # fmt: skip
    right = []
    for document in demo_facts.known("near")["test"]:
        encoded = encode(tok, [EditRequest(document["prompt"], choice) for choice in document["choices"]])
        batch = collate(encoded)
        chances = answer_logits(model, batch).log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
        sums = [part.sum().item() for part in chances.split([len(e.answer) for e in encoded])]
        right.append(sums.index(max(sums)) == document["label"])
    assert 0 < sum(right) < len(right)
    assert found["results"]["packe_near"]["acc,none"] == pytest.approx(sum(right) / len(right))
