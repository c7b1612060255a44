"""Context managers that watch or change a module's output, and that leave a model as they found it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import Tensor, nn

from .experts import ExpertNodes

OutputHook = Callable[[Tensor, Tensor], Tensor | None]


@contextmanager
def output_hooks(hooks: Iterable[tuple[nn.Module, OutputHook]]) -> Iterator[None]:
    """While active, each module's output y becomes `hook(x, y)` (None keeps y); x is the module's input."""
    with ExitStack() as stack:
        for module, hook in hooks:
            if isinstance(module, ExpertNodes):
                stack.enter_context(module.shown())
            handle = module.register_forward_hook(lambda _, args, y, hook=hook: hook(args[0], y))
            stack.callback(handle.remove)
        yield


class _Reached(Exception):
    pass


@contextmanager
def ends_with(module: nn.Module) -> Iterator[None]:
    """A forward pass inside ends as soon as `module` has run: what comes after it in the model costs nothing."""

    def stop(*_: object) -> None:
        raise _Reached

    with output_hooks([(module, stop)]), suppress(_Reached):
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no parameter asks for a gradient, gradients are recorded; all restored on exit.

    Every module's own train or eval flag and every parameter's `requires_grad` and `grad` are put back (an editor
    inside may ask for gradients after all), also after an exception and also inside a caller's `torch.no_grad()` or
    `torch.inference_mode()`.
    """
    training = [(m, m.training) for m in model.modules()]
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval()
        for p, _ in wanted:
            p.requires_grad_(False)
        with kept_gradients(model), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for m, flag in training:
            m.training = flag
        for p, flag in wanted:
            p.requires_grad_(flag)


@contextmanager
def kept_gradients(model: nn.Module) -> Iterator[None]:
    """Every parameter's `grad` is put back on exit: a caller's own, or none."""
    gradients = [(p, p.grad) for p in model.parameters()]
    try:
        yield
    finally:
        for p, gradient in gradients:
            p.grad = gradient
