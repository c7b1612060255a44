"""How long measuring a record takes, against version 0.1.0 and its code, for the metrics that both have.

    git worktree add old-version v0.1.0
    python benchmarks/measuring_speed.py --old old-version --zsre zsre_mend_eval.json \
        --counterfact counterfact-edit.json --json benchmarks/results/speed/measuring-cpu.json

EasyEdit's metrics, ROME's, and what the model says freely after the prompt and one paraphrase. "single" measures each
record after its own edit, which is then rolled back; "consecutive" measures all records after the last of their edits,
which stay. "everything" is consecutive, with all that is measured today. Edits are PaCKE's and not timed.

The two versions are two processes with a thread each, which take turns. Seconds are those of the processor, which
hardly depend on what else the machine does. EasyEdit's and ROME's figures have to be the same, to the digit. Those of
free answers are not compared: 0.1.0 cut them at a comma, and today's may take 50 tokens.
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
from importlib import import_module
from importlib.metadata import version
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
    results: dict[str, Any] = {
        "model": MODEL,
        "n": args.n,
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    with Version("old", args.old) as old, Version("new", Path(__file__).parent.parent) as new:
        for data in DATA:
            results[data] = compared(old, new, data, args.n)
            print(data, json.dumps(results[data]))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def compared(old: Version, new: Version, data: str, n: int) -> dict[str, float]:
    """Seconds a record by each way of measuring, the median of records where each is measured by itself; and how many
    times as long version 0.1.0 takes.

    Raises:
        SystemExit: a figure that both have is not the same.
    """
    seconds: dict[str, list[float]] = {}
    for way, calls in (("single", [[i, i + 1] for i in range(n)]), ("consecutive", [[0, n]])):
        rows: dict[str, Rows] = {}
        for call in calls:
            for name, process in (("old", old), ("new", new)):
                took, found = process.ask(way, data, *call)
                seconds.setdefault(f"{way}_{name}", []).append(took / len(found))
                rows.setdefault(name, []).extend(found)
        for pair in zip(rows["old"], rows["new"], strict=True):
            if pair[0] != pair[1]:
                sys.exit(f"{data}, {way}: not the same figures: {pair}")
    took, _ = new.ask("everything", data, 0, n)
    medians = {name: statistics.median(each) for name, each in seconds.items()} | {"everything": took / n}
    ratios = {way: medians[f"{way}_old"] / medians[f"{way}_new"] for way in ("single", "consecutive")}
    return {**medians, **{f"{way}_old_over_new": ratio for way, ratio in ratios.items()}}


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
    """Edit and measure whenever a line on the standard input asks for it."""
    model, tok, hparams, records, measures = VERSIONS[args.version](
        {name: getattr(args, name) for name in DATA}, args.n
    )
    from easyedit_packe import apply_packe_to_model

    for line in sys.stdin:
        way, data, start, stop = json.loads(line)
        some, patches = records[data][start:stop], []
        for record in some if way != "everything" else []:
            request = {"prompt": record.prompt, "target_new": record.target_new, "subject": record.subject}
            _, originals = apply_packe_to_model(model, tok, [request], hparams, return_orig_weights=True)
            patches.append(originals.patch)
        begun = time.process_time()
        rows = measures["everything" if way == "everything" else "before"](data, some)
        seconds = time.process_time() - begun
        for patch in reversed(patches if way == "single" else []):
            patch.revert(model)
        print(json.dumps({"seconds": seconds, "rows": rows}), flush=True)


Measures = dict[str, Callable[[str, Any], Rows]]
Parts = tuple[Any, Any, Any, dict[str, Any], Measures]
"""Model, tokeniser, hyper-parameters, records by data set, and what measures them."""


def old_version(files: dict[str, str], n: int) -> Parts:
    compat, metrics, datasets, models = (
        import_module(f"easyedit_packe.{name}")
        for name in ("easyedit.compat", "evaluation.metrics", "evaluation.datasets", "models")
    )
    from easyedit_packe import PaCKEHyperParams, register

    register()
    model, tok = models.load(MODEL)
    hparams = PaCKEHyperParams.from_hparams(MODEL)
    hparams.device, tok.padding_side = "cpu", "left"

    def before(data: str, records: Any) -> Rows:
        rows = []
        for record in records:
            with compat.bridged(hparams):
                found = metrics.easyedit_quality(model, tok, record, hparams)
            row = {"easyedit": [found["efficacy"], found["generality"], found["locality_output"]]}
            row["rome"] = metrics.rome_family(model, tok, record, DATA[data])
            metrics.generation_family(model, tok, record)
            rows.append(row)
        return rows

    records = {data: datasets.read_records(file, DATA[data], n) for data, file in files.items()}
    return model, tok, hparams, records, {"before": before}


def new_version(files: dict[str, str], n: int) -> Parts:
    import dataclasses

    from easyedit_packe import PaCKEHyperParams, register
    from easyedit_packe.bench.data import FORMATS, Record, read_records
    from easyedit_packe.bench.measure import Measure
    from easyedit_packe.model.load import load

    register()
    model, tok = load(MODEL)

    class Before(Record):
        """What 0.1.0 measured of a record: one paraphrase, and no other questions about the subject."""

        distracting = ()

    def everything(data: str, records: Any) -> Rows:
        measure = Measure(FORMATS[data].compares, generation=True)
        return list(measure.unedited(model, tok, records))

    def before(data: str, records: Any) -> Rows:
        few = [{"subject": None, "rephrases": r.rephrases[:1], "portability": {}} for r in records]
        kept = [{f.name: getattr(r, f.name) for f in dataclasses.fields(r)} for r in records]
        rows = everything(data, [Before(**a | b) for a, b in zip(kept, few, strict=True)])
        return [dict(figures(row)) for row in rows]

    def figures(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        (said,) = row["kept"]["said"]["locality"].values()
        yield "easyedit", [row["easyedit"]["efficacy"], row["easyedit"]["generality"], said]
        yield "rome", row["rome"]

    records = {data: read_records(Path(file), data, n) for data, file in files.items()}
    hparams = PaCKEHyperParams.from_hparams(MODEL)
    return model, tok, hparams, records, {"before": before, "everything": everything}


VERSIONS = {"old": old_version, "new": new_version}

if __name__ == "__main__":
    main()
