"""`packe export`: a patch as what other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .loading import rewrite
from .options import DEFAULT_MODEL, MaxRank, ModelName, PatchFile
from .places import may_write_adapter, may_write_gguf

if TYPE_CHECKING:
    from ..patch.lora import LoraAdapter

app = typer.Typer(help="Turn a patch into what other programs load.", no_args_is_help=True)


@app.command()
def lora(
    patch: PatchFile,
    out: Annotated[Path, typer.Argument(help="Adapter folder to write.", show_default=False)],
    max_rank: MaxRank = None,
    uniform: Annotated[bool, typer.Option(help="One rank for all modules, for programs without rank_pattern.")] = False,
    vllm: Annotated[bool, typer.Option("--vllm", help="One rank for all modules that vLLM allows.")] = False,
) -> None:
    """Write the edit as a PEFT LoRA adapter.

    Example: packe export lora rome.safetensors ./rome-adapter
    """
    from ..patch import WeightPatch

    may_write_adapter(out)
    adapter = WeightPatch.load(patch).to_lora(max_rank, uniform, vllm)
    adapter.save(out)
    typer.echo(f"wrote {out}: {said(adapter)}")
    if vllm:
        rank = adapter.config["r"]
        typer.echo(f"serve it: vllm serve MODEL --enable-lora --max-lora-rank {rank} --lora-modules {out.name}={out}")


@app.command()
def gguf(
    patch: PatchFile,
    out: Annotated[Path, typer.Argument(help="Adapter file to write.", show_default=False)],
    max_rank: MaxRank = None,
) -> None:
    """Write the edit as a GGUF LoRA adapter, for llama.cpp and programs that are built on it.

    Example: packe export gguf rome.safetensors rome.gguf
    """
    from ..patch import WeightPatch

    may_write_gguf(out)
    adapter = WeightPatch.load(patch).to_lora(max_rank)
    adapter.save_gguf(out)
    typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB): {said(adapter)}")


def said(adapter: LoraAdapter) -> str:
    """An adapter in a few words."""
    worst = max(adapter.errors.values())
    note = "exact" if worst == 0 else f"relative error of a module's update at most {worst:.1%}"
    return f"{len(adapter.errors)} modules, rank {adapter.ranks[0]} to {adapter.ranks[-1]}, {note}"


@app.command()
def model(
    patch: PatchFile,
    out: Annotated[Path, typer.Argument(help="Model folder to write.", show_default=False)],
    model: ModelName = DEFAULT_MODEL,
) -> None:
    """Write the whole edited model, as `save_pretrained` does.

    Example: packe export model rome.safetensors ./edited-model
    """
    rewrite(patch, model, out, "apply")
