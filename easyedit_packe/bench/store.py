"""Rows on disk: appended one by one, safe against being killed at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..cache import written_whole
from ..errors import PaCKEError


class StoreError(PaCKEError, RuntimeError):
    """A run's folder is in use, or holds something else."""


class Rows:
    """A JSONL file with one row for each key; the first row of a key counts.

    Each row is one `write` followed by `fsync`. A kill can leave at most one truncated last line, which the next
    opening cuts off; the work behind it is done again.
    """

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self.path, self.key = path, key
        self.rows: dict[tuple, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        whole, good = _whole_rows(path)
        os.truncate(path, good)
        for row in whole:
            self.rows.setdefault(self._key(row), row)

    def _key(self, row: dict[str, Any]) -> tuple:
        return tuple(row.get(k) for k in self.key)

    def __contains__(self, key: tuple) -> bool:
        return key in self.rows

    def __getitem__(self, key: tuple) -> dict[str, Any]:
        return self.rows[key]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows.values())

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the rows that are not `wanted`; the file is either the old one or the new one, never half of one."""
        kept = {key: row for key, row in self.rows.items() if wanted(row)}
        if len(kept) < len(self.rows):
            with written_whole(self.path) as part:
                part.write_bytes(b"".join(map(as_line, kept.values())))
            self.rows = kept

    def append(self, row: dict[str, Any]) -> None:
        """Add a row unless its key is there."""
        if self._key(row) in self.rows:
            return
        self.rows[self._key(row)] = row
        with self.path.open("ab") as f:
            f.write(as_line(row))
            f.flush()
            os.fsync(f.fileno())


def read_rows(path: Path, key: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a file as `Rows` has them, without touching the file."""
    rows: dict[tuple, dict[str, Any]] = {}
    for row in _whole_rows(path)[0] if path.is_file() else []:
        rows.setdefault(tuple(row.get(k) for k in key), row)
    return list(rows.values())


def _whole_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows up to the first that is not whole, and how many bytes they take."""
    rows, good = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:  # also what is not UTF-8
            row = None
        if not isinstance(row, dict):
            break
        rows.append(row)
        good += len(line)
    return rows, good


def as_line(row: dict[str, Any]) -> bytes:
    """A row as a file of rows holds it."""
    return (json.dumps(row, ensure_ascii=False, default=_plain) + "\n").encode("utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object's values.

    Raises:
        StoreError: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise StoreError(f"{path} is damaged ({e}); remove its folder, and run it again.") from e
    if not isinstance(found, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(found).__name__}; remove its folder.")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is either the old one or the new one, never half of one."""
    with written_whole(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    for convert in ("item", "tolist"):
        if hasattr(value, convert):
            try:
                return getattr(value, convert)()
            except (RuntimeError, ValueError):
                continue
    return str(value)


@contextmanager
def only_one(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a run's folder; the hold ends with the process, however that ends.

    Raises:
        StoreError: another process holds it, and `wait` is off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise StoreError(
                f"another process is at work in {folder}; wait for it, or give this one another out=."
            ) from None
        yield
