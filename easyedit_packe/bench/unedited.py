"""What the unedited model says: measured once for a model and data file, and kept beside the runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .archive import UNEDITED_KEY
from .data import Record
from .environment import short_name
from .measure import Measure, progress, together
from .metrics.text import PARTS, perplexities
from .session import Session
from .store import Rows, StoreError, only_one, read_json, write_json

OF = {
    "model_sha256": "model of that name",
    "data": "data=",
    "data_sha256": "data file of that name",
    "chat_template": "chat template",
}
"""What the rows are of: the text of a template around a prompt is empty where the model is asked without one."""

SINCE = ("data", "data_sha256")
"""Folders from before these were kept have neither."""


def unedited(
    folder: Path,
    session: Session,
    records: list[Record],
    measure: Measure,
    environment: dict[str, Any],
    asked_of: Mapping[str, str],
) -> dict[int, dict[str, Any]]:
    """A row for each case; those that are missing, or lack what greedy decoding says where that is asked for, are
    measured now. Rows that a judge has judged are kept beside the others, and are those of runs with this judge only.

    Args:
        asked_of: what must be equal for rows to be taken, see `OF`.

    Raises:
        StoreError: the folder belongs to another model or data file of that name, or to another template.
    """
    with only_one(folder, wait=True):
        rows = Rows(folder / "cases.jsonl", UNEDITED_KEY)
        here, file = short_name(environment), folder / "run.json"
        of = {key: value for key, value in asked_of.items() if value}
        about: dict[str, Any] = {key: of[key] for key in SINCE} | (read_json(file) if file.is_file() else of)
        for key, what in OF.items():
            there, now = about.get(key, ""), asked_of[key]
            if there != now:
                raise StoreError(
                    f"{folder} was measured with another {what} ({there!r} there, {now!r} now); take another out=."
                )
        if "perplexities" not in about:
            about["perplexities"] = {part: perplexities(session.model, session.tok, part) for part in PARTS}
        about["environments"] = about.get("environments", {}) | {here: environment}
        write_json(file, about)
        asked = measure.asks.name if measure.asks is not None else None
        enough = (True,) if measure.generation else (True, False)
        missing = {r.case_id for r in records if not any((r.case_id, have, asked) in rows for have in enough)}
        records = together(records, missing)
        measure = dataclasses.replace(measure, judged=missing)
        found = progress(
            measure.unedited(session.model, session.tok, records), f"unedited model, {folder.parent.name}", len(records)
        )
        for record, row in zip(records, found, strict=True):
            if record.case_id in missing:
                about_row = {"generation_measured": measure.generation, "environment": here}
                rows.append({"case_id": record.case_id, **about_row, **row})
        return {row["case_id"]: row for row in rows if row.get("judge") == asked}
