"""What EasyEdit's editors, and this package's, remember in the process; made to begin and end with a run."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ..model.bits import digest_of
from . import routed
from .host import host, swapped

Globals = dict[str, Callable[[], Any]]

PROJECTION = "__packe_projection__"
"""Global of AlphaEdit's and SPHERE's modules: the file that P is of."""
LEFT = "__packe_left__"
"""Another: `weights_written` after the last edit; None is unknown."""

_TEMPLATES: Globals = {"CONTEXT_TEMPLATES_CACHE": lambda: None}
_COVARIANCE: Globals = {"COV_CACHE": dict}
_NULL_SPACE: Globals = {
    "P": lambda: None, "P_loaded": bool, "cache_c": lambda: None, "cache_c_new": bool,
    PROJECTION: lambda: None, LEFT: lambda: None,
}  # fmt: skip
_WISE = "models.wise.utils"
"""Samples its prefixes in a way of its own."""
_REMEMBERED: dict[str, Globals] = {
    "models.rome.rome_main": _TEMPLATES,
    "models.rome.compute_u": {"inv_mom2_cache": dict},
    "models.r_rome.r_rome_main": _TEMPLATES,
    "models.r_rome.compute_u": {"inv_mom2_cache": dict},
    "models.memit.memit_main": _TEMPLATES | _COVARIANCE,
    "models.emmet.emmet_main": _TEMPLATES | _COVARIANCE,
    "models.pmet.pmet_main": _TEMPLATES | _COVARIANCE | {"KZ_CACHE": dict},
    "models.alphaedit.AlphaEdit_main": _TEMPLATES | _COVARIANCE | _NULL_SPACE,
    "models.SPHERE.SPHERE_main": _TEMPLATES | _COVARIANCE | _NULL_SPACE,
    _WISE: _TEMPLATES,
    "models.wise.WISE": {"edit_history": list, "merge_group_edit_history": list},
}
"""Module of EasyEdit -> its globals that outlive an edit, and their value in a fresh process."""

_SUMS_KEYS = {"AlphaEdit": "models.alphaedit.AlphaEdit_main", "SPHERE": "models.SPHERE.SPHERE_main"}
"""Editors of EasyEdit that add up the keys of past edits, in the global `cache_c` of their module."""

_accumulated: dict[str, dict[str, Tensor]] = {}
_in_run = False


def accumulated(alg_name: str) -> dict[str, Tensor]:
    """What an editor of this package carries from one call to the next; empty at the start of a run."""
    return _accumulated.setdefault(alg_name, {})


def lasting(alg_name: str) -> dict[str, Tensor] | None:
    """`accumulated`, but None outside a run, where nothing says when an editor shall forget."""
    return accumulated(alg_name) if _in_run else None


def forget(alg_name: str) -> None:
    """Make an editor's next edit its first: AlphaEdit's keys of past edits, PRUNE's weights before the first edit.

    Between independent edits call this; between consecutive ones do not. Other editors carry nothing.
    """
    accumulated(alg_name).clear()
    module = _summing(alg_name)
    if module is not None:
        module.cache_c_new = False
        setattr(module, LEFT, None)
    if alg_name == "WISE":
        routed.forget()


def weights_written(model: Any, hparams: Any) -> str:
    """What tells whether the matrices that an editor writes are as it left them."""
    names = [f"{hparams.rewrite_module_tmp.format(layer)}.weight" for layer in hparams.layers]
    return digest_of((name, model.get_parameter(name)) for name in names)


def _summing(alg_name: str) -> Any:
    return host(_SUMS_KEYS[alg_name]) if alg_name in _SUMS_KEYS else None


def carried(alg_name: str) -> dict[str, Tensor]:
    """What the editor's next consecutive edit will need of those before it, to be saved with the model's weights."""
    module = _summing(alg_name)
    if module is not None and module.cache_c_new:
        return {"cache_c": module.cache_c.clone()}
    return dict(accumulated(alg_name))


def carry(alg_name: str, tensors: Mapping[str, Tensor]) -> None:
    """Go on from what `carried` gave."""
    forget(alg_name)
    module = _summing(alg_name)
    if module is not None and tensors:
        module.cache_c, module.cache_c_new = tensors["cache_c"].clone(), True
    elif tensors:
        accumulated(alg_name).update(tensors)


@contextmanager
def fresh_state(seed: int = 0) -> Iterator[None]:
    """A run as in a process of its own; what earlier runs left comes back afterwards.

    Inside, every editor samples its prefixes ("context templates") from the same seed, so that MEMIT and its
    successors share theirs and a run can be repeated. EasyEdit's own sampling depends on whatever ran before it.
    The caller's random state is not touched by it.
    """
    with ExitStack() as stack:
        for path, names in _REMEMBERED.items():
            module = host(path)
            if module is None:
                continue
            stack.enter_context(swapped(module, **{name: make() for name, make in names.items()}))
            if hasattr(module, "generate_fast"):
                stack.enter_context(swapped(module, generate_fast=_seeded(module.generate_fast, seed)))
        kept = dict(_accumulated)
        _accumulated.clear()
        stack.enter_context(swapped(sys.modules[__name__], _in_run=True))
        stack.callback(_accumulated.update, kept)
        stack.callback(_accumulated.clear)
        yield


def sample_prefixes(model: Any, tok: Any, hparams: Any) -> None:
    """Sample the context templates that an editor will use, now, from the model as it is.

    An editor samples them at its first edit. A run of consecutive edits that is resumed would take them from an edited
    model; so a run samples them before it edits anything. Call it inside `fresh_state` and `bridged`.
    """
    if getattr(hparams, "alg_name", "") == "WISE":
        return routed.sample_wise_prefixes(model, tok, hparams)
    lengths = getattr(hparams, "context_template_length_params", None)
    if not lengths and not hasattr(hparams, "layer_selection"):
        return
    for path in _REMEMBERED.keys() - {_WISE}:
        module = host(path) if ("rome" in path) == bool(lengths) else None
        if module is not None and hasattr(module, "get_context_templates"):
            module.get_context_templates(model, tok, *([lengths] if lengths else []))


def _seeded(generate: Callable, seed: int) -> Callable:
    @functools.wraps(generate)
    def sample(model: Any, *args: Any, **kwargs: Any) -> list[str]:
        # HEAD gives every cached step an attention mask one column wide, which hides the prompt, unless the model's
        # path names a llama; the prompts here are of one length and need no mask.
        with (
            torch.random.fork_rng(list(range(torch.cuda.device_count()))),
            swapped(model, name_or_path="llama"),
        ):
            torch.manual_seed(seed)
            return generate(model, *args, **kwargs)

    return sample
