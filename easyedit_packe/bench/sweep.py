"""Runs through Hydra's launchers: several, maybe in other processes, and what came of each."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig


def note(outcome: dict[str, str]) -> None:
    """Keep what came of a run, for `outcomes`, in whatever process it is."""
    with tempfile.NamedTemporaryFile("w", dir=HydraConfig.get().sweep.dir, suffix=".json", delete=False) as f:
        json.dump(outcome, f)


def outcomes(task: Callable[[], Any], arguments: Sequence[str], folder: Path) -> list[dict[str, str]]:
    """Run a Hydra task with a command line, and give what its runs noted.

    Args:
        arguments: the program's name first; among them `hydra.sweep.dir`, which is the folder.
        folder: empty, but for files that are no JSON.
    """
    argv = sys.argv
    sys.argv = list(arguments)
    try:
        task()
    finally:
        sys.argv = argv
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
