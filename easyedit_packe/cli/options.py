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
MaxRank = Annotated[int | None, typer.Option(help="Cap an adapter's rank: smaller, and no longer exact.")]

Prompt = Annotated[str | None, typer.Option(help="Text before the new answer; {} stands for the subject.")]
Target = Annotated[str | None, typer.Option(help="The new answer.")]
Subject = Annotated[str | None, typer.Option(help="What the fact is about; PaCKE+ needs it to generalise.")]
RequestsFile = Annotated[
    Path | None, typer.Option(help="JSON list of EasyEdit requests, for many facts; a .jsonl file has one a line.")
]
Editor = Annotated[str | None, typer.Option(help="PaCKE, or PaCKE+; default: that of --hparams, else PaCKE.")]
HParams = Annotated[str | None, typer.Option(help="YAML file or shipped name; default: the model's.")]

__all__ = [
    "DEFAULT_MODEL", "AsJson", "Bits", "ChatTemplate", "Dtype", "Editor", "Folder", "HParams", "LoadIn", "MaxRank",
    "ModelName", "NewPatch", "PatchFile", "Prompt", "RequestsFile", "Subject", "Target",
]  # fmt: skip


class Dtype(StrEnum):
    """In which precision a model is loaded."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Bits(StrEnum):
    """To how few bits a weight is quantised on loading."""

    EIGHT = "8bit"
    FOUR = "4bit"


LoadIn = Annotated[
    Bits | None,
    typer.Option("--load-in", help="Quantise the model's weights on loading, by bitsandbytes."),
]
