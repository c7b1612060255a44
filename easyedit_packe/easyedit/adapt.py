"""EasyEdit's own editors, given what they need of padding, names, settings and request text; none of them changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

from ..errors import RequestError
from ..model.hooks import kept_gradients
from ..requests import slotted
from .host import conditions, host, swapped
from .null_space import projection_file
from .rollback import unload_with_flags
from .routed import grace, wise
from .state import LEFT, PROJECTION, weights_written
from .ultraedit import ultraedit

_MARK = "__packe__"
_KNOWN_FAMILIES = {
    "KN": ("gpt2", "gpt-j", "llama"),
    "AlphaEdit": ("llama", "qwen", "gpt2-xl"),
    "SPHERE": ("llama", "qwen", "gpt2-xl"),
}
"""Editors that choose by a part of `model_name`, and the parts by which both releases find all that they need."""
_WITHOUT_SUBJECT = ("KN", "FT")
"""Editors that do not look for the subject in the prompt."""
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
    All that look for the subject: one place for it, the last, where it stands in the prompt several times; but
    AlphaEdit and SPHERE, which look for all, refuse such a prompt.
    KN, AlphaEdit and SPHERE: a `model_name` by which they know the architecture. AlphaEdit and SPHERE: the projection
    from the cache instead of the working directory, and no keys of edits that have been rolled back. PMET: the space
    before the target that the other editors put there. EMMET: the original weights where they are asked for, which HEAD
    gives only where it is told to keep them.
    """

    @functools.wraps(apply)
    def call(model: Any, tok: Any, requests: list[dict], hparams: Any, *args: Any, **kwargs: Any) -> Any:
        side, settings = "right", {}
        if name in _KNOWN_FAMILIES:
            settings["model_name"] = _family(name, model, hparams)
        if name == "FT" and getattr(hparams, "objective_optimization", "") == "target_new":
            side = "left"  # it looks for the prompt after the padding
        if name == "EMMET" and kwargs.get("return_orig_weights"):
            kwargs["keep_original_weight"] = True
        if name in _NULL_SPACE:
            _require_one_place(name, requests)
        elif name not in _WITHOUT_SUBJECT:
            requests = [_one_place(r) for r in requests]
        if name == "PMET":
            requests = [{**r, "target_new": f" {r['target_new'].removeprefix(' ')}"} for r in requests]
        with ExitStack() as stack:
            stack.enter_context(conditions(model, tok, hparams, side, settings))
            if name not in _NULL_SPACE:
                return apply(model, tok, requests, hparams, *args, **kwargs)
            module = host(_NULL_SPACE[name])
            stack.enter_context(swapped(hparams, P_loc=_projection(module, model, hparams)))
            # The keys of past edits count as long as these edits are in the model.
            left = getattr(module, LEFT, None)
            if left is not None and left != weights_written(model, hparams):
                module.cache_c_new = False
            edited, originals = apply(model, tok, requests, hparams, *args, **kwargs)
            setattr(module, LEFT, weights_written(edited, hparams))
            return edited, originals

    return call


def _one_place(request: dict) -> dict:
    prompt, subject = request["prompt"], request.get("subject") or ""
    several = subject and "{}" not in prompt and prompt.count(subject) > 1
    return {**request, "prompt": slotted(prompt, subject)} if several else request


def _require_one_place(editor: str, requests: list[dict]) -> None:
    """These two replace the subject wherever its letters are, whatever is already replaced."""
    for r in requests:
        subject = r.get("subject") or ""
        if subject and r["prompt"].count(subject) > 1:
            raise RequestError(
                f"expected a subject that stands once in the prompt, got {subject!r} in {r['prompt']!r}: EasyEdit's "
                f"{editor} would take each for its place, also within other words; name more of it."
            )


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


def _projection(module: Any, model: Any, hparams: Any) -> str:
    """File with the editor's P, which it will load anew if it is another one than before."""
    file = str(projection_file(model, hparams))
    if getattr(module, PROJECTION, None) != file:
        module.P_loaded = False  # it loads once, whatever is asked for later
        setattr(module, PROJECTION, file)
    return file


def _tidied_lora(apply: Callable) -> Callable:
    """LoRA, after which the key-value cache, checkpoints and the embedding's hooks are as before; the weights ask for
    gradients as before once the adapter is unloaded."""

    @functools.wraps(apply)
    def call(model: Any, tok: Any, requests: list[dict], hparams: Any, copy: bool = False, **kwargs: Any) -> Any:
        model = deepcopy(model) if copy else model
        use_cache, checkpoints = model.config.use_cache, model.is_gradient_checkpointing
        hooks = model.get_input_embeddings()._forward_hooks
        own, is_new = set(hooks), not getattr(model, "peft_config", None)
        flags = [(p, p.requires_grad) for p in model.parameters()]
        with swapped(tok, padding_side="left"), kept_gradients(model):
            try:
                edited, originals = apply(model, tok, requests, hparams, **kwargs)
            finally:
                model.config.use_cache = use_cache
                if not checkpoints:
                    model.gradient_checkpointing_disable()
                for added in set(hooks) - own:  # it and PEFT have each put one there
                    del hooks[added]
        if is_new:
            unload_with_flags(edited, flags)
        return edited, originals

    return call


_OWN_WAY = {"LoRA": _tidied_lora, "GRACE": grace, "WISE": wise, "ULTRAEDIT": ultraedit}
"""Editors that need something else than `adapted`."""
