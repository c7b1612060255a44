"""`packe push`: an edit as a folder, or a repository of the hub, that others can use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import FetchError, PatchError, first_line
from ..model.fetch import SOURCES, source_of
from .export import said
from .loading import spinner
from .options import MaxRank, PatchFile
from .places import may_write_new

HUB = "hub:"


def push(
    patch: PatchFile,
    to: Annotated[
        str,
        typer.Option(help="A new folder, or hub:OWNER/NAME, a repository of the Hugging Face hub.", show_default=False),
    ],
    max_rank: MaxRank = None,
) -> None:
    """Publish an edit: the patch, its LoRA adapter, and a model card that says what was edited and how to take it back.

    A new repository of the hub is private; make it public there. Log in with `hf auth login`.

    Example: packe push rome.safetensors --to ./rome

    Example: packe push rome.safetensors --to hub:me/rome
    """
    from ..patch import WeightPatch
    from ..patch.card import PATCH, card

    edit = WeightPatch.load(patch)
    base, licence, here = _base(str(edit.info.get("base_model") or ""))
    adapter = edit.to_lora(max_rank)
    adapter.config["base_model_name_or_path"] = base
    text = card(edit, adapter, base, licence, here)

    def write(folder: Path) -> None:
        adapter.save(folder)
        shutil.copyfile(patch, folder / PATCH)
        (folder / "README.md").write_text(text, encoding="utf-8")

    if to.startswith(HUB):
        _upload(to.removeprefix(HUB), write, patch.name)
        typer.echo(f"pushed to https://huggingface.co/{to.removeprefix(HUB)}: {said(adapter)}")
        return
    folder = Path(to)
    may_write_new(folder)
    write(folder)
    typer.echo(f"wrote {folder}: a model card, {PATCH} and an adapter, {said(adapter)}")


def _base(name: str) -> tuple[str, str | None, str]:
    """Of a model: its name for others, its licence where that is known, and what `--model` takes; never a path."""
    if fetched := source_of(name):
        return SOURCES[fetched].hub, SOURCES[fetched].licence, fetched
    is_path = name.startswith((".", "~")) or Path(name).is_absolute() or Path(name).exists() or name.count("/") > 1
    public = Path(name).name if is_path else name
    return public or "MODEL", None, public or "MODEL"


def _upload(repository: str, write: Callable[[Path], None], name: str) -> None:
    """Put what `write` writes into a folder into a repository of the hub, which is made if there is none."""
    import huggingface_hub
    from httpx import HTTPError

    if repository.count("/") != 1:
        raise PatchError(f"--to: expected a folder or {HUB}OWNER/NAME, got {HUB + repository!r}.")
    with tempfile.TemporaryDirectory() as folder, spinner(f"uploading to {repository}"):
        write(Path(folder))
        try:
            huggingface_hub.create_repo(repository, private=True, exist_ok=True)
            huggingface_hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Add {name}")
        except (OSError, ValueError, HTTPError) as e:  # no network, no login, no such owner, a name that is none
            raise FetchError(
                f"{repository} could not be written on the hub: {first_line(e)} Log in by `hf auth login`."
            ) from e
