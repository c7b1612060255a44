"""`packe bench`: a Hydra application around one benchmark run, or around a sweep of them."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
import typer
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from ..errors import PaCKEError, one_of, said_of
from .editors import EDITORS, PROTOCOLS, BenchError
from .report import find_runs, markdown, one_line
from .runner import run
from .settings import Settings
from .sweep import note, outcomes

ConfigStore.instance().store(name="settings", node=Settings)


@hydra.main(version_base="1.3", config_path="conf", config_name="bench")
def _task(config: DictConfig) -> None:
    """One run. What came of it goes into a file: in a sweep with a launcher this may be any process."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    try:
        folder = run(Settings.from_dict(values))
        outcome = {"folder": str(folder)}
        typer.echo(one_line(folder))
    except Exception as e:
        # Hydra would print a traceback; and with -m, the other runs of the sweep shall still be done.
        said = said_of(e)
        outcome = {"error": said}
        expected = isinstance(e, PaCKEError | OSError)
        typer.echo(f"packe bench: {said}" if expected else "".join(traceback.format_exception(e)), err=True)
    note(outcome)


def main(arguments: Sequence[str]) -> int:
    """Run with Hydra's command line (`key=value`, `-m` for every combination, `--help`).

    `editor=all` stands for all editors that have the protocol; such a sweep ends with its table.

    Returns:
        0, or 1 if any run failed; the others of a sweep are done all the same.

    Raises:
        BenchError: a setting that does not exist; the message names the nearest.
    """
    _check_keys(arguments)
    expanded = _all_editors(arguments)
    with tempfile.TemporaryDirectory(prefix="packe-bench-") as folder:
        # Flags first: argparse takes positional arguments from one side of a flag only.
        flags = [a for a in expanded if a in ("-m", "--multirun")]
        rest = [a for a in expanded if a not in flags]
        command = ["packe bench", *flags, *rest, f"hydra.sweep.dir={folder}"]
        found = outcomes(_task, command, Path(folder))
    done = [Path(o["folder"]) for o in found if "folder" in o]
    failed = [o["error"] for o in found if "error" in o]
    if expanded != list(arguments) and done:
        typer.echo(markdown(find_runs(done)))
    if len(found) > 1 and failed:
        typer.echo(f"packe bench: {len(failed)} of {len(found)} runs failed:", err=True)
        for error in dict.fromkeys(failed):  # a wrong setting fails them all in the same words
            typer.echo(f"- {error}", err=True)
    return 1 if failed else 0


def _all_editors(arguments: Sequence[str]) -> list[str]:
    if "editor=all" not in arguments:
        return list(arguments)
    asked = [p for a in arguments if a.startswith("protocol=") for p in a.partition("=")[2].split(",")] or ["single"]
    able = []
    for e in EDITORS.values():
        lacking = [p for p in asked if p in PROTOCOLS and p in e.cannot]
        if not lacking:
            able.append(e.name)
        elif len(asked) > 1:  # of one protocol, the editors that have it are what is meant
            typer.echo(f"packe bench: without {e.name}: it has no protocol {', '.join(lacking)}", err=True)
    absent = {name: EDITORS[name].absent() for name in able}
    for name, reason in absent.items():
        if reason:
            typer.echo(f"packe bench: without {name}: {reason}", err=True)
    able = [name for name in able if not absent[name]]
    rest = [a for a in arguments if a not in ("editor=all", "-m", "--multirun")]
    return ["--multirun", f"editor={','.join(able)}", *rest]


def _check_keys(arguments: Sequence[str]) -> None:
    known = [f.name for f in fields(Settings)]
    for argument in arguments:
        key, equals, _ = argument.lstrip("+~").partition("=")
        top = key.split(".")[0].split("@")[0]
        if equals and not argument.startswith("-") and top not in known and top.split("/")[0] != "hydra":
            raise BenchError(f"unknown setting {key!r}; {one_of(key, known)}.")
