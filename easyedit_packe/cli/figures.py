"""`packe figures` and `packe importance`: saved rows as pictures, and the rows of one that the benchmark has not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import needs


def figures(
    runs: Annotated[
        list[Path],
        typer.Argument(help="out= folders of `packe bench` and `packe importance`, or files of `packe pack`."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("figures"),
    editors: Annotated[str, typer.Option(help="Only these, with commas between them; default: all.")] = "",
) -> None:
    """Draw the paper's figures 3 to 6, and two more, as PNG, SVG and PDF; says which rows are missing for the others.

    Example: packe figures runs --out figures

    Example: packe figures runs.jsonl.zst --editors FT-C,ROME,PaCKE
    """
    for package in ("zstandard", "matplotlib"):
        needs(package, "figures")
    from ..bench.figures import write_figures

    drawn = write_figures(runs, out, [name.strip() for name in editors.split(",") if name.strip()])
    for png in (file for file in drawn.files if file.suffix == ".png"):
        typer.echo(f"wrote {png.with_name(png.name.removesuffix('.png'))}.png, .svg, .pdf")
    for name, missing in drawn.missing.items():
        typer.echo(f"left out {name}: it needs {missing.rows}, for example\n  {missing.command}")


def importance(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[key=value]...", show_default=False)] = None,
) -> None:
    """Score the nodes of T+ in every layer for the facts of a data set, for `packe figures`; resumable.

    Settings are those of `packe bench`: model, data, data_dir, n, start, hparams, hparams_file, device, out, label.

    Example: packe importance data=zsre data_dir=zsre_mend_eval.json n=100

    Example: packe importance data=demo n=20 hparams.score=gradient_norm label=norm
    """
    from ..bench.importance import importance, settings_of

    typer.echo(f"{importance(settings_of(arguments or []))}/")
