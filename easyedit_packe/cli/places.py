"""Where a command may write: never over what is not of the same kind, nor over what it reads."""

from __future__ import annotations

import os
from pathlib import Path

from ..cache import cache_dir
from ..errors import PatchError


def may_write_patch(out: Path, *inputs: Path) -> None:
    """Raises `PatchError` where a patch cannot be written, or something else than an older patch would be lost."""
    if out.is_dir() or not (out.parent.is_dir() or not out.parent.exists()):
        raise PatchError(f"--out: expected the name of a file in a folder, got {out}.")
    if out.parent.is_dir() and not os.access(out.parent, os.W_OK):
        raise PatchError(f"--out: nothing can be written to {out.parent}; give another folder.")
    if not out.exists():
        return
    if any(out.samefile(file) for file in inputs if file.exists()):
        raise PatchError(f"--out: {out} is one of the files that are read; give another name.")
    from ..patch import WeightPatch

    try:
        WeightPatch.load(out)
    except PatchError:
        raise PatchError(f"--out: {out} is there and is no patch; give another name, or remove it.") from None


def may_write_gguf(out: Path) -> None:
    """Raises `PatchError` where something else than an older GGUF file would be lost."""
    if out.exists() and not (out.is_file() and _begins_with(out, b"GGUF")):
        raise PatchError(f"{out} is there and is no GGUF file; give another name, or remove it.")


def _begins_with(file: Path, magic: bytes) -> bool:
    with file.open("rb") as f:
        return f.read(len(magic)) == magic


def may_write_adapter(folder: Path) -> None:
    """Raises `PatchError` where a folder holds something else than an older adapter. Beside a model transformers would
    load it unasked."""
    is_adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").exists()
    if _is_taken(folder) and not is_adapter:
        raise PatchError(f"an edit's adapter is a folder of its own, and {folder} holds something else; give another.")


def may_write_new(folder: Path) -> None:
    """Raises `PatchError` where a folder, or a file of its name, holds anything."""
    if _is_taken(folder):
        raise PatchError(f"{folder}: expected a new or an empty folder, so that nothing of yours is overwritten.")


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def may_write_model(folder: Path, model: Path) -> None:
    """Raises `PatchError` where a model cannot be written without harm to what is there: into a file, over other
    files than those of the `model` that it was loaded from, or among the models that all programs here share."""
    shared = (cache_dir() / "models").resolve()
    if shared in (folder.resolve(), *folder.resolve().parents):
        raise PatchError(f"{folder} is shared by everything on this machine; give a folder of your own with --out.")
    if folder.exists() and not folder.is_dir():
        raise PatchError(f"{folder} is a file, expected a folder; give another name.")
    if _is_taken(folder) and folder.resolve() != model.resolve():
        raise PatchError(f"{folder} is not empty, and what it holds could be written over; give another folder.")
