"""Where a run was made: versions, hardware, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("easyedit_packe", "torch", "transformers", "peft", "numpy")


def describe() -> dict[str, Any]:
    """Versions, the commit of this package's checkout, and the hardware."""
    return {"versions": {p: _version(p) for p in PACKAGES}, "commit": _commit(), "hardware": _hardware()}


def _version(package: str) -> str | None:
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent, capture_output=True, text=True,
    )  # fmt: skip
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
