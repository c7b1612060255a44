"""The EasyEdit that these editors stand on, and what it expects around an edit."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..errors import EasyEditError
from ..model.hooks import frozen
from .statistics import stats_dir


def host(path: str) -> Any:
    """The module `easyeditor.<path>`, or None where this release has none.

    Raises:
        EasyEditError: EasyEdit has not been imported; only `register` knows how.
    """
    if "easyeditor" not in sys.modules:
        raise EasyEditError("expected EasyEdit to be imported; call easyedit_packe.register() first.")
    try:
        return importlib.import_module(f"easyeditor.{path}")
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("easyeditor"):
            return None
        raise


@contextmanager
def swapped(owner: Any, **values: Any) -> Iterator[None]:
    """While active, `owner` has these attributes; afterwards it has its own, or none where it had none."""
    missing = object()
    kept = {name: getattr(owner, name, missing) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in kept.items():
            if value is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


@contextmanager
def conditions(
    model: nn.Module, tok: Any, hparams: Any, side: str = "right", settings: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """What an editor that locates and edits needs while it runs; all is put back.

    Right padding, because EasyEdit counts the subject's tokens from the left; a model that asks for no gradients;
    the cache's folder where `stats_dir` is empty; and the editor's own `settings` in `hparams`.
    """
    values = dict(settings or {})
    if getattr(hparams, "stats_dir", "") is None:
        values["stats_dir"] = str(stats_dir())
    with swapped(tok, padding_side=side), swapped(hparams, **values), frozen(model):
        yield
