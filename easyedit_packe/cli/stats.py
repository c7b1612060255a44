"""`packe stats`: the statistics that EasyEdit's MEMIT family needs, without its download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import RequestError
from .loading import loaded
from .options import DEFAULT_MODEL, ModelName


def stats(
    model: ModelName = DEFAULT_MODEL,
    corpus: Annotated[str, typer.Option(help="A text file, or `self` to let the model write the text.")] = "self",
    layers: Annotated[str | None, typer.Option(help="For example 4,5,6; default: all.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="At most so many tokens of text.")] = 60_000,
    seed: Annotated[int, typer.Option(help="For `self`.")] = 0,
    stats_dir: Annotated[Path | None, typer.Option(help="Default: this package's cache.")] = None,
) -> None:
    """Measure second moments of feed-forward activations, and save them where EasyEdit looks for them.

    Example: packe stats --model smollm2-135m --corpus self --layers 4,5,6,7,8
    """
    try:
        chosen = None if layers is None else [int(layer) for layer in layers.split(",")]
    except ValueError:
        raise RequestError(f"--layers: expected numbers with commas between them, got {layers!r}.") from None
    from ..easyedit.statistics import compute_stats

    files = compute_stats(*loaded(model), corpus, chosen, tokens=tokens, seed=seed, root=stats_dir)
    for layer, file in files.items():
        typer.echo(f"layer {layer}: {file}")
