"""How many bytes tensors hold at a time."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveBytes(TorchDispatchMode):
    """Counts the storage of every tensor that an operation returns, until it is freed.

    Args:
        device: count what lies there alone; everywhere without one.
    """

    def __init__(self, device: str | None) -> None:
        super().__init__()
        self.device = device
        self.live: dict[int, int] = {}
        self.held = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1  # tensors without values: every question is answered with yes
        for t in tree_leaves((args, kwargs)):
            if isinstance(t, torch.Tensor):
                self.see(t.untyped_storage(), new=False)  # e.g. a weight: it was there before
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and self.device in (None, t.device.type):
                self.see(t.untyped_storage())
        return out

    def see(self, storage, new: bool = True) -> None:
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = storage.nbytes() if new else 0
        self.held += self.live[key]
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self.freed, key)

    def freed(self, key: int) -> None:
        self.held -= self.live.pop(key, 0)


def peak_bytes(run, device: str | None = None) -> int:
    """Most bytes that tensors made during `run` held at a time."""
    with _LiveBytes(device) as counter:
        run()
    return counter.peak
