"""A progress bar for what is made once of a model, before its first edit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def shown(items: Iterable[T], what: str | None) -> Iterable[T]:
    """The items, with a bar while they are gone through: in a terminal, and where there is something to call them."""
    return tqdm(items, desc=what, leave=False, disable=None if what else True)
