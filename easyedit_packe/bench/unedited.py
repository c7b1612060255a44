"""What the unedited model says: measured once for a model and data file, and kept beside the runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .archive import UNEDITED_KEY
from .data import Record
from .environment import short_name
from .measure import Measure, progress, together
from .metrics.text import PARTS, perplexities
from .session import Session
from .store import Rows, StoreError, only_one, read_json, write_json


def unedited(
    folder: Path,
    session: Session,
    records: list[Record],
    measure: Measure,
    environment: dict[str, Any],
    template: str = "",
) -> dict[int, dict[str, Any]]:
    """A row for each case; those that are missing, or lack what greedy decoding says where that is asked for, are
    measured now. Rows that a judge has judged are kept beside the others, and are those of runs with this judge only.

    Args:
        template: the chat template's text around a prompt, where the model is asked through one.

    Raises:
        StoreError: the folder belongs to another model of that name, or to another template.
    """
    with only_one(folder, wait=True):
        rows = Rows(folder / "cases.jsonl", UNEDITED_KEY)
        here, file = short_name(environment), folder / "run.json"
        same = {"model_sha256": session.digest, **({"chat_template": template} if template else {})}
        about: dict[str, Any] = read_json(file) if file.is_file() else same
        if about["model_sha256"] != session.digest:
            raise StoreError(f"{folder} was measured on another model of that name; take another out=.")
        if about.get("chat_template", "") != template:
            raise StoreError(
                f"{folder} was measured with another chat template ({about.get('chat_template')!r} there, {template!r} "
                "now); take another out=."
            )
        if "perplexities" not in about:
            about["perplexities"] = {part: perplexities(session.model, session.tok, part) for part in PARTS}
        about["environments"] = about.get("environments", {}) | {here: environment}
        write_json(file, about)
        asked = measure.asks.name if measure.asks is not None else None
        enough = (True,) if measure.generation else (True, False)
        missing = {r.case_id for r in records if not any((r.case_id, have, asked) in rows for have in enough)}
        records = together(records, missing)
        found = progress(
            measure.unedited(session.model, session.tok, records), f"unedited model, {folder.parent.name}", len(records)
        )
        for record, row in zip(records, found, strict=True):
            if record.case_id in missing:
                about_row = {"generation_measured": measure.generation, "environment": here}
                rows.append({"case_id": record.case_id, **about_row, **row})
        return {row["case_id"]: row for row in rows if row.get("judge") == asked}
