"""Where an edit may write: at which tokens of a text, and which texts are run together to find out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..requests import Batch, Encoded

PADDING = 2.0
"""By how much the longest text run together may exceed the shortest."""


def places(rows: Sequence[Encoded], batch: Batch, write_at: str) -> Tensor:
    """True at the tokens [B, T] where the edit may write: the subject's, or all where it is not known.

    Never the first one, unless it is alone: models park attention on it, and what they hold there is the same in
    all texts. Where a subject of one or two tokens begins the text, what follows it stands in.
    """
    found = torch.zeros(batch.ids.shape, dtype=torch.bool)
    for i, e in enumerate(rows):
        length = len(e.ids) - 1
        first, after = (None if write_at == "all" else e.subject) or (0, length)
        if write_at == "from_subject":
            first, after = after - 1 if e.subject else 1, length
        elif first == 0:  # a single token would have to change so much that other texts notice
            after = min(max(after, 3), length)
        found[i, min(max(first, 1), length - 1) : after] = True
        if write_at == "subject_and_target":
            found[i, e.answer_start : length] = True
    return found


def alike(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices in groups of similar length, of at most `most` where that is not 0: less padding to compute with."""
    pieces: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not pieces or len(pieces[-1]) == most or lengths[i] > PADDING * lengths[pieces[-1][0]]:
            pieces.append([])
        pieces[-1].append(i)
    return pieces
