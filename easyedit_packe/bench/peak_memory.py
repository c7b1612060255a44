"""Peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """`bytes` above what was in use at the start; None where the system does not tell."""

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure a block: CUDA's allocator on a GPU, the process's resident memory on a Linux CPU.

    with peak_memory(model.device) as peak:
        ...
    peak.bytes
    """
    peak = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - start
        return
    before = _resident("VmRSS") if _reset() else None
    yield peak
    if before is not None:
        peak.bytes = max(_resident("VmHWM") - before, 0)


def _reset() -> bool:
    """Whether the high-water mark is now what is in use."""
    with suppress(OSError, AttributeError):  # another C library than glibc,
        ctypes.CDLL(None).malloc_trim(0)  # which keeps freed pages: what then goes into these would not be seen
    try:
        _RESET.write_text("5")
        return True
    except OSError:
        return False


def _resident(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
