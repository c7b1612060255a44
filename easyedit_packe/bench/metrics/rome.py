"""ROME's and AlphaEdit's metrics: comparisons of probabilities, or accuracy against the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data import Probe, Record
from .scoring import Scored


def pairs(record: Record, compares: bool) -> list[tuple[str, str]]:
    """What is scored: new and old answer after the prompt and the paraphrases, where there is an old one, true and new
    answer after the neighbours; without a comparison the new answer, and the true one, alone."""
    own, neighbours = [record.prompt, *record.rephrases], _answered(record)
    if not compares:
        return [*((p, record.target_new) for p in own), *((n.prompt, n.answer) for n in neighbours)]
    old = record.ground_truth
    asked = [pair for p in own if old for pair in ((p, record.target_new), (p, old))]
    return asked + [pair for n in neighbours for pair in ((n.prompt, n.answer), (n.prompt, record.target_new))]


def _answered(record: Record) -> list[Probe]:
    """Without a true answer there is nothing to compare with."""
    return [probe for probe in record.neighbours if probe.answers]


def family(record: Record, scored: Sequence[Scored], compares: bool) -> dict[str, float]:
    """Efficacy, generality over all paraphrases, and locality over all neighbours.

    CounterFact: P(new) > P(old) after the prompt and after a paraphrase; P(true) > P(new) after a neighbour's prompt;
    P is the mean over tokens of the log-probability. Others: token accuracy of the new answer, and of the true one.
    """
    if compares:
        values = [float(a.log_prob > b.log_prob) for a, b in zip(scored[::2], scored[1::2], strict=True)]
    else:
        values = [s.accuracy for s in scored]
    last = 1 + len(record.rephrases) if record.ground_truth or not compares else 0
    own, neighbours = values[:last], values[last:]
    parts = {"efficacy": own[:1], "generality": own[1:], "locality": neighbours}
    return {name: float(np.mean(part)) for name, part in parts.items() if part}
