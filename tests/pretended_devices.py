"""Several devices on a machine that has one: CPU tensors that say they lie elsewhere, and refuse to mix.

Inside `pretended_devices()` the names "cuda:0", "cuda:1", ... are devices. A tensor's device belongs to its storage, so
that views share it. `.to(device)` and `device=` make copies there, gradients travel back, and an operation on tensors
of different devices raises what torch raises. Two modes do that: one sees what Python calls (`.to`, `.device`, factory
functions), the other every operation that is computed, also those of a backward pass.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")

_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_ANY_DEVICES = {"aten::copy_"}


class Placement:
    """Where each storage pretends to lie.

    Attributes:
        refused: messages of all mixtures so far. Code under test may catch a RuntimeError; here it stays.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._devices: dict[int, torch.device | None] = {}  # by storage; those that are not in it lie on the CPU
        self._sending: list[torch.device] = []

    def of(self, t: Tensor) -> torch.device:
        return self._of(t) or CPU

    def _of(self, t: Tensor) -> torch.device | None:
        """None for a number that torch's own C++ code made by itself, without a device that Python has named."""
        return self._devices.get(t.untyped_storage()._cdata, CPU)

    def put(self, t: Tensor, device: torch.device | None) -> None:
        storage = t.untyped_storage()
        key = storage._cdata
        if key not in self._devices:
            weakref.finalize(storage, self._devices.pop, key, None)
        self._devices[key] = device

    @contextmanager
    def sending(self, device: torch.device) -> Iterator[None]:
        """What is copied inside arrives at `device`."""
        self._sending.append(device)
        try:
            yield
        finally:
            self._sending.pop()

    def refuse(self, message: str) -> None:
        self.refused.append(message)
        raise RuntimeError(message)

    def require_same(self, devices: set[torch.device]) -> None:
        if len(devices) > 1:
            first, second, *_ = sorted(map(str, devices), reverse=True)
            self.refuse(
                f"Expected all tensors to be on the same device, but found at least two devices, {first} and {second}!"
            )

    def run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Compute one operation, if its tensors may meet."""
        device = self._common(func, args, kwargs)
        seen = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **kwargs)
        if func._schema.name == "aten::set_":  # takes a storage as it is
            return out
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.untyped_storage()._cdata not in seen:
                self.put(t, self._sending[-1] if self._sending else device)
        return out

    def _common(self, func: Any, args: tuple, kwargs: dict) -> torch.device | None:
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not tensors:
            return None
        if func._schema.name in _ANY_DEVICES:
            return self._of(tensors[0])
        if func._schema.name in _INDEXING:
            own, indices = self.of(args[0]), [i for i in args[1] if i is not None]
            if any(self._of(i) not in (None, CPU, own) for i in indices):
                self.refuse(f"indices should be either on cpu or on the same device as the indexed tensor ({own})")
            tensors = [t for t in tensors if not any(t is i for i in indices)]
        may_be_number = self._written(func, args, kwargs)
        numbers = torch.Tag.pointwise in func.tags or func._schema.name.startswith("aten::_foreach_")
        numbers = numbers or func._schema.name in _INDEXING
        known = [
            (device, numbers and t.ndim == 0 and device == CPU and not any(t is w for w in may_be_number))
            for t in tensors
            if (device := self._of(t)) is not None
        ]
        self.require_same({device for device, is_number in known if not is_number})
        return next((device for device, is_number in known if not is_number), known[0][0] if known else None)

    @staticmethod
    def _written(func: Any, args: tuple, kwargs: dict) -> list[Tensor]:
        """The arguments that an operation writes to: a number on the CPU takes nothing from elsewhere."""
        names = {a.name: i for i, a in enumerate(func._schema.arguments) if a.alias_info and a.alias_info.is_write}
        values = [args[i] if i < len(args) else kwargs.get(name) for name, i in names.items()]
        return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


class _Operations(TorchDispatchMode):
    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self.placement = placement

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.placement.run(func, args, kwargs or {})


class _Moved(torch.autograd.Function):
    """A copy elsewhere, whose gradient comes back."""

    @staticmethod
    def forward(ctx, x, placement, device):
        ctx.placement, ctx.back = placement, placement.of(x)
        with placement.sending(device):
            return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        with ctx.placement.sending(ctx.back):
            return gradient.clone(), None, None


class _Calls(TorchFunctionMode):
    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self.placement = placement
        self.special: dict[Any, Callable[..., Any]] = {
            torch.Tensor.device.__get__: placement.of,
            torch.Tensor.is_cuda.__get__: lambda t: placement.of(t).type == "cuda",
            torch.Tensor.grad.__set__: self.set_grad,
            torch.Tensor.to: self.to,
            torch.Tensor.cpu: lambda t, **_: self.moved(t, CPU),
            torch.Tensor.cuda: lambda t, device="cuda:0", **_: self.moved(t, _device(device)),
            torch.Tensor.numpy: self.numpy,
            torch.Tensor.register_hook: self.register_hook,
            torch.Tensor.__deepcopy__: self.deepcopy,
        }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        special = self.special.get(func)
        if special is not None:
            return special(*args, **kwargs)
        named = kwargs.get("device")
        if named is not None:
            kwargs["device"] = CPU
        out = func(*args, **kwargs)
        made_of = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if isinstance(out, Tensor) and (named is not None or not made_of):
            if any(t.untyped_storage()._cdata == out.untyped_storage()._cdata for t in made_of):
                raise NotImplementedError(f"{func} with device=; say x.to(device).")
            self.placement.put(out, _device(named) if named is not None else CPU)
        return out

    def to(self, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("non_blocking", None)
        given, wanted = [*args, kwargs.pop("device", None), kwargs.pop("other", None)], None
        for a in given:
            if isinstance(a, Tensor):
                wanted, kwargs["dtype"] = self.placement.of(a), a.dtype
            elif isinstance(a, torch.dtype):
                kwargs["dtype"] = a
            elif isinstance(a, str | torch.device) or type(a) is int:
                wanted = _device(a)
        kwargs = {k: v for k, v in kwargs.items() if v is not None}
        out = t.to(**kwargs) if kwargs else t
        return out if wanted is None else self.moved(out, wanted)

    def moved(self, t: Tensor, device: torch.device) -> Tensor:
        return t if self.placement.of(t) == device else _Moved.apply(t, self.placement, device)

    def numpy(self, t: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.placement.of(t) != CPU:
            raise TypeError(
                f"can't convert {self.placement.of(t)} device type tensor to numpy. Use Tensor.cpu() first."
            )
        return t.numpy(*args, **kwargs)

    def set_grad(self, t: Tensor, gradient: Tensor | None) -> None:
        if gradient is not None:
            self.placement.require_same({self.placement.of(t), self.placement.of(gradient)})
        t.grad = gradient

    def register_hook(self, t: Tensor, hook: Callable[[Tensor], Any]) -> Any:
        def inside(gradient: Tensor) -> Any:
            with self:  # a backward pass is one call, inside which this mode is off
                return hook(gradient)

        return t.register_hook(inside)

    def deepcopy(self, t: Tensor, memo: dict) -> Tensor:
        out = t.__deepcopy__(memo)
        self.placement.put(out, self.placement.of(t))
        return out


def _device(named: Any) -> torch.device:
    device = torch.device("cuda", named) if isinstance(named, int) else torch.device(named)
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


@contextmanager
def pretended_devices() -> Iterator[Placement]:
    """While active, "cuda:0", "cuda:1", ... are devices; what was there before lies on the CPU."""
    placement = Placement()
    with _Operations(placement), _Calls(placement):
        yield placement


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """The model with embeddings and first layers on "cuda:0", the other layers on "cuda:1", norm and head on "cuda:2",
    and accelerate's own hooks, which move what a module is given to where it lies."""
    from accelerate import dispatch_model

    base = model.base_model
    places = {name: "cuda:2" for name, child in model.named_children() if child is not base}
    for name, child in base.named_children():
        where = f"{model.base_model_prefix}.{name}"
        if isinstance(child, torch.nn.ModuleList):
            places |= {f"{where}.{i}": "cuda:0" if i < len(child) // 2 else "cuda:1" for i in range(len(child))}
        else:
            places[where] = "cuda:2" if name in ("norm", "ln_f") else "cuda:0"
    return dispatch_model(model, places, main_device="cuda:0")
