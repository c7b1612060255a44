"""The editors themselves: requests and a model in, an edited model out."""

from __future__ import annotations

import copy as copying
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from .config import HyperParams, PaCKEHyperParams, PaCKEPlusHyperParams
from .errors import HyperParamsError
from .model.chat import framed
from .model.config import max_tokens
from .model.device import check_device
from .model.ffn import FFNMap
from .model.wrapped import uncompiled
from .packe.achieved import note_rounding
from .packe.rectify import Rectification, rectify
from .packe.slices import Slices
from .patch import OriginalWeights, WeightPatch
from .patch.lora import LoraAdapter, to_lora
from .patch.weight_patch import model_info
from .plus.rectify import rectify_plus
from .plus.state import EditMemory
from .requests import EditRequest, encode, read_requests

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Requests = Sequence[Mapping[str, Any] | EditRequest]
Rectify = Callable[[list[EditRequest]], Rectification]
"""Trains an edit of these requests together; the model itself is unchanged."""

MERGE_EVERY = 8
"""Patches of one call's requests that are held at a time: they hold the same nodes again and again."""


def compute_patch(model: PreTrainedModel, tok: Any, requests: Requests, hparams: HyperParams) -> WeightPatch:
    """Trace and rectify (paper, sections 3.2 and 3.3); the model comes out as it went in.

    Args:
        model: a Hugging Face causal language model of a known architecture, on any device or devices. Of a compiled one
            the model in it is edited.
        tok: its tokeniser; padding side and pad token do not matter.
        requests: EasyEdit requests (`prompt`, `target_new`, optionally `subject`).
        hparams: the settings; their class chooses the algorithm, PaCKE or PaCKE+.

    Returns:
        The edit. With `trace: request` the requests are edited in turn, each on top of those before it. Of a model in
        half precision it says what rounding left of it (`packe/achieved.py`).

    Raises:
        RequestError, ModelError, HyperParamsError: before anything is computed wherever that can be known.
    """
    hparams, model = _of_ours(hparams), uncompiled(model)
    read = as_asked(tok, requests, hparams)
    run = _rectifier(model, tok, FFNMap.of(model), read, hparams, lambda: EditMemory.of(model))
    groups = _together(read, hparams)
    done: list[WeightPatch] = []
    try:
        for asked in groups:
            result = run(asked)
            note_rounding(model, tok, asked, result, hparams)
            result.slices = None  # of the size of the edit in float32, and no longer needed
            result.patch.info.update(
                **model_info(model),
                hparams=hparams.to_dict(),
                requests=[{"prompt": r.prompt, "target_new": r.target, "subject": r.subject} for r in asked],
                losses=result.losses,
                **({"terms": result.terms} if result.terms else {}),
            )
            if len(groups) == 1:
                return result.patch
            result.patch.apply(model)
            done.append(result.patch)
            if len(done) == MERGE_EVERY:
                done = [WeightPatch.merge(done)]
        return WeightPatch.merge(done)
    finally:
        for patch in reversed(done):
            patch.revert(model)


def compute_adapter(
    model: PreTrainedModel, tok: Any, requests: Requests, hparams: HyperParams, max_rank: int | None = None
) -> LoraAdapter:
    """The same edit as a LoRA adapter, which leaves the weights alone: for a model that is quantised.

    A patch needs weights that hold the numbers they stand for; an adapter adds to what the modules give. It is what
    was trained, in float32, and rounded to nothing; of a model in float32 it is the adapter of the patch.

    Args:
        model: as for `compute_patch`, and its weights may be quantised (bitsandbytes, torchao), as far as gradients
            flow through its modules. Not a mixture of experts.
        tok, requests, hparams: see `compute_patch`.
        max_rank: see `WeightPatch.to_lora`.

    Raises:
        RequestError, ModelError, HyperParamsError: before anything is computed wherever that can be known.
        PatchError: nothing changes.
    """
    hparams, model = _of_ours(hparams), uncompiled(model)
    read = as_asked(tok, requests, hparams)
    ffn = FFNMap.of(model, quantised=True)
    ffn.require_dense("an adapter")
    # What is remembered here is in no weight, so it ends with the call.
    memory = cache(lambda: copying.deepcopy(EditMemory.of(model)))
    run = _rectifier(model, tok, ffn, read, hparams, memory)
    done = Slices(ffn, isinstance(hparams, PaCKEHyperParams) and hparams.value_bias == "trained")
    for asked in _together(read, hparams):
        with done.attached(train=False):  # the next request is edited on top of it
            result = run(asked)
        if result.slices is not None:
            done.absorb(result.slices)
    return to_lora(done.changes(), model_info(model), max_rank)


