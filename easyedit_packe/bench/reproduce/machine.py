"""A GPU as a plan sees it: how fast it multiplies, how fast it reads, how much it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...errors import one_of
from ..editors import BenchError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
"""Of a weight; most checkpoints are stored in 16 bits."""


@dataclass(frozen=True)
class Machine:
    """By its maker's data sheet, dense and without sparsity.

    Attributes:
        full, half, double: 10^12 operations a second in float32 (as torch multiplies by default: no TF32), in 16 bits
            and in float64.
        bandwidth: 10^9 bytes a second.
        memory: 10^9 bytes.
    """

    name: str
    full: float
    half: float
    double: float
    bandwidth: float
    memory: float

    def tera(self, dtype: str) -> float:
        """10^12 operations a second in a precision."""
        return self.full if dtype == "float32" else self.half


GPUS = {
    m.name: m
    for m in (
        Machine("a100-40gb", 19.5, 312, 9.7, 1555, 40),
        Machine("a100-80gb", 19.5, 312, 9.7, 2039, 80),
        Machine("h100", 67, 989, 34, 3350, 80),
        Machine("h200", 67, 989, 34, 4800, 141),
        Machine("l40s", 91.6, 362, 1.4, 864, 48),
        Machine("rtx4090", 82.6, 165, 1.3, 1008, 24),
    )
}
DEFAULT = "a100-80gb"
"""The paper's is the one with 40 GB. The benchmark keeps a second copy of the weights, for which these are too few."""


def machine(
    name: str | None = None, tera: float | None = None, bandwidth: float | None = None, memory: float | None = None
) -> Machine:
    """The GPU of that name, or the one that is here, or the default; with single figures of its own.

    Args:
        tera: in float32 and in 16 bits.

    Raises:
        BenchError: an unknown name, or a figure that is not positive.
    """
    if name is not None and name not in GPUS:
        raise BenchError(
            f"--gpu: {one_of(name, list(GPUS))}; got {name!r}. Of any other give --tflops, --bandwidth, --memory."
        )
    found = GPUS[name or here() or DEFAULT]
    for option, value in (("--tflops", tera), ("--bandwidth", bandwidth), ("--memory", memory)):
        if value is not None and value <= 0:
            raise BenchError(f"{option}: expected a positive number, got {value}.")
    own = {"full": tera, "half": tera, "bandwidth": bandwidth, "memory": memory}
    given = {key: value for key, value in own.items() if value is not None}
    changed: Any = {**given, "name": f"{found.name}, changed"} if given else {}
    return replace(found, **changed)


def here() -> str | None:
    """The known GPU that is on this machine, by its name."""
    import torch

    if not torch.cuda.is_available():
        return None
    said = torch.cuda.get_device_name().lower().replace(" ", "").replace("-", "")
    size = torch.cuda.get_device_properties(0).total_memory
    for m in GPUS.values():
        short, _, _ = m.name.partition("-")
        if short in said and size < 1.1e9 * m.memory:
            return m.name
    return None
