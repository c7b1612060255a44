"""Options that several commands take, worded once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..model.fetch import DEFAULT_MODEL

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="A fetched model's name, a model folder, or a hub name.")]
ChatTemplate = Annotated[
    bool, typer.Option("--chat-template", help="Ask as a user asks an instruct model, by its own chat template.")
]
PatchFile = Annotated[Path, typer.Argument(help="A patch made by `packe edit`.", show_default=False)]
NewPatch = Annotated[Path, typer.Option("--out", "-o", help="The patch to write.", show_default=False)]
Folder = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write; default: --model itself.")]

__all__ = ["DEFAULT_MODEL", "AsJson", "ChatTemplate", "Dtype", "Folder", "ModelName", "NewPatch", "PatchFile"]


class Dtype(StrEnum):
    """In which precision a model is loaded."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
