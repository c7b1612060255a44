"""The comparison of all editors, run by run, over as many sessions as it takes.

    python benchmarks/comparison.py --zsre FILE --counterfact FILE --qaedit FILE --wikibigedit FILE --out FOLDER
    python benchmarks/comparison.py ... --dry-run      # what is done, and the commands of the rest
    python benchmarks/comparison.py ... --pack FILE    # the runs that are complete, as a study
    packe unpack benchmarks/results/single50.jsonl.zst FOLDER      # before the first, to go on with what is done

EasyEdit's HEAD has to be in EASYEDIT_HOME: the PyPI release has not all of these editors. Each run is one process with
one thread, `--workers` of them at a time. A run that was killed goes on where it stopped, and one that is done costs
nothing. An editor whose data sets are not all complete in a protocol is left out of the study, because rows with
different records never share a table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness import PACKE

from easyedit_packe.bench.archive import pack
from easyedit_packe.bench.editors import EDITORS
from easyedit_packe.bench.settings import Settings

IN_A_ROW = ("FT-C", "LoRA", "ROME", "MEMIT", "EMMET", "AlphaEdit", "UltraEdit", "GRACE", "PaCKE", "PaCKE+")
ON_QUESTIONS = ("In-context", "FT-C", "ROME", "UltraEdit", "GRACE", "PaCKE", "PaCKE+")


@dataclass(frozen=True)
class Part:
    """Runs of some editors on some data sets by one protocol."""

    protocol: str
    data: tuple[str, ...]
    editors: tuple[str, ...]
    n: int
    curve: tuple[int, ...] = ()
    answer_end: str = ""
    start: int = 0


PARTS = (
    Part("single", ("zsre", "counterfact"), tuple(EDITORS), 50),
    Part("consecutive", ("zsre", "counterfact"), IN_A_ROW, 50, (1, 10)),
    Part("consecutive", ("counterfact",), ("PaCKE+",), 100, (10, 50)),
    Part("single", ("counterfact",), ("FT-C", "PaCKE"), 50, answer_end="."),  # as PaCKE+ asks for it by itself
    Part("single", ("qaedit", "wikibigedit"), ON_QUESTIONS, 100, start=200),  # those before are for tuning
)


def settings(part: Part, data: str, editor: str, file: str, out: str) -> Settings:
    """One run."""
    return Settings(
        editor=editor, data=data, data_dir=file, protocol=part.protocol, n=part.n, start=part.start,
        curve=list(part.curve), answer_end=part.answer_end, label="ends" if part.answer_end else "", device="cpu",
        out=out,
    )  # fmt: skip


def command(s: Settings) -> list[str]:
    """The same, as `packe bench` takes it."""
    fields = ("editor", "data", "data_dir", "protocol", "n", "start", "curve", "answer_end", "label", "device", "out")
    values = {f: str(value).replace(" ", "") for f in fields if (value := getattr(s, f)) != ""}
    return ["bench", *(f"{key}={value}" for key, value in values.items())]


def done(s: Settings) -> bool:
    """Whether all records of a run have been measured after its last edit."""
    cases = s.folder / "cases.jsonl"
    if not cases.is_file() or (s.folder / "state.safetensors").is_file():
        return False
    return cases.read_bytes().count(b"\n") >= s.n + sum(s.curve)


def planned(files: dict[str, str], out: str) -> list[list[Settings]]:
    """The runs of each editor in each part, on the data sets whose files are given."""
    return [
        [settings(part, data, editor, files[data], out) for data in part.data if data in files]
        for part in PARTS for editor in part.editors
    ]  # fmt: skip


def complete(files: dict[str, str], out: str) -> list[Settings]:
    """The runs of those editors that are done on every data set of a part."""
    return [s for runs in planned(files, out) if all(map(done, runs)) for s in runs]


def pack_complete(files: dict[str, str], out: str, file: Path) -> int:
    """Write the study; how many rows it has."""
    with tempfile.TemporaryDirectory() as folder:
        for s in complete(files, out):
            for source in (s.folder, s.unedited_folder):
                target = Path(folder) / source.relative_to(out)
                if not target.exists():
                    shutil.copytree(source, target)
        return pack(Path(folder), file)


def go_on(commands: Sequence[Sequence[str]], total: int, workers: int, dry_run: bool) -> None:
    """Say how much of all runs is done, and run what is left, or show its commands."""
    sys.stdout.write(f"{total - len(commands)} of {total} runs are done\n")
    if dry_run:
        sys.stdout.write("".join(f"packe {' '.join(command)}\n" for command in commands))
        return
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda command: subprocess.run([*PACKE, *command], env=one_thread, check=False), commands))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    for data in dict.fromkeys(data for part in PARTS for data in part.data):
        parser.add_argument(f"--{data}", metavar="FILE")
    parser.add_argument("--out", default="runs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--pack", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    files = {k: v for part in PARTS for k in part.data if (v := getattr(arguments, k))}
    if arguments.pack:
        sys.stdout.write(f"{pack_complete(files, arguments.out, arguments.pack)} rows in {arguments.pack}\n")
        return
    runs = [s for of_editor in planned(files, arguments.out) for s in of_editor]
    left = [command(s) for s in runs if not done(s)]
    go_on(left, len(runs), arguments.workers, arguments.dry_run)


if __name__ == "__main__":
    main()
