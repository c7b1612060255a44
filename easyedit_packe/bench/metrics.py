"""What is measured of a model after an edit: three families of metrics, never mixed.

- EasyEdit: token accuracy under teacher forcing, and agreement with the unedited model; EasyEdit's own functions.
- ROME: comparisons of probabilities (CounterFact), or accuracy against the truth (ZsRE), as the ROME and AlphaEdit
  papers count.
- Generation: what greedy decoding says; "The Mirage of Model Editing" (arXiv 2502.11177) shows how far teacher forcing
  flatters an editor.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from ..easyedit import bridged, parts
from ..model.forward import answer_logits
from ..model.generation import greedy_all
from ..requests import EditRequest, collate, encode
from .data import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXT = Path(__file__).parent / "text.txt"
"""The fixed text of `perplexity`: 130 words on bread, shown to no editor."""

GENERATED_TOKENS = 8
"""Tokens that greedy decoding may use beyond the target's own, to reach a natural stop."""


@dataclass(frozen=True)
class Answer:
    """A target under teacher forcing: mean log-probability per token, in nats, and the share of arg-max hits."""

    log_prob: float
    accuracy: float


@torch.no_grad()
def score_answers(model: PreTrainedModel, tok: Any, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
    """Each (prompt, target) pair as an `Answer`, from one padded forward pass."""
    encoded = encode(tok, [EditRequest(p, t.strip()) for p, t in pairs])
    batch = collate(encoded, model.device)
    logits = answer_logits(model, batch)
    losses = F.cross_entropy(logits, batch.targets.to(logits.device), reduction="none").tolist()
    hits = (logits.argmax(-1) == batch.targets.to(logits.device)).tolist()
    answers, at = [], 0
    for e in encoded:
        end = at + len(e.answer)
        answers.append(Answer(-float(np.mean(losses[at:end])), float(np.mean(hits[at:end]))))
        at = end
    return answers


def rome_family(model: PreTrainedModel, tok: Any, record: Record, data_type: str) -> dict[str, float]:
    """Efficacy, generality and locality as the ROME and AlphaEdit papers define them.

    CounterFact: P(new) > P(old) after the prompt and after the paraphrase; P(true) > P(new) after the neighbour's
    prompt; P is the mean over tokens of the log-probability. ZsRE: token accuracy of the new answer, of the new answer
    after the paraphrase, and of the true answer to the unrelated question.
    """
    new, old, true = record.target_new, record.ground_truth, record.locality_ground_truth
    if data_type == "ZsRE":
        pairs = [(record.prompt, new), (record.rephrase_prompt, new), (record.locality_prompt, true)]
        values = [a.accuracy for a in score_answers(model, tok, pairs)]
        return dict(zip(("efficacy", "generality", "locality"), values, strict=True))
    prompts = (record.prompt, record.rephrase_prompt, record.locality_prompt)
    pairs = [pair for p, other in zip(prompts, (old, old, true), strict=True) for pair in ((p, new), (p, other))]
    p = [a.log_prob for a in score_answers(model, tok, pairs)]
    return {
        "efficacy": float(p[0] > p[1]),
        "generality": float(p[2] > p[3]),
        "locality": float(p[5] > p[4]),
    }


MAX_LENGTH = 128
"""Tokens that EasyEdit's functions keep of a prompt, for every editor; their own settings have 30 to 128."""


def easyedit_quality(model: PreTrainedModel, tok: Any, record: Record, device: str) -> dict[str, Any]:
    """EasyEdit's own measurement of one record; whose edit it is does not matter.

    Returns:
        efficacy, generality, and locality_output: the arg-max tokens at the unrelated answer's positions, which
        `agreement` compares with the unedited model's.
    """
    quality = parts.compute_edit_quality()
    request = {
        "prompt": record.prompt,
        "target_new": record.target_new,
        "ground_truth": record.ground_truth,
        "rephrase_prompt": record.rephrase_prompt,
        "locality": {"n": {"prompt": record.locality_prompt, "ground_truth": record.locality_ground_truth}},
        "portability": {},
    }
    hparams = SimpleNamespace(alg_name="", model_name="", max_length=MAX_LENGTH, device=device)
    with bridged(hparams):
        found = quality(model, "", hparams, tok, request, hparams.device)
    return {
        "efficacy": float(np.mean(found["rewrite_acc"])),
        "generality": float(np.mean(found["rephrase_acc"])),
        "locality_output": [np.asarray(o).reshape(-1).tolist() for o in found["locality"]["n_output"]],
    }


def agreement(now: Sequence[Sequence[int]], before: Sequence[Sequence[int]]) -> float:
    """Share of equal tokens: EasyEdit's locality."""
    return float(np.mean([np.mean(np.equal(a, b)) for a, b in zip(now, before, strict=True)]))


def generation_family(model: PreTrainedModel, tok: Any, record: Record) -> dict[str, float]:
    """What greedy decoding says after the prompt and after the paraphrase.

    Returns:
        efficacy, generality: 1.0 if the answer up to its natural stop (a line's end, or a mark that ends a sentence
        or a clause) is the target, after lower-casing and dropping punctuation and articles.
        efficacy_begins, generality_begins: 1.0 if the answer begins with the target's words.
    """
    tokens = len(tok(record.target_new)["input_ids"]) + GENERATED_TOKENS
    said = greedy_all(model, tok, [record.prompt, record.rephrase_prompt], tokens)
    values = {}
    for name, answer in zip(("efficacy", "generality"), said, strict=True):
        values[name] = float(exact_match(answer, record.target_new))
        values[f"{name}_begins"] = float(begins_with(answer, record.target_new))
    return values


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles."""
    kept = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return [w for w in kept if w not in ("a", "an", "the")]


def exact_match(said: str, target: str) -> bool:
    """The answer is the target and nothing more, up to its natural stop after the target's own length."""
    said = said.lstrip()
    stop = re.search(r"[\n.,;:!?]", said[len(target.strip()) :])
    return words(said[: len(target.strip()) + stop.start()] if stop else said) == words(target)


def begins_with(said: str, target: str) -> bool:
    wanted = words(target)
    return words(said)[: len(wanted)] == wanted


@torch.no_grad()
def perplexity(model: PreTrainedModel, tok: Any, text: str | None = None, window: int = 512) -> float | None:
    """exp of the mean loss per token of a fixed text, in windows; None where it is not finite: the model collapsed."""
    ids = tok(TEXT.read_text(encoding="utf-8") if text is None else text, return_tensors="pt")["input_ids"][0]
    total, count = 0.0, 0
    for part in ids.split(window):
        if len(part) < 2:
            continue
        logits = model(part[None].to(model.device)).logits[0, :-1].float()
        total += F.cross_entropy(logits, part[1:].to(logits.device), reduction="sum").item()
        count += len(part) - 1
    mean = total / max(count, 1)
    return math.exp(mean) if math.isfinite(mean) and mean < 700 else None
