"""Compute a fact's target vector once, and let every editor that would compute the same one use it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ..easyedit.host import host, swapped

Store = Callable[[str, Callable[[], Any]], Any]

_OPTIMISED_BY = (
    "v_lr",
    "v_num_grad_steps",
    "v_loss_layer",
    "v_weight_decay",
    "clamp_norm_factor",
    "kl_factor",
    "fact_token",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "nll_loss_factor",
)
"""Hyper-parameters that a target vector depends on."""

_SAME = {
    "memit": (
        "models.memit.memit_main",
        "models.emmet.emmet_main",
        "models.alphaedit.AlphaEdit_main",
        "models.SPHERE.SPHERE_main",
    ),
    "rome": ("models.rome.rome_main",),
    "pmet": ("models.pmet.pmet_main",),
}
_FUNCTION = {"memit": "compute_z", "rome": "compute_v", "pmet": "compute_zs"}
_UNUSED = {"memit": {"mlp_module_tmp", "attn_module_tmp", "nll_loss_factor"}, "rome": set(), "pmet": set()}


@contextmanager
def shared_targets(store: Store) -> Iterator[None]:
    """Inside, target vectors come from `store`, and go there when they are new.

    MEMIT, EMMET, AlphaEdit, SPHERE, PRUNE and RECT share theirs, where layer, prefixes and settings of the search
    agree. ROME's and PMET's are kept too, each under its own key.

    Only for a model that is not edited between calls: the key knows the model's name, not its weights.

    Args:
        store: from a key, and what computes its vectors, to these vectors: a tensor or a pair of them.
    """
    with ExitStack() as stack:
        for kind, paths in _SAME.items():
            owners = [m for m in map(host, paths) if m is not None]
            if kind == "pmet":
                from . import pmet

                owners.append(pmet)
            name = _FUNCTION[kind]
            searches = [getattr(owner, name) for owner in owners]
            for owner, compute in zip(owners, searches, strict=True):  # one search, as the first has it
                stack.enter_context(swapped(owner, **{name: _stored(compute, kind, searches[0], store)}))
        yield


def _code(compute: Callable) -> str:
    """What EasyEdit's releases, which share the cache, differ in."""
    return hashlib.sha256(inspect.getsource(inspect.getmodule(compute) or compute).encode()).hexdigest()


def _stored(compute: Callable, kind: str, first: Callable, store: Store) -> Callable:
    signature = inspect.signature(compute)

    @functools.wraps(compute)
    def look_up(*args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(*args, **kwargs).arguments)
        model, hparams = given.pop("model"), given.pop("hparams")
        given.pop("tok")
        request = given.pop("request")
        settings = {n: getattr(hparams, n, None) for n in _OPTIMISED_BY if n not in _UNUSED[kind]}
        known = {
            "kind": kind,
            "code": _code(first),
            "model": getattr(model.config, "_name_or_path", ""),
            "request": [request[k] for k in ("prompt", "subject", "target_new")],
            **settings,
            # what is left: the layer, the prefixes, and ROME's left vector
            **{k: _plain(v) for k, v in given.items()},
        }
        key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        return _copied(store(key, lambda: _copied(compute(*args, **kwargs))))

    return look_up


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return hashlib.sha256(value.detach().float().cpu().numpy().tobytes()).hexdigest()
    return value


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else tuple(map(_copied, value))
