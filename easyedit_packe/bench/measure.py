"""Measuring records: the same functions and settings for the unedited model and after every editor's edits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from torch import nn
from tqdm import tqdm

from . import metrics
from .data import Record

T = TypeVar("T")


def measured(model: nn.Module, tok: Any, record: Record, data_type: str, generation: bool, device: str) -> dict:
    """One row: `easyedit`, `rome` and, where it is asked for, `generation`; see `metrics`."""
    row: dict[str, Any] = {
        "easyedit": metrics.easyedit_quality(model, tok, record, device),
        "rome": metrics.rome_family(model, tok, record, data_type),
    }
    if generation:
        row["generation"] = metrics.generation_family(model, tok, record)
    return row


def against(row: dict[str, Any], unedited: dict[str, Any]) -> dict[str, Any]:
    """A row after an edit, with EasyEdit's locality: agreement with what the unedited model says."""
    easyedit = dict(row["easyedit"])
    then = unedited["easyedit"]["locality_output"]
    return {**row, "easyedit": {**easyedit, "locality": metrics.agreement(easyedit.pop("locality_output"), then)}}


def progress(items: Iterable[T], what: str, unit: str = "record") -> Iterator[T]:
    """A progress bar, unless there is nothing to wait for."""
    items = list(items)
    yield from tqdm(items, desc=what, unit=unit, disable=not items)
