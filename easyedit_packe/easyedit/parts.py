"""The parts of EasyEdit that this package calls, wherever a release keeps them."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .locate import import_easyeditor


def alg_dict() -> dict[str, Callable]:
    """Editor's name -> its function. Editors look methods up in this very dictionary: add to it in place."""
    return _module(".util.alg_dict").ALG_DICT


def base_editor() -> Any:
    """The class `BaseEditor`."""
    return _module(".editors.editor").BaseEditor


def batch_editor() -> Any:
    """The enumeration of editors that take several requests in one call."""
    return _module(".editors.batch_editor").BatchEditor


def hparams_classes() -> dict[str, type]:
    """Hyper-parameter classes by editor, in lower case with "-" for "_": "ft", "r-rome"."""
    found, suffix = vars(_module("")), "HyperParams"
    return {
        name.removesuffix(suffix).replace("_", "-").lower(): c
        for name, c in found.items()
        if name.endswith(suffix) and inspect.isclass(c)
    }


def compute_edit_quality() -> Callable[..., dict[str, Any]]:
    """EasyEdit's measurement of one request."""
    return _module(".evaluate").compute_edit_quality


def read_dataset(name: str, path: Path) -> Any:
    """A data file through EasyEdit's own class of that name, which prints how many records it has read."""
    with contextlib.redirect_stdout(io.StringIO()):
        return getattr(_module(""), name)(str(path))


def _module(path: str) -> Any:
    import_easyeditor()
    return importlib.import_module(f"easyeditor{path}")