def as_asked(tok: Any, requests: Requests, hparams: HyperParams) -> list[EditRequest]:
    """The requests, checked, as the settings have them asked: in the tokeniser's chat template, or as they are.

    Raises:
        RequestError, HyperParamsError: a request, or the device, cannot be used.
    """
    check_device(hparams.device)
    read = read_requests(requests)
    return [framed(tok, request) for request in read] if hparams.use_chat_template else read


def _of_ours(hparams: object) -> PaCKEHyperParams | PaCKEPlusHyperParams:
    if isinstance(hparams, PaCKEHyperParams | PaCKEPlusHyperParams):
        hparams.__post_init__()  # a field may have been set since
        return hparams
    raise HyperParamsError(
        f"expected PaCKEHyperParams or PaCKEPlusHyperParams, got {type(hparams).__name__}; load a file of "
        "hparams/PaCKE/ or hparams/PaCKE+/."
    )


def _together(requests: list[EditRequest], hparams: PaCKEHyperParams | PaCKEPlusHyperParams) -> list[list[EditRequest]]:
    return [requests] if hparams.trace == "call" else [[r] for r in requests]


def _rectifier(
    model: PreTrainedModel,
    tok: Any,
    ffn: FFNMap,
    requests: Sequence[EditRequest],
    hparams: PaCKEHyperParams | PaCKEPlusHyperParams,
    memory: Callable[[], EditMemory],
) -> Rectify:
    """Raises RequestError, ModelError: for any of the requests, before the first is edited."""
    encoded = dict(zip(map(id, requests), encode(tok, requests, max_tokens(model)), strict=True))
    if isinstance(hparams, PaCKEHyperParams):
        return lambda asked: rectify(model, ffn, [encoded[id(r)] for r in asked], hparams)
    ffn.require_dense("PaCKE+")
    return lambda asked: rectify_plus(model, tok, ffn, asked, hparams, memory())


def apply_packe_to_model(
    model: PreTrainedModel,
    tok: Any,
    requests: Requests,
    hparams: PaCKEHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[PreTrainedModel, Mapping[str, torch.Tensor]]:
    """Edit a model with PaCKE the way EasyEdit calls its editors.

    Args:
        model, tok, requests, hparams: see `compute_patch`.
        copy: edit a deep copy and leave `model` alone.
        return_orig_weights: return what is needed to take the edit back.
        keep_original_weight, kwargs: part of EasyEdit's calling convention; not used.

    Returns:
        The edited model, and a mapping from parameter name to the original tensor (`OriginalWeights`, which holds
        only the touched slices and has the edit as `.patch`), or `{}` without `return_orig_weights`.

    Raises:
        HyperParamsError: settings of another algorithm; and what `compute_patch` raises.
    """
    _require(hparams, PaCKEHyperParams, "apply_packe_plus_to_model")
    return _apply(model, tok, requests, hparams, copy, return_orig_weights)


def apply_packe_plus_to_model(
    model: PreTrainedModel,
    tok: Any,
    requests: Requests,
    hparams: PaCKEPlusHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[PreTrainedModel, Mapping[str, torch.Tensor]]:
    """Edit a model with PaCKE+; as `apply_packe_to_model`.

    What PaCKE+ knows of earlier edits belongs to the model (`plus.state.EditMemory`) and moves with a copy of it.
    """
    _require(hparams, PaCKEPlusHyperParams, "apply_packe_to_model")
    return _apply(model, tok, requests, hparams, copy, return_orig_weights)


def _require(hparams: object, cls: type[HyperParams], other: str) -> None:
    if not isinstance(hparams, cls):
        raise HyperParamsError(
            f"expected {cls.__name__}, got {type(hparams).__name__}; load a file of hparams/{cls.ALG}/, or call "
            f"{other}."
        )


def _apply(
    model: PreTrainedModel, tok: Any, requests: Requests, hparams: HyperParams, copy: bool, return_orig_weights: bool
) -> tuple[PreTrainedModel, Mapping[str, torch.Tensor]]:
    patch = compute_patch(model, tok, requests, hparams)
    if copy:
        model = copying.deepcopy(model)
    patch.apply(model)
    for recorded in _RECORDED.get():
        recorded.append(patch)
    return model, OriginalWeights(model, patch) if return_orig_weights else {}


_RECORDED: ContextVar[tuple[list[WeightPatch], ...]] = ContextVar("recorded_patches", default=())


@contextmanager
def record_patches() -> Iterator[list[WeightPatch]]:
    """Collect the patch of every edit made inside, by PaCKE or PaCKE+, e.g. through EasyEdit.

    with record_patches() as patches:
        editor.edit(..., sequential_edit=True)
    whole_run = WeightPatch.merge(patches)
    """
    patches: list[WeightPatch] = []
    token = _RECORDED.set((*_RECORDED.get(), patches))
    try:
        yield patches
    finally:
        _RECORDED.reset(token)
