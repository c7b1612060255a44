"""What the PyPI release needs on a CPU, and what both releases need to be left as they were found."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..model.device import check_device
from .host import host, swapped
from .statistics import missing_stats


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


def needs_cuda() -> bool:
    """Whether the EasyEdit in use is the PyPI release, which knows no other device."""
    return importlib.util.find_spec("easyeditor.util.device") is None


@contextmanager
def bridged(hparams: Any, only_cuda: bool | None = None) -> Iterator[None]:
    """Run a method of EasyEdit's editor with `hparams.device` in the form it can read.

    Args:
        hparams: any editor's hyper-parameters; `device` and `batch_size`, which the PyPI release overwrites,
            are put back afterwards.
        only_cuda: the release writes `cuda:{device}` everywhere; None finds out.

    Decoder layers give the PyPI release the tuple that it reads, whichever transformers is installed; HEAD's sampling
    sees the whole text; and missing statistics are an error that names their remedy instead of a download.

    Raises:
        HyperParamsError: the device is not there.
    """
    only_cuda = needs_cuda() if only_cuda is None else only_cuda
    kept = {name: getattr(hparams, name) for name in ("device", "batch_size") if hasattr(hparams, name)}
    with ExitStack() as stack:
        stack.enter_context(_no_download(hparams))
        stack.enter_context(_layers_return_tuples() if only_cuda else _sampling_sees_the_whole_text())
        stack.enter_context(_device(hparams, only_cuda, kept))
        yield


@contextmanager
def _device(hparams: Any, only_cuda: bool, kept: dict[str, Any]) -> Iterator[None]:
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


@contextmanager
def _no_download(hparams: Any) -> Iterator[None]:
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise missing_stats(hparams)

    with ExitStack() as stack:
        for path in ("models.rome.layer_stats", "models.r_rome.layer_stats"):
            module = host(path)
            if module is not None:
                stack.enter_context(swapped(module, load_dataset=load_dataset))
        yield


@contextmanager
def _sampling_sees_the_whole_text() -> Iterator[None]:
    """For EasyEdit's measure of fluency, whatever the model is called.

    HEAD hands each step of its sampling a mask that is one token wide, and transformers 5 takes everything behind it
    for padding: the model sees the first token alone. For the names of some models HEAD hands over no mask, which is
    right for a single prompt. Editors that sample several prompts belong to `fresh_state`.
    """
    module = host("evaluate.evaluate_utils")
    sample = module.generate_fast

    @functools.wraps(sample)
    def generate_fast(model: Any, *args: Any, **kwargs: Any) -> list[str]:
        with swapped(model, name_or_path="llama"):
            return sample(model, *args, **kwargs)

    with swapped(module, generate_fast=generate_fast):
        yield


@contextmanager
def _layers_return_tuples() -> Iterator[None]:
    """The release adds to `output[0]` of a decoder layer, which in transformers 5 is the first sequence of a batch."""
    nethook = host("util.nethook")

    theirs: Any = nethook.Trace

    class Trace(theirs):
        def __init__(self, module: Any, layer: str | None = None, *args: Any, **kwargs: Any) -> None:
            self.around, self.wrapped = [], False
            if layer is None or not re.search(r"\.\d+$", layer):
                super().__init__(module, layer, *args, **kwargs)
                return
            target = nethook.get_module(module, layer)
            # Hooks run in the order they are made: the release's own sees the tuple, what follows sees the tensor.
            self.around.append(target.register_forward_hook(self.wrap))
            super().__init__(module, layer, *args, **kwargs)
            self.around.append(target.register_forward_hook(lambda _, __, y: y[0] if self.wrapped else None))

        def wrap(self, _: Any, __: Any, y: Any) -> tuple | None:
            self.wrapped = torch.is_tensor(y)
            return (y,) if self.wrapped else None

        def close(self) -> None:
            super().close()
            for hook in self.around:
                hook.remove()

    with swapped(nethook, Trace=Trace):
        yield
