"""PaCKE for EasyEdit: trace the feed-forward vectors that carry a fact, and rectify only these."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import PaCKEError

if TYPE_CHECKING:
    from .config import PaCKEHyperParams, PaCKEPlusHyperParams
    from .easyedit import Found
    from .editor import apply_packe_plus_to_model, apply_packe_to_model, compute_adapter, compute_patch, record_patches
    from .model.load import LoadedModel
    from .patch import EditStack, OriginalWeights, WeightPatch
    from .requests import EditRequest
    from .trace.overlap import Overlap, overlap
    from .trace.trace import Trace, trace_requests, trace_together

__version__ = "0.2.0"
__all__ = [
    "EditRequest",
    "EditStack",
    "LoadedModel",
    "OriginalWeights",
    "Overlap",
    "PaCKEError",
    "PaCKEHyperParams",
    "PaCKEPlusHyperParams",
    "Trace",
    "WeightPatch",
    "apply_packe_plus_to_model",
    "apply_packe_to_model",
    "compute_adapter",
    "compute_patch",
    "overlap",
    "record_patches",
    "register",
    "trace_requests",
    "trace_together",
]

_WHERE = {
    "EditRequest": "requests",
    "EditStack": "patch",
    "LoadedModel": "model.load",
    "OriginalWeights": "patch",
    "Overlap": "trace.overlap",
    "PaCKEHyperParams": "config",
    "PaCKEPlusHyperParams": "config",
    "Trace": "trace.trace",
    "WeightPatch": "patch",
    "apply_packe_plus_to_model": "editor",
    "apply_packe_to_model": "editor",
    "compute_adapter": "editor",
    "compute_patch": "editor",
    "overlap": "trace.overlap",
    "record_patches": "editor",
    "trace_requests": "trace.trace",
    "trace_together": "trace.trace",
}


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: `packe --help` and reading an error need no torch."""
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def register() -> Found:
    """Make PaCKE and PaCKE+ editors of the EasyEdit on this machine; see `easyedit_packe.registry.register`."""
    from .registry import register

    return register()
