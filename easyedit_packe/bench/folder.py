"""A run's folder: what was run, and its rows; only ever those of one run, each made by the call that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .environment import short_name
from .plan import Plan
from .store import Rows, StoreError, read_json, write_json


class RunFolder:
    """`run.json` (what was run, and the environments that rows name), `edits.jsonl` (one row a call: seconds, peak
    bytes, weights changed, perplexity) and `cases.jsonl` (one row a measured record).

    Args:
        identity: what must be equal for a run to be continued.
        about: what else `run.json` says.
        environment: where the rows of this process are made.

    Raises:
        StoreError: the folder holds another run, or a longer one.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], plan: Plan, about: Mapping[str, Any], environment: dict[str, Any]
    ) -> None:
        self.path, self.plan = path, plan
        self.environment = short_name(environment)
        file, environments = path / "run.json", {self.environment: environment}
        identity = json.loads(json.dumps(identity, default=str))
        # Without a row it holds nothing yet, as when the editor refused a setting: the mended command may go on.
        begun = any((path / name).is_file() and (path / name).stat().st_size for name in ("edits.jsonl", "cases.jsonl"))
        there = read_json(file) if begun and file.is_file() else {}
        if there:
            self._require_same(there["identity"], identity)
            environments = there.get("environments", {}) | environments
        self.edits = Rows(path / "edits.jsonl", ("call",))
        self.cases = Rows(path / "cases.jsonl", ("after", "case_id"))
        if there.get("num_records", 0) > about["num_records"]:
            self._require_all_done(there["num_records"], about["num_records"])
            return
        self._keep_rows_of()
        write_json(file, {"identity": identity, **about, "environments": environments})

    def _require_same(self, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differs = sorted(k for k in {*there, *now} if there.get(k) != now.get(k))
        if differs:
            detail = "; ".join(f"{k}: {_difference(there.get(k), now.get(k))}" for k in differs)
            raise StoreError(
                f"{self.path} holds another run ({detail}). Add label=NAME, take another out=, or remove that folder."
            )

    def _require_all_done(self, there: int, asked: int) -> None:
        """A shorter run than the one there may only be read: its calls need not be those of the longer one."""
        if not (self._made_as_planned().issuperset(range(len(self.plan.calls))) and self.is_complete):
            raise StoreError(
                f"{self.path} holds a run of {there} records, of which the calls for {asked} are not all done, or are "
                f"made with more; ask for n={there}, add label=NAME, or remove that folder."
            )

    @property
    def is_complete(self) -> bool:
        return all(self.is_done(i) for i in range(len(self.plan.calls)))

    def _made_as_planned(self) -> set[int]:
        """Calls that have a row, made with the records that the plan gives them."""
        records = dict(enumerate([record.case_id for record in call] for call in self.plan.calls))
        return {row["call"] for row in self.edits if row["case_ids"] == records.get(row["call"])}

    def _keep_rows_of(self) -> None:
        """Drop calls that this run makes with other records, as the last batch of a shorter run, and their cases.

        Cases go first: were the process killed in between, the call would still be found, and dropped, next time.
        """
        made = self._made_as_planned()
        self.cases.keep(lambda row: row["call"] in made)
        self.edits.keep(lambda row: row["call"] in made)

    def add_edit(self, row: dict[str, Any]) -> None:
        self.edits.append({**row, "environment": self.environment})

    def add_case(self, call: int, row: dict[str, Any]) -> None:
        self.cases.append({**row, "call": call, "environment": self.environment})

    def unmeasured(self, case_ids: Sequence[int], after: int) -> Iterator[int]:
        """Those that have no row after so many edits."""
        return (i for i in case_ids if (after, i) not in self.cases)

    def is_done(self, call: int) -> bool:
        """Whether a call that is rolled back was made, and all its records measured."""
        asked = [record.case_id for record in self.plan.calls[call]]
        return (call,) in self.edits and not any(True for _ in self.unmeasured(asked, 0))


def _difference(there: Any, now: Any) -> str:
    """Of two mappings only the entries that differ."""
    if isinstance(there, dict) and isinstance(now, dict):
        keys = sorted(k for k in {*there, *now} if there.get(k) != now.get(k))
        there, now = ({k: side.get(k) for k in keys} for side in (there, now))
    return f"{there!r} there, {now!r} now"
