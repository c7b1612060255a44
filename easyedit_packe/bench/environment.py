"""Where rows were made: versions, hardware, commit."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("easyedit_packe", "torch", "transformers", "peft", "numpy")


def describe(easyedit: str) -> dict[str, Any]:
    """Versions, the commit of this package's checkout, and the hardware."""
    return {
        "easyedit": easyedit,
        # torch's own word: what is installed as 2.13.0 may be built for CUDA or for CPUs.
        "versions": {p: _version(p) for p in PACKAGES} | {"torch": str(torch.__version__)},
        "commit": _commit(),
        "hardware": _hardware(),
    }


def short_name(environment: dict[str, Any]) -> str:
    """By which rows say where they were made: the same name for the same environment."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:8]


def _version(package: str) -> str | None:
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """None without git, and in an installed copy, also where that lies below somebody else's repository."""
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
    return tracked and _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None


def _hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "gpu": gpu,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
