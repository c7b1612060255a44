"""`packe export`: a patch as what other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .loading import rewrite
from .options import DEFAULT_MODEL, ModelName, PatchFile

app = typer.Typer(help="Turn a patch into what other programs load.", no_args_is_help=True)


@app.command()
def lora(
    patch: PatchFile,
    out: Annotated[Path, typer.Argument(help="Adapter folder to write.", show_default=False)],
    max_rank: Annotated[int | None, typer.Option(help="Cap the rank: smaller, and no longer exact.")] = None,
    uniform: Annotated[bool, typer.Option(help="One rank for all modules, for programs without rank_pattern.")] = False,
) -> None:
    """Write the edit as a PEFT LoRA adapter.

    Example: packe export lora rome.safetensors ./rome-adapter
    """
    from ..patch import WeightPatch

    adapter = WeightPatch.load(patch).to_lora(max_rank, uniform)
    adapter.save(out)
    worst = max(adapter.errors.values())
    ranks = [adapter.config["r"], *adapter.config["rank_pattern"].values()]
    note = "exact" if worst == 0 else f"relative error of a module's update at most {worst:.1%}"
    typer.echo(f"wrote {out}: {len(adapter.errors)} modules, rank {min(ranks)} to {max(ranks)}, {note}")


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
