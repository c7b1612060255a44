"""A protocol as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .data import Record


@dataclass(frozen=True)
class Plan:
    """The requests of each call, whether calls are rolled back, and after how many calls to measure."""

    calls: list[list[Record]]
    rollback: bool
    measure_after: frozenset[int]


def plan(protocol: str, records: Sequence[Record], batch_size: int = 100, curve: Sequence[int] = ()) -> Plan:
    """single, batch, consecutive or epochs; see `Settings.protocol`."""
    records = list(records)
    size = {"single": 1, "consecutive": 1, "batch": batch_size, "epochs": len(records)}[protocol]
    calls = [records[i : i + size] for i in range(0, len(records), size)]
    if protocol == "consecutive":
        return Plan(calls, False, frozenset({*curve, len(calls)}))
    return Plan(calls, True, frozenset(range(1, len(calls) + 1)))
