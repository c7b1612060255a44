"""What the PyPI release needs on a CPU, and what both releases need to be left as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..editor import check_device


class CPUDevice(str):
    """The device "cpu" for code that writes `f"cuda:{device}"`: formatted, it is the index 0."""

    def __new__(cls, *_: Any) -> CPUDevice:
        return super().__new__(cls, "cpu")

    def __format__(self, spec: str) -> str:
        return "0"


class CUDAMeansCPU(TorchFunctionMode):
    """While active, a tensor asked to be on a CUDA device is put on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cuda:
            return args[0].cpu()
        args = tuple(_to_cpu(a) for a in args)
        kwargs = {k: _to_cpu(v) for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("cuda"):
        return "cpu"
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return value


@contextmanager
def bridged(hparams: Any, only_cuda: bool) -> Iterator[None]:
    """Run a method of EasyEdit's editor with `hparams.device` in the form it can read.

    Args:
        hparams: any editor's hyper-parameters; `device` and `batch_size`, which the PyPI release overwrites,
            are put back afterwards.
        only_cuda: the release writes `cuda:{device}` everywhere.

    Raises:
        HyperParamsError: the device is not there.
    """
    kept = {name: getattr(hparams, name) for name in ("device", "batch_size") if hasattr(hparams, name)}
    try:
        if not only_cuda or "device" not in kept:
            if "device" in kept:
                check_device(kept["device"])
            yield
            return
        device = check_device(kept["device"])
        if device.type == "cuda":
            hparams.device = device.index or 0
            yield
        else:
            hparams.device = CPUDevice()
            with CUDAMeansCPU():
                yield
    finally:
        for name, value in kept.items():
            setattr(hparams, name, value)
