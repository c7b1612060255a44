"""Stand-ins for packages that EasyEdit imports at its top and text editing never uses."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..errors import EasyEditError

OPTIONAL = {
    "PIL": "pillow",
    "av": "av",
    "cv2": "opencv-python",
    "einops": "einops",
    "fairscale": "fairscale",
    "iopath": "iopath",
    "openai": "openai",
    "qwen_vl_utils": "qwen-vl-utils",
    "rouge": "rouge",
    "sentence_transformers": "sentence-transformers",
    "timm": "timm",
    "torchvision": "torchvision",
    "transformers.modeling_attn_mask_utils": "transformers==5.5.4",  # gone since; UnKE masks by it
    "zhipuai": "zhipuai",
}
"""Import name of a package or a module -> what to `pip install` for it."""


def _optional(name: str) -> str:
    """The name in `OPTIONAL` that this module is, or lies in; "" for none."""
    return next((known for known in OPTIONAL if name == known or name.startswith(f"{known}.")), "")


@contextmanager
def placeholders() -> Iterator[None]:
    """While active, importing a missing package of `OPTIONAL` gives a placeholder.

    A name taken from one can be subclassed and passed around, and raises an error that names the package when it
    is used. Afterwards the placeholders are gone from `sys.modules`, so that no other library takes them for real.
    """
    import torch
    from transformers import modeling_utils, pytorch_utils
    from transformers.utils import import_utils

    # transformers decides now, and remembers, which optional packages there are.
    for name in dir(import_utils):
        if name.startswith("is_") and name.endswith("_available"):
            try:
                getattr(import_utils, name)()
            except Exception:  # some take arguments or probe drivers; what they say is not used here
                continue
    finder = _Finder({name for name in OPTIONAL if importlib.util.find_spec(name) is None}, torch.nn.Module)
    # Helpers of older transformers that the PyPI release imports from `modeling_utils` for a vision model.
    moved = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")
    added = [n for n in moved if not hasattr(modeling_utils, n)]
    for n in added:
        setattr(modeling_utils, n, getattr(pytorch_utils, n, _missing("an older transformers", n, object)))
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n, m in sys.modules.items() if isinstance(m, _Placeholder)]:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)
        for n in added:
            delattr(modeling_utils, n)


class _Placeholder(ModuleType):
    base: type = object

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _missing(f"the package {OPTIONAL[_optional(self.__name__)]!r}", name, self.base)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, missing: set[str], base: type) -> None:
        self.missing, self.base = missing, base

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if _optional(fullname) in self.missing:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        module = _Placeholder(spec.name)
        module.__path__ = []
        module.base = self.base
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def _missing(what: str, name: str, base: type) -> type:
    """A class that can be inherited from; making or reading it says what is missing."""

    def fail(*_: Any, **__: Any) -> Any:
        raise EasyEditError(f"{name} needs {what}, which is not installed; it is not part of text editing.")

    def read(cls: type, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return fail()

    meta = type("Missing", (type(base),), {"__getattr__": read})
    return meta(name, (base,), {"__init__": fail})
