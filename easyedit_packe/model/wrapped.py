"""A model behind what wraps it."""

from __future__ import annotations

from typing import Any


def uncompiled(model: Any) -> Any:
    """The model that `torch.compile` was given, whose modules and parameters the compiled one shares under other names;
    any other as it is."""
    return getattr(model, "_orig_mod", model)
