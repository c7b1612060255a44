"""The `packe` command: its groups of commands put together.

What a command needs is imported when it runs: `packe --help` loads neither torch nor transformers.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import PaCKEError, said_of
from . import easyedit, export, model
from .bench import bench, pack, report, unpack
from .demo import demo
from .edit import ask, edit
from .figures import figures, importance
from .patches import apply, merge, revert, show
from .push import push
from .reproduce import reproduce
from .stats import stats
from .trace import trace


class _App(typer.Typer):
    """Typer that ends a deliberate error, and a path or disk that cannot be used, with one line on standard error and
    exit code 1."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        try:
            return super().__call__(*args, **kwargs)
        except PaCKEError as e:
            said = str(e)
        except OSError as e:
            if e.strerror is None:
                raise
            said = said_of(e)
        typer.echo(f"packe: {said}", err=True)
        sys.exit(1)


app = _App(
    help="PaCKE, a knowledge editor for EasyEdit: edits as small files.", no_args_is_help=True, add_completion=False
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"packe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(trace)
app.command()(edit)
app.command()(ask)
app.command()(demo)
app.command()(show)
app.command()(apply)
app.command()(revert)
app.command()(merge)
app.add_typer(export.app, name="export")
app.command()(push)
app.command(
    # Hydra reads these arguments; `bench` itself answers --help.
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    options_metavar="",
    short_help="Compare editors: one run of one editor, resumable. Hydra: key=value, -m, --help.",
)(bench)
app.command()(report)
app.command()(pack)
app.command()(unpack)
app.command()(figures)
app.command()(importance)
app.command()(reproduce)
app.command()(stats)
app.add_typer(easyedit.app, name="easyedit")
app.add_typer(model.app, name="model")
