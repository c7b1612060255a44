"""PaCKE+ without each of its options in turn, on dev records.

    python benchmarks/ablation.py --data_dir DATA --out runs/ablation
    packe pack runs/ablation benchmarks/results/ablation.jsonl.zst
    make tables

DATA holds `zsre/zsre_dev_1k.json` and `counterfact/counterfact_dev_1k.json`. Finished runs in OUT are kept, so the same
command goes on where it was stopped; what follows these flags goes to every run (`n=2`, `device=cpu`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easyedit_packe import PaCKEPlusHyperParams

FULL = PaCKEPlusHyperParams.from_hparams("smollm2-135m")

OFF: dict[str, dict[str, Any]] = {
    "write_at": {"write_at": "all"},
    "layers": {"layers": None},
    "value_nodes": {"value_nodes": FULL.num_critical_paths},  # as few as key nodes
    "answer_end": {"answer_end": ""},
    "prefix_contexts": {"prefix_contexts": 0},
    "orders": {"orders": 0},
    "subject_contexts": {"subject_contexts": 0},
    "relations": {"relations": 0},
    "likeness": {"relations": 0, "likeness": 1.0},  # what states the same relation is held against the edit
    "context_share": {"context_share": 1.0},  # neutral contexts have to hold all
    "contrast": {"contrast": 0.0},
    "elsewhere": {"elsewhere": 0.0},
    "null_space": {"null_space": 0.0},
    "outputs": {"outputs": 0.0},
    "memory": {"memory_size": 0, "replay": 0},
    "replay": {"replay": 0},
}
"""Each option, and what switches it off."""

RUNS = [
    ("counterfact", "single", 16, tuple(option for option in OFF if option not in ("memory", "replay"))),
    ("counterfact", "consecutive", 16, ("elsewhere", "memory")),
    ("zsre", "consecutive", 16, ("memory", "replay")),
]
"""Data set, protocol, records, options: where each is meant to help. ZsRE has subjects that come twice."""


def variants(options: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label and overrides: everything, and all but one."""
    yield "", {}
    for option in options:
        yield f"without-{option}", OFF[option]


def overrides(fields: dict[str, Any]) -> list[str]:
    """As `packe bench` takes them."""
    empty = {None: "null", "": "''"}
    return [f"+hparams.{field}={empty.get(value, value)}" for field, value in fields.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", choices=["zsre", "counterfact"], help="only this data set")
    args, more = parser.parse_known_args()
    for data, protocol, n, options in RUNS:
        if args.data not in (None, data):
            continue
        for label, fields in variants(options):
            file = args.data_dir.resolve() / data / f"{data}_dev_1k.json"
            settings = [f"data={data}", f"data_dir={file}", f"protocol={protocol}", f"n={n}", f"label={label}"]
            settings += [f"out={args.out.resolve()}", *overrides(fields), *more]
            print(f"{data} {protocol} {label or 'full'}", flush=True)
            packe = str(Path(sys.executable).with_name("packe"))
            subprocess.run([packe, "bench", "editor=PaCKE+", *settings], check=True)


if __name__ == "__main__":
    main()
