"""What the default model says about the facts of `data=demo` before any edit, written into their file.

    python benchmarks/demo_answers.py

Greedy, float32, without a seed. Asked are the prompt, the first paraphrase, the neighbours and the other questions
about the subject. Kept is what the model says in eight tokens ("says"), and whether the answer in the file begins with
the token that the model finds likeliest ("known").

No fact was chosen by what an editor makes of it. By what the unedited model says, yes: facts that it did not know were
replaced, or their prompts, neighbours and other questions worded anew, and the first wording often became a paraphrase.
That is why it knows every prompt, and few of the paraphrases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.generation import greedy_all
from easyedit_packe.model.load import load
from easyedit_packe.requests import EditRequest, collate, encode

FILE = Path(str(files("easyedit_packe.bench.content"))) / "demo.json"
TOKENS = 8
ROWS = 16
"""Prompts that go through the model at once."""


def asked(fact: dict[str, Any]) -> Iterator[tuple[str, EditRequest]]:
    """(field under "unedited", prompt with its true answer) of everything that the model is asked about a fact."""
    subject, old = fact["subject"], fact["old"]
    yield "prompt", EditRequest(fact["prompt"].replace("{}", subject), old)
    yield "paraphrase", EditRequest(fact["paraphrases"][0].replace("{}", subject), old)
    for field in ("neighbours", "same_subject"):
        for probe in fact[field]:
            yield field, EditRequest(probe["prompt"].replace("{}", subject), probe["answer"])


@torch.no_grad()
def answers(model: Any, tok: Any, requests: list[EditRequest]) -> list[dict[str, Any]]:
    """For each request what the model says, and whether it begins as the request's target does."""
    said = [" ".join(text.split()) for text in greedy_all(model, tok, [r.prompt for r in requests], TOKENS)]
    batch = collate(encode(tok, requests))
    right = answer_logits(model, batch).argmax(-1) == batch.targets
    first = [batch.rows.tolist().index(row) for row in range(len(requests))]
    return [{"says": text, "known": bool(right[i])} for text, i in zip(said, first, strict=True)]


def main() -> None:
    facts = json.loads(FILE.read_text("utf-8"))
    model, tok = load(dtype=torch.float32)
    model.eval()
    rows = [(fact, field, request) for fact in facts for field, request in asked(fact)]
    rows.sort(key=lambda row: len(row[2].prompt))  # like lengths in a batch need little padding; the order is stable
    found = {}
    for i in range(0, len(rows), ROWS):
        requests = [request for _, _, request in rows[i : i + ROWS]]
        found |= dict(zip(requests, answers(model, tok, requests), strict=True))
    for fact in facts:
        unedited: dict[str, Any] = {"neighbours": [], "same_subject": []}
        for field, request in asked(fact):
            if field in ("prompt", "paraphrase"):
                unedited[field] = found[request]
            else:
                unedited[field].append(found[request])
        fact["unedited"] = {field: unedited[field] for field in ("prompt", "paraphrase", "neighbours", "same_subject")}
    FILE.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    known: dict[str, list[bool]] = {}
    for _, field, request in rows:
        known.setdefault(field, []).append(found[request]["known"])
    for field, answered in sorted(known.items()):
        print(f"{field}: {sum(answered)} of {len(answered)} known")


if __name__ == "__main__":
    main()
