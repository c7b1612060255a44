"""EasyEdit's own editors, given what they need of padding, names, settings and request text; none of them changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .host import conditions, host, swapped
from .null_space import projection_file
from .routed import grace, wise
from .ultraedit import ultraedit

_MARK = "__packe__"
_KNOWN_FAMILIES = {
    "KN": ("gpt2", "gpt-j", "llama"),
    "AlphaEdit": ("llama", "qwen", "gpt2-xl"),
    "SPHERE": ("llama", "qwen", "gpt2-xl"),
}
"""Editors that choose by a part of `model_name`, and the parts by which both releases find all that they need."""
_NULL_SPACE = {"AlphaEdit": "models.alphaedit.AlphaEdit_main", "SPHERE": "models.SPHERE.SPHERE_main"}
"""Editors that load a projection, once, into a global of their module."""


def adapt(alg_dict: dict[str, Callable]) -> None:
    """Wrap, in place, those editors of EasyEdit that would fail or go wrong; a second call changes nothing."""
    for name in ("ROME", "R-ROME", "MEMIT", "EMMET", "PMET", "AlphaEdit", "SPHERE", "KN", "FT", *_OWN_WAY):
        apply = alg_dict.get(name)
        if apply is not None and not getattr(apply, _MARK, False) and apply.__module__.startswith("easyeditor"):
            alg_dict[name] = _OWN_WAY[name](apply) if name in _OWN_WAY else adapted(name, apply)
            setattr(alg_dict[name], _MARK, True)


def adapted(name: str, apply: Callable) -> Callable:
    """One editor, under the conditions that it takes for granted.

    All: padding on the side it counts from; the model's flags as they were; an empty `stats_dir` is the cache's.
    KN, AlphaEdit and SPHERE: a `model_name` by which they know the architecture. AlphaEdit and SPHERE: the projection
    from the cache instead of the working directory. PMET: the space before the target that the other editors put there.
    """

    @functools.wraps(apply)
    def call(model: Any, tok: Any, requests: list[dict], hparams: Any, *args: Any, **kwargs: Any) -> Any:
        side, settings = "right", {}
        if name in _KNOWN_FAMILIES:
            settings["model_name"] = _family(name, model, hparams)
        if name == "FT" and getattr(hparams, "objective_optimization", "") == "target_new":
            side = "left"  # it looks for the prompt after the padding
        if name == "PMET":
            requests = [{**r, "target_new": f" {r['target_new'].removeprefix(' ')}"} for r in requests]
        with ExitStack() as stack:
            stack.enter_context(conditions(model, tok, hparams, side, settings))
            if name in _NULL_SPACE:
                stack.enter_context(swapped(hparams, P_loc=_projection(_NULL_SPACE[name], model, hparams)))
            return apply(model, tok, requests, hparams, *args, **kwargs)

    return call


def _family(editor: str, model: Any, hparams: Any) -> str:
    """`model_name`, or a name of the same layout where the editor could not tell from it."""
    name = str(hparams.model_name)
    if any(part in name for part in _KNOWN_FAMILIES[editor]):
        return name
    from transformers.pytorch_utils import Conv1D

    if any(isinstance(m, Conv1D) for m in model.modules()):
        return "gpt2-xl"
    # The others ask only how the weight lies, and have no matrices ready for GPT-J.
    return "gpt-j" if model.config.model_type == "gptj" and editor == "KN" else "llama"


def _projection(path: str, model: Any, hparams: Any) -> str:
    """File with the editor's P: the user's own where it exists, else one made in the cache."""
    module = host(path)
    own = Path(hparams.P_loc) if hparams.P_loc else None
    file = str(own if own is not None and own.is_file() else projection_file(model, hparams))
    if getattr(module, "__packe_projection__", None) != file:
        module.P_loaded = False  # it loads once, whatever is asked for later
        module.__packe_projection__ = file
    return file


def _tidied_lora(apply: Callable) -> Callable:
    """LoRA, after which the key-value cache is on again, and checkpoints and gradients of embeddings are off."""

    @functools.wraps(apply)
    def call(model: Any, tok: Any, requests: list[dict], *args: Any, **kwargs: Any) -> Any:
        use_cache = model.config.use_cache
        with swapped(tok, padding_side="left"):
            try:
                return apply(model, tok, requests, *args, **kwargs)
            finally:
                model.config.use_cache = use_cache
                model.gradient_checkpointing_disable()
                model.disable_input_require_grads()

    return call


_OWN_WAY = {"LoRA": _tidied_lora, "GRACE": grace, "WISE": wise, "ULTRAEDIT": ultraedit}
"""Editors that need something else than `adapted`."""
