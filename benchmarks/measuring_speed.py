"""How long measuring a record takes, against version 0.1.0 and its code, for the metrics that both have.

    git worktree add old-version v0.1.0
    python benchmarks/measuring_speed.py --old old-version --zsre zsre_mend_eval.json \
        --counterfact counterfact-edit.json --json benchmarks/results/speed/measuring-cpu.json

EasyEdit's metrics, ROME's, and what the model says freely after the prompt and one paraphrase. The two versions are two
processes with a thread each, which take turns, after an edit that is not measured. Seconds are those of the processor,
which hardly depend on what else the machine does. EasyEdit's and ROME's figures have to be the same; those of free
answers are not, because 0.1.0 cut them at a comma and after a few tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
DATA = {"zsre": "ZsRE", "counterfact": "CF"}
"""Names of data sets, and version 0.1.0's."""
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--old", type=Path, required=True, help="a checkout of version 0.1.0")
    parser.add_argument("--zsre", required=True)
    parser.add_argument("--counterfact", required=True)
    parser.add_argument("--n", type=int, default=8, help="records of each data set")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--version", choices=VERSIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.version:
        answer(args)
        return
    results: dict[str, Any] = {"model": MODEL, "n": args.n}
    with Version("old", args.old) as old, Version("new", Path(__file__).parent.parent) as new:
        for data in DATA:
            results[data] = compared(old, new, data, args.n)
            print(data, json.dumps(results[data]))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def compared(old: Version, new: Version, data: str, n: int) -> dict[str, float]:
    """Medians of a record's seconds by each way of measuring, and 0.1.0's over each.

    Raises:
        SystemExit: a figure that both have is not the same.
    """
    seconds: dict[str, list[float]] = {"old": [], "alone": [], "together": [], "everything": []}
    rows: dict[str, Rows] = {name: [] for name in seconds}
    for i in range(n):
        for name, version in (("old", old), ("alone", new)):
            took, found = version.ask(data, name, i, i + 1)
            seconds[name].append(took)
            rows[name] += found
    for name in ("together", "everything"):
        took, rows[name] = new.ask(data, name, 0, n)
        seconds[name].append(took / n)
    for name in ("alone", "together"):
        if rows[name] != rows["old"]:
            different = [pair for pair in zip(rows["old"], rows[name], strict=True) if pair[0] != pair[1]]
            sys.exit(f"{data}, {name}: not the same figures: {different[0]}")
    medians = {f"{name}_seconds": statistics.median(took) for name, took in seconds.items()}
    ratios = {name: medians["old_seconds"] / medians[f"{name}_seconds"] for name in seconds if name != "old"}
    return {**medians, **{f"old_over_{name}": ratio for name, ratio in ratios.items()}}


class Version:
    """A version of this package, in a process of its own that measures when it is asked to."""

    def __init__(self, name: str, checkout: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], "--version", name],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def __enter__(self) -> Version:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def ask(self, *question: object) -> tuple[float, Rows]:
        """Seconds, and the figures of each record."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        for line in self.process.stdout:
            if line.startswith("{"):
                found = json.loads(line)
                return found["seconds"], found["rows"]
        raise RuntimeError(f"the process ended with {self.process.wait()}")


# --- in the process of a version ----------------------------------------------------------------------------------


def answer(args: argparse.Namespace) -> None:
    ways = VERSIONS[args.version]({"zsre": args.zsre, "counterfact": args.counterfact}, args.n)
    for line in sys.stdin:
        data, way, start, stop = json.loads(line)
        begun = time.process_time()
        rows = ways[way](data, slice(start, stop))
        print(json.dumps({"seconds": time.process_time() - begun, "rows": rows}), flush=True)


Ways = dict[str, Callable[[str, slice], Rows]]


def old_version(files: dict[str, str], n: int) -> Ways:
    from easyedit_packe.easyedit.compat import bridged
    from easyedit_packe.evaluation import metrics
    from easyedit_packe.evaluation.datasets import read_records
    from easyedit_packe.models import load

    from easyedit_packe import PaCKEHyperParams, apply_packe_to_model, register

    register()
    model, tok = load(MODEL)
    hparams = PaCKEHyperParams.from_hparams(MODEL)
    hparams.device, tok.padding_side = "cpu", "left"
    records = {data: read_records(file, DATA[data], n) for data, file in files.items()}
    edit(apply_packe_to_model, model, tok, records, hparams)

    def measured(data: str, some: slice) -> Rows:
        rows = []
        for record in records[data][some]:
            with bridged(hparams):
                found = metrics.easyedit_quality(model, tok, record, hparams)
            row = {"easyedit": [found["efficacy"], found["generality"], found["locality_output"]]}
            row["rome"] = metrics.rome_family(model, tok, record, DATA[data])
            metrics.generation_family(model, tok, record)
            rows.append(row)
        return rows

    return {"old": measured}


def new_version(files: dict[str, str], n: int) -> Ways:
    import dataclasses

    from easyedit_packe import PaCKEHyperParams, apply_packe_to_model, register
    from easyedit_packe.bench.data import FORMATS, Record, read_records
    from easyedit_packe.bench.measure import Measure
    from easyedit_packe.model.load import load

    register()
    model, tok = load(MODEL)
    records = {data: read_records(Path(file), data, n) for data, file in files.items()}
    edit(apply_packe_to_model, model, tok, records, PaCKEHyperParams.from_hparams(MODEL))

    class Before(Record):
        """What 0.1.0 measured of a record: one paraphrase, and no other questions about the subject."""

        distracting = ()

    def as_before(record: Record) -> Record:
        few = {"subject": None, "rephrases": record.rephrases[:1], "portability": {}}
        return Before(**{f.name: getattr(record, f.name) for f in dataclasses.fields(record)} | few)

    def found(data: str, some: slice, view: Callable[[Record], Record] = as_before) -> Rows:
        measure = Measure(FORMATS[data].compares, generation=True)
        return list(measure.unedited(model, tok, [view(record) for record in records[data][some]]))

    def plain(data: str, some: slice) -> Rows:
        return [dict(figures(row)) for row in found(data, some)]

    def figures(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        (said,) = row["kept"]["said"]["locality"].values()
        yield "easyedit", [row["easyedit"]["efficacy"], row["easyedit"]["generality"], said]
        yield "rome", row["rome"]

    def everything(data: str, some: slice) -> Rows:
        return found(data, some, lambda record: record) and []

    return {"alone": plain, "together": plain, "everything": everything}


def edit(apply: Any, model: Any, tok: Any, records: dict[str, Any], hparams: Any) -> None:
    """One fact of each data set, which stays."""
    for some in records.values():
        request = {"prompt": some[0].prompt, "target_new": some[0].target_new, "subject": some[0].subject}
        apply(model, tok, [request], hparams)


VERSIONS = {"old": old_version, "new": new_version}

if __name__ == "__main__":
    main()
