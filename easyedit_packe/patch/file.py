"""The file of an edit: one safetensors file, checked down to the last bit when it is read.

Tensors `<parameter>|index`, `|old` and `|new`; metadata: `format`, `version`, `base_model`, `axes` (JSON: parameter ->
[axis, length along it]), `info` (JSON), `fingerprint` (SHA-256 of the touched base weights) and `digest` (SHA-256 of
everything else).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cache import written_whole
from ..errors import PatchError
from ..model.bits import digest_of
from .slice import Slice

FORMAT, VERSION = "packe-weight-patch", "1"
_KEYS = {"format", "version", "base_model", "axes", "info", "fingerprint", "digest"}
PARTS = ("index", "old", "new")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MAX_HEADER = 16 << 20
"""A header is some hundred bytes a parameter; 16 MB are those of a hundred thousand."""


def save(slices: dict[str, Slice], info: dict[str, Any], path: str | Path) -> Path:
    """Write an edit; the file appears whole or not at all.

    Raises:
        PatchError: `info` holds something that JSON cannot, or the edit has what `load` would refuse.
    """
    from safetensors.torch import save as to_bytes

    tensors: dict[str, Tensor] = {}
    for name, s in slices.items():
        tensors[f"{name}|index"] = s.index.detach().to("cpu", torch.int64, copy=True)  # a bias may share it
        tensors[f"{name}|old"] = s.old.detach().cpu().contiguous()
        tensors[f"{name}|new"] = s.new.detach().cpu().contiguous()
        _checked(name, s.axis, s.size, *(tensors[f"{name}|{part}"] for part in PARTS))
    _check_info(info)
    try:
        text = json.dumps(info, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise PatchError(f"info: expected plain values that JSON can hold, got {e}.") from None
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "base_model": str(info.get("base_model", "")),
        "axes": json.dumps({name: [s.axis, s.size] for name, s in slices.items()}, sort_keys=True),
        "info": text,
        "fingerprint": fingerprint(tensors),
    }
    metadata["digest"] = _digest(tensors, metadata)
    path = Path(path)
    with written_whole(path) as part:
        part.write_bytes(to_bytes(tensors, metadata))
    return path


def load(path: str | Path) -> tuple[dict[str, Slice], dict[str, Any]]:
    """Slices and info of an edit.

    Raises:
        PatchError: no such file, not a patch, of a newer format, damaged, or with contents that no edit has
            (indices out of range or twice, shapes that do not fit, values that are not finite).
    """
    path = Path(path)
    try:
        tensors, metadata = _read(path)
        return _build(tensors, metadata)
    except PatchError as e:
        raise PatchError(f"{path}: {e}") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            header = int.from_bytes(f.read(8), "little")
        if size < 8 or header > min(size - 8, _MAX_HEADER):
            raise PatchError(f"expected a safetensors file, got {size} bytes with a header of {header}.")
        with safe_open(path, framework="pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}  # noqa: SIM118 (not a mapping)
    except OSError as e:
        raise PatchError(f"cannot be read: {e.strerror or e}.") from None
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, UnicodeDecodeError, AttributeError) as e:
        raise PatchError(f"not a whole safetensors file ({type(e).__name__}: {e}).") from None


def _build(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[dict[str, Slice], dict[str, Any]]:
    if metadata.get("format") != FORMAT:
        raise PatchError(f"expected a file of format {FORMAT!r}, got {metadata.get('format')!r}; it is something else.")
    if metadata.get("version") != VERSION:
        raise PatchError(f"expected version {VERSION}, got {metadata.get('version')!r}; update easyedit-packe.")
    if set(metadata) != _KEYS or metadata["digest"] != _digest(tensors, metadata):
        raise PatchError("the contents do not match their checksum; the file is damaged or was changed.")
    if metadata["fingerprint"] != fingerprint(tensors):
        raise PatchError("the fingerprint is not that of the old values; the file is damaged or was changed.")
    axes, info = _json(metadata, "axes"), _json(metadata, "info")
    _check_info(info)
    slices = {}
    for name, place in axes.items():
        if not (isinstance(place, list) and len(place) == 2 and all(type(x) is int for x in place)):
            raise PatchError(f"{name}: expected [axis, size], got {place!r}.")
        parts = [tensors.pop(f"{name}|{part}", None) for part in PARTS]
        if any(p is None for p in parts):
            raise PatchError(f"{name}: index, old or new is missing.")
        slices[name] = _checked(name, *place, *parts)
    if tensors:
        raise PatchError(f"unexpected tensor {sorted(tensors)[0]!r}.")
    return slices, info


def _checked(name: str, axis: int, size: int, index: Tensor, old: Tensor, new: Tensor) -> Slice:
    def require(ok: bool, what: str) -> None:
        if not ok:
            raise PatchError(f"{name}: {what}.")

    require(index.dtype == torch.int64 and index.ndim == 1, f"expected int64 indices [k], got {index.dtype}")
    require(
        old.dtype in _DTYPES and old.dtype == new.dtype,
        f"expected one float dtype (float16, bfloat16, float32 or float64), got {old.dtype}, {new.dtype}",
    )
    require(old.shape == new.shape and old.ndim >= 1 and len(old) == len(index), "old, new and index differ in length")
    require(0 <= axis < old.ndim, f"axis {axis} of {old.ndim}")
    require((bool(((index >= 0) & (index < size)).all())), "an index is out of range")
    require(index.unique().numel() == index.numel(), "an index comes twice")
    require(bool(torch.isfinite(new).all()), "a new value is not finite")
    return Slice(axis, index, old, new, size)


def _check_info(info: dict[str, Any]) -> None:
    """What the commands read of it."""
    requests, ffn = info.get("requests", []), info.get("ffn", {"linear": [], "transposed": False})
    asked = isinstance(requests, list) and all(
        isinstance(r, dict) and all(isinstance(r.get(key), str) for key in ("prompt", "target_new")) for r in requests
    )
    laid_out = isinstance(ffn, dict) and isinstance(ffn.get("linear"), list) and type(ffn.get("transposed")) is bool
    for ok, what in ((asked, "requests"), (laid_out, "ffn")):
        if not ok:
            raise PatchError(f"info: {what} is not what an edit says of itself; the file was not written by `save`.")


def _json(metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError) as e:
        raise PatchError(f"{key}: not readable as JSON ({type(e).__name__}).") from None
    if not isinstance(value, dict):
        raise PatchError(f"{key}: expected a JSON object, got {type(value).__name__}.")
    return value


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the touched base weights: what the patch expects to find in the model."""
    return _hash({k: t for k, t in tensors.items() if not k.endswith("|new")})


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    rest = json.dumps({k: v for k, v in metadata.items() if k != "digest"}, sort_keys=True)
    return hashlib.sha256((_hash(tensors) + rest).encode()).hexdigest()


def _hash(tensors: dict[str, Tensor]) -> str:
    return digest_of(sorted(tensors.items()))
