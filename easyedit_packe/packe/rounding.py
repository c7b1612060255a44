"""What rounding to the model's dtype leaves of a change."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from torch import Tensor

from ..errors import ModelError
from ..patch.slice import Slice
from ..patch.weight_patch import WeightPatch

LOG = logging.getLogger(__name__)

LOST = 0.5
"""Relative error of a change from which on a warning says so."""


def rounding(changes: Iterable[tuple[Slice, Tensor]]) -> dict[str, float]:
    """How far the changes of slices are from those that were meant, over all dtypes narrower than float32.

    Args:
        changes: each slice, and what was to be added to its old values, in at least float32, shaped as they are.

    Returns:
        `unmoved`: share of the entries to be changed that keep their old value; `error`: the norm of what differs,
        relative to the norm of what was meant. Empty where nothing is rounded, or nothing was to change.
    """
    meant = unmoved = 0
    whole = off = 0.0
    for s, wanted in changes:
        if s.new.element_size() >= 4:
            continue
        got = s.change
        wanted = wanted.to(got)
        meant += int((wanted != 0).sum())
        unmoved += int(((wanted != 0) & (got == 0)).sum())
        whole += wanted.double().square().sum().item()
        off += (got - wanted).double().square().sum().item()
    return {"unmoved": unmoved / meant, "error": (off / whole) ** 0.5} if meant else {}


def rounded_patch(parts: dict[str, tuple[Slice, Tensor]]) -> WeightPatch:
    """Slices by parameter name, each with what was to be added, as a patch that says what rounding left of it.

    Raises:
        ModelError: a new value is not finite: the change is too large for the model's dtype.
    """
    for name, (s, _) in parts.items():
        if not s.new.isfinite().all():
            raise ModelError(
                f"expected finite new values in {name}, got some that are too large for {s.new.dtype}; load the model "
                "in float32 or bfloat16, or ask for a smaller change (PaCKE: a lower lr)."
            )
    lost = rounding(parts.values())
    return WeightPatch({name: s for name, (s, _) in parts.items()}, {"rounding": lost} if lost else {})


def warn_of_rounding(patch: WeightPatch, remedy: str) -> None:
    """Log a warning where rounding takes more than half of what the edit was to do."""
    lost = patch.info.get("rounding")
    if lost and lost["error"] > LOST:
        LOG.warning(
            "rounding to the model's dtype leaves %.0f%% of the edit's values as they were, and what it changes is off "
            "by %.0f%% of the change's norm, so that the edit may do little of what it was trained for; %s.",
            100 * lost["unmoved"], 100 * lost["error"], remedy,
        )  # fmt: skip
