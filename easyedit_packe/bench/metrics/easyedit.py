"""EasyEdit's metrics: token accuracy under teacher forcing, and agreement with the unedited model.

What `compute_edit_quality` of EasyEdit measures of one request, to the digit, for many records at a time; a test
compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..data import Record
from .scoring import Scored

Said = Mapping[str, Sequence[Sequence[int]]]
"""By locality, what the model says at the answer positions of each probe."""


def asked(record: Record) -> dict[str, list[tuple[str, str]]]:
    """By metric, the prompts and answers that are scored: the request, its first paraphrase, and every probe."""
    found = {"efficacy": [(record.prompt, record.target_new)]}
    found["generality"] = [(p, record.target_new) for p in record.rephrases[:1]]
    for what, kind in (("locality", record.localities), ("portability", record.portability)):
        found |= {f"{what}_{name}": [(p.prompt, p.answer) for p in probes] for name, probes in kind.items()}
    return found


def pairs(record: Record) -> list[tuple[str, str]]:
    """All of `asked`, in order."""
    return [pair for pairs in asked(record).values() for pair in pairs]


def family(record: Record, scored: Sequence[Scored]) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """(efficacy, generality and portability by name; what the model says at every locality).

    Args:
        scored: of `pairs`.
    """
    left = iter(scored)
    values = {"efficacy": next(left).accuracy}
    if record.rephrases:
        values["generality"] = next(left).accuracy
    said = {name: [list(next(left).said) for _ in probes] for name, probes in record.localities.items()}
    for name, probes in record.portability.items():
        values[f"portability_{name}"] = float(np.mean([next(left).accuracy for _ in probes]))
    return values, said


def locality(now: Said, before: Said) -> dict[str, float]:
    """Share of equal tokens, by name; `locality` is the mean of all names."""
    found = {
        f"locality_{name}": float(np.mean([np.mean(np.equal(a, b)) for a, b in zip(said, before[name], strict=True)]))
        for name, said in now.items()
    }
    return found | ({"locality": float(np.mean(list(found.values())))} if found else {})
