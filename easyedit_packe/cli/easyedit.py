"""`packe easyedit`: the EasyEdit that this package plugs into."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson

if TYPE_CHECKING:
    from ..easyedit import Found

app = typer.Typer(help="The EasyEdit that this package plugs into.", no_args_is_help=True)


@app.command()
def install(
    ref: Annotated[str | None, typer.Option(help="Commit, tag or branch; default: the tested commit.")] = None,
    path: Annotated[str | None, typer.Option(help="Use this checkout instead of cloning one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Clone EasyEdit into the user's cache, or fall back to the PyPI release where git cannot reach it.

    Example: packe easyedit install --ref 14cea82
    """
    from ..easyedit import install

    _say(install(ref, path), as_json)


@app.command()
def show(as_json: AsJson = False) -> None:
    """Say which EasyEdit is used, and its version.

    Example: EASYEDIT_HOME=~/EasyEdit packe easyedit show
    """
    from ..easyedit import locate

    _say(locate(), as_json)


def _say(found: Found, as_json: bool) -> None:
    fields = {"version": found.version, "how": found.how, "root": str(found.root)}
    typer.echo(json.dumps(fields) if as_json else str(found))
