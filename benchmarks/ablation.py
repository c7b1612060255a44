"""PaCKE+'s options, each alone and all but one, on dev records.

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
    "prefix_contexts": {"prefix_contexts": 0},
    "subject_contexts": {"subject_contexts": 0},
    "null_space": {"null_space": 0.0},
    "memory": {"memory_size": 0, "replay": 0},
    "replay": {"replay": 0},
}
"""Each option, and what switches it off."""

SINGLY = ("write_at", "layers", "value_nodes", "prefix_contexts", "subject_contexts", "null_space")
IN_A_ROW = ("memory", "replay")
WEAR = ("layers", "value_nodes", "null_space")

RUNS = [
    ("counterfact", "single", 8, SINGLY),
    ("zsre", "consecutive", 16, IN_A_ROW),
    ("counterfact", "consecutive", 16, WEAR),
]
"""Data set, protocol, records: where each option is meant to help. CounterFact's subjects do not come twice, so what
wears off there in a row is locality and perplexity."""


def variants(options: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label and overrides: everything, nothing, each option alone, all but one."""
    on = FULL.to_dict()
    nothing = {field: value for off in OFF.values() for field, value in off.items()}
    yield "", {}
    yield "none", nothing
    for option in options:
        needed = set(OFF[option]) | ({"memory_size"} if option == "replay" else set())
        needed |= {"null_space"} if option == "memory" else set()
        yield f"only-{option}", nothing | {field: on[field] for field in needed}
    for option in options:
        yield f"without-{option}", OFF[option]


def overrides(fields: dict[str, Any]) -> list[str]:
    """As `packe bench` takes them."""
    return [f"+hparams.{field}={'null' if value is None else value}" for field, value in fields.items()]


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
