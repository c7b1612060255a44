"""Several runs on one machine, each on a GPU of its own."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..store import StoreError, only_one

WAIT = 1.0
"""Seconds until it is asked again which GPU is free."""


@contextlib.contextmanager
def free_gpu(gpus: Sequence[str] | None = None) -> Iterator[str]:
    """Hold a GPU that no other run holds; waits until there is one. The hold ends with the process, however that ends.

    Args:
        gpus: a name for each, the same in all processes; None takes those that this process sees.

    Yields:
        Its index, as `packe bench device=` takes it; "cpu" where there is no GPU, which any number may hold.
    """
    names = _gpus() if gpus is None else gpus
    if not names:
        yield "cpu"
        return
    with contextlib.ExitStack() as stack:
        yield str(_held(names, stack))


def _held(names: Sequence[str], stack: contextlib.ExitStack) -> int:
    while True:
        for index, name in enumerate(names):
            # In the machine's own temporary folder: a shared one would have other machines wait for this GPU.
            with contextlib.suppress(StoreError):
                stack.enter_context(only_one(Path(tempfile.gettempdir()) / f"packe-gpu-{name}"))
                return index
        time.sleep(WAIT)


def _gpus() -> list[str]:
    import torch

    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
