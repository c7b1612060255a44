"""What a model gets back when an editor takes its own parts out of it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def unload_with_flags(adapted: Any, flags: Sequence[tuple[Tensor, bool]]) -> None:
    """Let PEFT's `unload` of this adapter give parameters the `requires_grad` that they had before it."""
    unload = adapted.unload

    def and_put_back(*args: Any, **kwargs: Any) -> Any:
        base = unload(*args, **kwargs)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        return base

    adapted.unload = and_put_back


def modules_put_back(model: nn.Module, before: dict[str, nn.Module], undo: Any) -> Any:
    """`undo`, which takes a router out of the model, and then the very modules that were there `before`, by name:
    EasyEdit puts copies there."""
    if not callable(undo):
        return undo
    replaced = {name: old for name, old in before.items() if model.get_submodule(name) is not old}
    outermost = {n: m for n, m in replaced.items() if n.rpartition(".")[0] not in replaced}

    def put_back() -> None:
        undo()
        for name, module in outermost.items():
            model.set_submodule(name, module)

    return put_back
