"""The editor itself: requests and a model in, an edited model out."""

from __future__ import annotations

import copy as copying
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from .errors import HyperParamsError
from .extended import rectify_extended
from .ffn import FFNMap
from .hparams import PaCKEHyperParams
from .memory import EditMemory
from .originals import OriginalWeights
from .patch import WeightPatch, model_info
from .rectify import rectify
from .requests import EditRequest, encode, read_requests

MERGE_EVERY = 8
"""Patches of one call's requests that are held at a time: they hold the same nodes again and again."""


def compute_patch(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any] | EditRequest],
    hparams: PaCKEHyperParams,
) -> WeightPatch:
    """Trace and rectify (paper, sections 3.2 and 3.3); the model comes out as it went in.

    Args:
        model: a Hugging Face causal language model of a known architecture, on any device or devices.
        tok: its tokeniser; padding side and pad token do not matter.
        requests: EasyEdit requests (`prompt`, `target_new`, optionally `subject`).
        hparams: the settings.

    Returns:
        The edit. With `trace: request` the requests are edited in turn, each on top of those before it.

    Raises:
        RequestError, ModelError, HyperParamsError: before anything is computed wherever that can be known.
    """
    if not isinstance(hparams, PaCKEHyperParams):
        raise HyperParamsError(f"expected PaCKEHyperParams, got {type(hparams).__name__}; load hparams/PaCKE/*.yaml.")
    check_device(hparams.device)
    read = read_requests(requests)
    ffn = FFNMap.of(model)
    encoded = encode(tok, read, getattr(model.config, "max_position_embeddings", None))
    groups = [encoded] if hparams.trace == "call" else [[e] for e in encoded]
    done: list[WeightPatch] = []
    try:
        for i, group in enumerate(groups):
            asked = read if len(groups) == 1 else [read[i]]
            if hparams.extended:
                result = rectify_extended(model, tok, ffn, asked, hparams, memory_for(model, ffn, hparams))
                result.patch.info["terms"] = result.terms
            else:
                result = rectify(model, ffn, group, hparams)
            result.patch.info.update(
                **model_info(model),
                hparams=hparams.to_dict(),
                requests=[{"prompt": r.prompt, "target_new": r.target, "subject": r.subject} for r in asked],
                losses=result.losses,
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


def memory_for(model: nn.Module, ffn: FFNMap, hparams: PaCKEHyperParams) -> EditMemory:
    """What these hyper-parameters carry from call to call, without edits that the model no longer holds."""
    if hparams.memory is None:
        hparams.memory = EditMemory()
    return hparams.memory.of(model, ffn)


def apply_packe_to_model(
    model: nn.Module,
    tok: Any,
    requests: Sequence[Mapping[str, Any] | EditRequest],
    hparams: PaCKEHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, Mapping[str, torch.Tensor]]:
    """Edit a model the way EasyEdit calls its editors.

    Args:
        model, tok, requests, hparams: see `compute_patch`.
        copy: edit a deep copy and leave `model` alone.
        return_orig_weights: return what is needed to take the edit back.
        keep_original_weight, kwargs: part of EasyEdit's calling convention; not used.

    Returns:
        The edited model, and a mapping from parameter name to the original tensor (`OriginalWeights`, which holds
        only the touched slices and has the edit as `.patch`), or `{}` without `return_orig_weights`.
    """
    patch = compute_patch(model, tok, requests, hparams)
    if copy:
        model = copying.deepcopy(model)
    patch.apply(model)
    recorded = _RECORDED.get()
    if recorded is not None:
        recorded.append(patch)
    return model, OriginalWeights(model, patch) if return_orig_weights else {}


_RECORDED: ContextVar[list[WeightPatch] | None] = ContextVar("recorded_patches", default=None)


@contextmanager
def record_patches() -> Iterator[list[WeightPatch]]:
    """Collect the patch of every `apply_packe_to_model` call made inside, e.g. by EasyEdit.

    with record_patches() as patches:
        editor.edit(..., sequential_edit=True)
    whole_run = WeightPatch.merge(patches)
    """
    patches: list[WeightPatch] = []
    token = _RECORDED.set(patches)
    try:
        yield patches
    finally:
        _RECORDED.reset(token)


def check_device(device: int | str | None) -> torch.device:
    """The torch device that a `device` setting names.

    Raises:
        HyperParamsError: it is not a device, or not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        named = torch.device(f"cuda:{device}" if str(device).isdigit() else str(device))
    except RuntimeError as e:
        raise HyperParamsError(f"device: expected a CUDA index or a torch device, got {device!r} ({e}).") from None
    if named.type == "cuda" and (named.index or 0) >= torch.cuda.device_count():
        raise HyperParamsError(
            f"device: expected one that is there, got {device!r} with {torch.cuda.device_count()} CUDA devices; "
            "set device: cpu, or null to take CUDA only where it is."
        )
    return named
