"""Prompts and answers of the records, from the data files that the runs were made with: rows hold only case ids."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...data import FORMATS, Record, digest, read_records
from ..runs import Run

LOG = logging.getLogger(__name__)

Texts = dict[str, dict[Any, Record]]
"""By the digest of a data file, its records by case id."""


def find_texts(runs: Sequence[Run], data: Path) -> Texts:
    """Of each run's data file, if it is `data`, or lies below it under the name that it had; else a warning.

    A file whose bytes are others is another file: its prompts may not be those of the rows.
    """
    found: Texts = {}
    for run in runs:
        own, kind = run.identity.get("data_sha256", ""), run.identity["data"]
        if own in found or kind not in FORMATS:
            continue
        file = next((f for f in _files(run, data) if digest(f) == own), None)
        found[own] = {record.case_id: record for record in read_records(file, kind)} if file is not None else {}
        if file is None:
            LOG.warning(
                "no prompts of %s in the page: %s is not, and does not hold, the file %s that the runs were made with; "
                "give it with --data.", run.data, data, _stem(run),
            )  # fmt: skip
    return found


def _files(run: Run, data: Path) -> Iterator[Path]:
    own = FORMATS[run.identity["data"]].own
    if own is not None:
        yield own
    if data.is_file():
        yield data
    elif data.is_dir():
        yield from sorted(f for f in data.rglob(f"{_stem(run)}.*") if f.is_file())


def _stem(run: Run) -> str:
    """A run's folder is MODEL/DATA/PROTOCOL/NAME."""
    return run.folder.split("/")[-3]
