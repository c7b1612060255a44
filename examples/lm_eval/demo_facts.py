"""Tasks for EleutherAI's lm-evaluation-harness, made of the facts and texts that are part of this package.

The YAML files beside this one name these functions; `docs/lm_eval.md` has the commands. Nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from easyedit_packe.bench.content.held_out import held_out
from easyedit_packe.bench.data import demo

REQUESTS = Path(__file__).parent / "facts.json"
"""What is edited, for `packe edit --requests`: the first facts of the package."""
CHOICES = 4


def edited(**_: Any) -> DatasetDict:
    """The edited prompts; the old answer or the new one, which is right after the edit."""
    requests = json.loads(REQUESTS.read_text(encoding="utf-8"))
    return _test(
        {
            "prompt": r["prompt"].replace("{}", r["subject"]),
            "choices": [r["ground_truth"], r["target_new"]],
            "label": 1,
        }
        for r in requests
    )


def known(part: str, **_: Any) -> DatasetDict:
    """Questions that the unedited model answers, about other subjects and about other properties of the same one.

    The wrong choices are the edit's new answer, its old one, and answers to questions of the same kind.

    Args:
        part: "near", those around the edited facts; or "rest", those around all others.
    """
    facts = json.loads(demo.FILE.read_text(encoding="utf-8"))
    count = len(json.loads(REQUESTS.read_text(encoding="utf-8")))
    wanted = range(count) if part == "near" else range(count, len(facts))
    return _test(_question(facts, i, kind, j) for i in wanted for kind, j in _known(facts[i]))


def texts(**_: Any) -> DatasetDict:
    """Held-out text, one document a kind."""
    return _test({"kind": kind, "text": text} for kind, text in held_out().items())


def _known(fact: dict[str, Any]) -> list[tuple[str, int]]:
    """Kind and number of each of a fact's questions that the unedited model answers."""
    kinds = ("neighbours", "same_subject")
    return [(kind, j) for kind in kinds for j, said in enumerate(fact["unedited"][kind]) if said["known"]]


def _question(facts: list[dict[str, Any]], i: int, kind: str, j: int) -> dict[str, Any]:
    fact, probe = facts[i], facts[i][kind][j]
    others = (facts[(i + step) % len(facts)] for step in range(1, len(facts)))
    wrong = [fact["new"], fact["old"], *(other[kind][j]["answer"] for other in others if other["kind"] == fact["kind"])]
    choices = list(dict.fromkeys(w for w in wrong if w.lower() != probe["answer"].lower()))[: CHOICES - 1]
    label = (i + j) % CHOICES
    choices.insert(label, probe["answer"])
    return {"prompt": probe["prompt"].replace("{}", fact["subject"]), "choices": choices, "label": label}


def _test(documents: Any) -> DatasetDict:
    return DatasetDict({"test": Dataset.from_list(list(documents))})
