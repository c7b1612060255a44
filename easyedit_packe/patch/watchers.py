"""Whoever keeps a record of the edits in force on a model, and is told when one is taken out from among others.

The record belongs to the model: it hangs on it, and is copied with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from torch import nn

from ..model.wrapped import uncompiled
from .weight_patch import WeightPatch

_ATTRIBUTE = "_packe_watchers"


class Watcher(Protocol):
    """A record of edits."""

    def taking_out(self, model: nn.Module, patch: WeightPatch) -> AbstractContextManager[None]:
        """Entered before, and left after, the nodes of `patch` get the values that the other edits give them."""
        ...


def watchers(model: nn.Module) -> list[Watcher]:
    """The model's own list, to be added to in place."""
    return vars(uncompiled(model)).setdefault(_ATTRIBUTE, [])


@contextmanager
def told(model: nn.Module, patch: WeightPatch) -> Iterator[None]:
    """Around taking `patch` out of the model while other edits stay."""
    with ExitStack() as stack:
        for watcher in watchers(model):
            stack.enter_context(watcher.taking_out(model, patch))
        yield
