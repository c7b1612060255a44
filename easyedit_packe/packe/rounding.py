"""From the changes that were trained to values of the model's dtype, and what rounding leaves of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..errors import ModelError
from ..model.bits import bits, digest_of
from ..patch.slice import Slice
from ..patch.weight_patch import WeightPatch
from ..requests import Encoded


def seed_for(requests: Sequence[Encoded], seed: int) -> int:
    """Another seed for other requests, so that edits in a row do not all round the same weights up."""
    return seed ^ int(digest_of((str(i), e.ids) for i, e in enumerate(requests))[:12], 16)


def round_to(exact: Tensor, dtype: torch.dtype, generator: torch.Generator | None = None) -> Tensor:
    """Values of a dtype: the nearest ones, or, with a generator, one of the two around each value, drawn by how near
    it is, so that the mean over draws is the exact value.

    Half precision only is drawn for; other dtypes hold what is computed for them. What is too large for the dtype is
    infinite either way.
    """
    near = exact.to(dtype)
    if generator is None or near.element_size() != 2:
        return near
    rest = exact - near.to(exact.dtype)
    # The next value on the other side: one more or one less in bits, where the sign is a bit of its own.
    away = (rest > 0) == (near > 0)
    other = (bits(near) + torch.where(away, 1, -1).to(torch.int16)).view(dtype)
    smallest = torch.ones_like(near, dtype=torch.int16).view(dtype)
    other = torch.where(near == 0, torch.where(rest > 0, smallest, -smallest), other)
    share = rest.abs() / (other.to(exact.dtype) - near.to(exact.dtype)).abs()
    drawn = torch.rand(exact.shape, generator=generator).to(share)  # on the CPU: the same on every device
    return torch.where((drawn < share) & near.isfinite(), other, near)


def rounding(changes: Iterable[tuple[Slice, Tensor]]) -> dict[str, float]:
    """How far the changes of slices are from those that were meant, over all dtypes narrower than float32.

    Args:
        changes: each slice, and what was to be added to its old values, in at least float32, shaped as they are.

    Returns:
        `unmoved`: share of the entries to be changed that keep their old value; `error`: the norm of what differs,
        relative to the norm of what was meant; `kept`: how far the change goes in the direction that was meant, where
        1 is all the way. What an edit does depends on the last one: of the error, most points elsewhere. Empty where
        nothing is rounded, or nothing was to change.
    """
    meant = unmoved = 0
    whole = off = along = 0.0
    for s, wanted in changes:
        if s.new.element_size() >= 4:
            continue
        got = s.change
        wanted = wanted.to(got)
        meant += int((wanted != 0).sum())
        unmoved += int(((wanted != 0) & (got == 0)).sum())
        whole += wanted.double().square().sum().item()
        off += (got - wanted).double().square().sum().item()
        along += (got.double() * wanted.double()).sum().item()
    return {"unmoved": unmoved / meant, "error": (off / whole) ** 0.5, "kept": along / whole} if meant else {}


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
