"""Measurements that go on where they stopped: one JSON file with the setting and the rows so far."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

import easyedit_packe


def versions() -> dict[str, str]:
    """What a setting says of where it was run."""
    return {
        "easyedit_packe": easyedit_packe.__version__, "torch": torch.__version__,
        "transformers": transformers.__version__, "machine": platform.machine(),
    }  # fmt: skip


def rows_so_far(file: Path, setting: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The rows under `key`, none without a file; the folder is there afterwards. Ends with another setting's file."""
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["setting"] != setting:
            raise SystemExit(f"{file} is of another setting: {kept['setting']}; give another file.")
        return kept[key]
    file.parent.mkdir(parents=True, exist_ok=True)
    return []


def write(file: Path, found: Mapping[str, Any]) -> None:
    """The whole of it anew."""
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
