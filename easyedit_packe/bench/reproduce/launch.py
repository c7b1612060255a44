"""The runs of a plan, one after another or several at a time, through Hydra's launchers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import typer
from omegaconf import DictConfig

from ...errors import needs, one_of, said_of
from ..editors import BenchError
from ..report import one_line
from ..runner import run
from ..settings import Settings
from ..sweep import note, outcomes
from .gpus import free_gpu
from .plan import Item, Where

PLUGINS = {
    "basic": None,
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}
"""Launcher -> the package that has it."""
DAYS = 7
"""After which a submitit launcher ends a run; its own default is an hour, which most runs exceed."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="reproduce")
def _task(config: DictConfig) -> None:
    """One run, in whatever process. What came of it goes into a file; no failure keeps the others from being done."""
    values: dict[str, Any] = json.loads(Path(config.plan).read_text(encoding="utf-8"))[config.run]
    try:
        if values["device"] is None:
            with free_gpu() as device:
                folder = run(Settings.from_dict(values | {"device": device}))
        else:
            folder = run(Settings.from_dict(values))
        outcome = {"folder": str(folder)}
        typer.echo(one_line(folder))
    except Exception as e:
        outcome = {"error": f"{values['editor']}, {values['data']}, {values['protocol']}: {said_of(e)}"}
        typer.echo(f"packe reproduce: {outcome['error']}", err=True)
    note(outcome)


def check(launcher: str, jobs: int) -> None:
    """Before anything is run.

    Raises:
        BenchError: no such launcher, or no number of jobs. MissingPackageError: its plugin is not installed.
    """
    if launcher not in PLUGINS:
        raise BenchError(f"--launcher: {one_of(launcher, list(PLUGINS))}; got {launcher!r}.")
    if jobs < 1 or (launcher == "basic" and jobs > 1):
        raise BenchError(
            f"--jobs: expected {'1 with the launcher basic' if jobs > 1 else 'at least 1'}, got {jobs}; "
            "--launcher joblib runs several at a time."
        )
    plugin = PLUGINS[launcher]
    if plugin:
        needs(plugin, "launchers")


def run_all(
    runs: Sequence[Item], where: Where, launcher: str = "basic", jobs: int = 1, more: Sequence[str] = ()
) -> list[str]:
    """Do what of each run is not done yet; runs that are done are not started.

    Args:
        jobs: how many at a time.
        more: settings of Hydra's, such as `hydra.launcher.partition=gpu`.

    Returns:
        What failed. The others are done all the same.
    """
    left = [item.settings(where) for item in runs if not item.is_done(where)]
    if not left:
        return []
    out = Path(where.out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".sweep-") as name:
        plan = Path(name) / "plan"
        plan.write_text(json.dumps([asdict(s) for s in left]), encoding="utf-8")
        numbers = ",".join(map(str, range(len(left))))
        command = [
            "packe reproduce", "--multirun", f"plan={_quoted(plan)}", f"run={numbers}",
            f"hydra.sweep.dir={_quoted(Path(name).absolute())}", *_settings(launcher, jobs), *more,
        ]  # fmt: skip
        found = outcomes(_task, command, Path(name))
    failed = [o["error"] for o in found if "error" in o]
    gone = len(left) - len(found)
    return failed + ([f"{gone} runs ended without a word; start the command again"] if gone else [])


def _settings(launcher: str, jobs: int) -> list[str]:
    chosen = [f"hydra/launcher={launcher}"]
    if launcher == "joblib":
        return [*chosen, f"hydra.launcher.n_jobs={jobs}"]
    if launcher.startswith("submitit"):
        chosen.append(f"hydra.launcher.timeout_min={DAYS * 24 * 60}")
    if launcher == "submitit_local":
        # It starts all that it is given, each with its own copy of the model.
        chosen.append(f"hydra.sweeper.max_batch_size={jobs}")
    return chosen


def _quoted(path: Path) -> str:
    """As Hydra's grammar takes any text."""
    text = str(path.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
