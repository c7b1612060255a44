"""`packe bench`, `report`, `pack` and `unpack`: editors compared, and the comparison shown and kept."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..errors import needs
from .options import DEFAULT_MODEL

SETTINGS = Path(__file__).parent.parent / "bench" / "settings.py"
VARIABLE = re.compile(r"\$\{oc\.env:(\w+),(.+)\}")
"""How OmegaConf writes a variable of the environment, and what stands for it where it is not set."""
WIDTH = 100


def bench(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[key=value]... [-m] [--help]")] = None,
) -> None:
    """Run one editor on one data set by one protocol (a Hydra application)."""
    if not {"--help", "-h"}.isdisjoint(arguments or ()):
        typer.echo(_help())
        return
    _need_the_extra()
    from ..bench.app import main

    sys.exit(main(arguments or []))


def report(
    runs: Annotated[list[Path], typer.Argument(help="The out= folder of `packe bench`, or folders in it.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for report.md, report.csv and report.tex.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            dir_okay=False,
            help="One page for a browser, in place of the text: the tables, figures, and every record, with search and "
            "filters. It is whole in itself, and asks no network.",
        ),
    ] = None,
    data: Annotated[
        Path,
        typer.Option(
            envvar="PACKE_DATA", help="For --html: a data file of the runs, or a folder with them; it has the prompts."
        ),
    ] = Path("data"),
) -> None:
    """Show benchmark runs as the paper's tables; rows stand together only where they can be compared.

    Example: packe report runs --out tables
    Example: packe report runs --html page.html --data data
    """
    _need_the_extra()
    from ..bench.report import write_report

    text = write_report(runs, out) if html is None or out is not None else ""
    if html is None:
        typer.echo(text, nl=False)
        return
    from ..bench.report.page import write_page

    typer.echo(write_page(runs, html, data))


def pack(
    folder: Annotated[Path, typer.Argument(help="The out= folder of `packe bench`.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The .jsonl.zst file to write.", show_default=False)],
) -> None:
    """Keep the rows of many runs in one small file, which `packe report` reads as it reads their folders.

    Example: packe pack runs runs.jsonl.zst
    """
    _need_the_extra()
    from ..bench.archive import pack

    pack(folder, file)
    typer.echo(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")


def unpack(
    file: Annotated[Path, typer.Argument(help="A .jsonl.zst file of `packe pack`.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="The folder to write, an out= folder.", show_default=False)],
) -> None:
    """Turn such a file into a folder of runs again: `packe bench` goes on there with other editors, or more records.

    Example: packe unpack runs.jsonl.zst runs
    """
    _need_the_extra()
    from ..bench.archive import unpack

    number = unpack(file, folder)
    typer.echo(f"wrote {number} {'run' if number == 1 else 'runs'} into {folder}")


def _need_the_extra() -> None:
    for package in ("hydra", "pandas", "tabulate", "zstandard"):
        needs(package, "bench")


def _help() -> str:
    """Every setting in its own words, read from the source: Hydra and what it would load take seconds."""
    settings = "\n".join(
        textwrap.fill(f"{text} (default: {default})", WIDTH, initial_indent=f"  {name:<18}", subsequent_indent=" " * 20)
        for name, text, default in _settings()
    )
    return f"""\
Run one editor on one data set by one protocol; killed at any moment, the same command goes on where it stopped.

  packe bench editor=ROME data=zsre data_dir=zsre_mend_eval.json protocol=single n=20
  packe bench -m editor=PaCKE,ROME,MEMIT data=zsre,counterfact seed=1,2     (every combination)
  packe bench editor=all data=demo n=5      (every editor that has the protocol; ends with the table)
  packe report runs

Settings, as key=value; `packe bench --cfg job` prints their values, `packe bench --hydra-help` what Hydra adds:

{settings}"""


def _settings() -> Iterator[tuple[str, str, str]]:
    """(name, meaning, default) of each field of `bench.settings.Settings`; the meaning is the text under it."""
    source = ast.parse(SETTINGS.read_text(encoding="utf-8"))
    (body,) = [c.body for c in source.body if isinstance(c, ast.ClassDef) and c.name == "Settings"]
    for field, below in itertools.pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name), value=default), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split()), _written(default)


def _written(default: ast.expr | None) -> str:
    """A default as it is written on the command line."""
    match default:
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=str(text)):
            return VARIABLE.sub(r"$\1, or \2", text) or "empty"
        case ast.Constant(value=value):
            return str(value).lower()
        case ast.Name(id="DEFAULT_MODEL"):
            return DEFAULT_MODEL
        case ast.Call(keywords=[ast.keyword(value=ast.Name(id=factory))]):
            return {"list": "[]", "dict": "{}"}[factory]
    raise NotImplementedError(f"a default that the help cannot show: {ast.dump(default) if default else None}")
