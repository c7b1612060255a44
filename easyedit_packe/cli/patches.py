"""`packe show`, `apply`, `revert` and `merge`: what is done with patches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .loading import rewrite, rounded
from .options import DEFAULT_MODEL, AsJson, Folder, ModelName, NewPatch, PatchFile
from .places import may_write_patch


def show(patch: PatchFile, as_json: AsJson = False) -> None:
    """Say what a patch changes, where, and how much.

    Example: packe show rome.safetensors
    """
    from ..patch import WeightPatch

    p = WeightPatch.load(patch)
    by_layer = _by_layer(p.norms())
    facts = {
        "file": str(patch), "bytes": patch.stat().st_size, "base_model": p.info.get("base_model"),
        "requests": p.info.get("requests", []), "metrics": p.info.get("metrics"), "weights": p.num_weights,
        "parameters": len(p.slices), "norm_by_layer": by_layer, "dense": p.info.get("dense", []),
        "rounding": p.info.get("rounding"), "rounded": p.info.get("rounded"),
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for r in facts["requests"]:
        typer.echo(f"{r['prompt']} -> {r['target_new']}")
    typer.echo(
        f"for {facts['base_model'] or 'an unnamed model'}: {p.num_weights:,} weights in {len(p.slices)} parameters"
    )
    typer.echo(f"{patch}: {facts['bytes'] / 1e6:.1f} MB; norm of the change by layer:")
    most = max(by_layer.values(), default=0.0) or 1.0
    for layer, norm in sorted(by_layer.items()):
        name = f"layer {layer:>3}" if layer >= 0 else "elsewhere"
        typer.echo(f"{name} {'█' * round(40 * norm / most):<40} {norm:.3f}")
    for note in rounded(p):
        typer.echo(note)
    if facts["dense"]:
        typer.echo(f"dense, more than half of the rows and columns: {', '.join(facts['dense'])}")


def _by_layer(norms: dict[str, float]) -> dict[int, float]:
    """L2 norm of the change in each decoder layer; -1 stands for what belongs to none."""
    squares: dict[int, float] = {}
    for name, norm in norms.items():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
        squares[layer] = squares.get(layer, 0.0) + norm**2
    return {layer: square**0.5 for layer, square in squares.items()}


def apply(patch: PatchFile, out: Folder = None, model: ModelName = DEFAULT_MODEL) -> None:
    """Put an edit into a model folder.

    Example: packe apply rome.safetensors --out ./edited-model
    """
    rewrite(patch, model, out, "apply")


def revert(
    patch: PatchFile,
    model: Annotated[str, typer.Option("--model", "-m", help="The edited model's folder.", show_default=False)],
    out: Folder = None,
) -> None:
    """Take an edit out of a model folder, bit for bit.

    Example: packe revert rome.safetensors --model ./edited-model
    """
    rewrite(patch, model, out, "revert")


def merge(
    patches: Annotated[list[Path], typer.Argument(help="Patches, in the order they were made.", show_default=False)],
    out: NewPatch,
) -> None:
    """Make one patch of several that were made one on top of the other.

    Example: packe merge rome.safetensors oslo.safetensors --out both.safetensors
    """
    from ..patch import WeightPatch

    may_write_patch(out, *patches)
    WeightPatch.merge(WeightPatch.load(p) for p in patches).save(out)
    typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
