"""The rows of the paper's figures 4 to 6, run by run, over as many sessions as it takes; and the pictures of the docs.

    python benchmarks/figures.py --zsre FILE... --counterfact FILE... --out FOLDER   # dev and paper files, for example
    python benchmarks/figures.py ... --dry-run          # what is done, and the commands of the rest
    packe pack FOLDER benchmarks/results/sweeps.jsonl.zst
    make tables
    python benchmarks/figures.py --draw                 # docs/images/*.svg, from the archives

Each run is one process with one thread, `--workers` of them at a time. A run that was killed goes on where it stopped,
and one that is done costs nothing. The shipped settings are a point of both sweeps, and are run once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison import done as edited
from comparison import go_on

from easyedit_packe.bench.figures import write_figures
from easyedit_packe.bench.settings import Settings

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
DATA = ("zsre", "counterfact")
SWEEPS: dict[str, tuple[str, tuple[float, ...]]] = {
    "num_critical_paths": ("nodes", (15, 0, 1, 5, 50, 200, 1536)),  # 1536 are all of the default model's
    "contrast_weight": ("lambda", (0, 0.01, 1, 10, 100)),  # and 0.1, with the 15 nodes above
}
"""Hyper-parameter, what stands before its value in a label, and its values."""
FACTS = 100
"""That are scored for figure 4."""
PICTURES = {
    "costs": ("seconds", "FT-C,LoRA,KN,ROME,R-ROME,MEMIT,PMET,EMMET,PRUNE,RECT,AlphaEdit,PaCKE"),
    "sweeps": ("importance,nodes,contrast", ""),
    "single50": ("curve,tradeoff", ""),
}
"""By archive, the figures of it that the docs show, and of which editors; PaCKE+ of `costs` had other settings."""


@dataclass(frozen=True)
class Task:
    """One command, and its settings."""

    command: tuple[str, ...]
    settings: Settings
    is_done: bool


def tasks(files: dict[str, Sequence[str]], out: str, protocols: Sequence[str], n: int) -> Iterator[Task]:
    """Scores first, then the sweeps, protocol by protocol."""
    given = [(data, file) for data in DATA for file in files.get(data, ())]
    for data, file in given:
        s = Settings(data=data, data_dir=file, n=FACTS, device="cpu", out=out)
        rows = s.model_folder / "importance" / "PaCKE" / "nodes.jsonl"
        yield Task(_command("importance", s, []), s, rows.is_file() and rows.read_bytes().count(b"\n") >= FACTS)
    for protocol in protocols:
        for data, file in given:
            for parameter, (name, values) in SWEEPS.items():
                for value in values:
                    s = Settings(
                        data=data, data_dir=file, n=n, device="cpu", out=out, protocol=protocol,
                        label=f"{name}{value}", hparams={parameter: value},
                    )  # fmt: skip
                    more = [f"protocol={protocol}", "generation=false", f"label={s.label}"]
                    yield Task(_command("bench", s, [*more, f"+hparams.{parameter}={value}"]), s, edited(s))


def _command(name: str, s: Settings, more: Sequence[str]) -> tuple[str, ...]:
    values = {key: getattr(s, key) for key in ("data", "data_dir", "n", "device", "out")}
    return name, *(f"{key}={value}" for key, value in values.items()), *more


def draw(folder: Path) -> list[Path]:
    """The pictures of the docs, as SVG; a figure for which an archive has no rows yet is left out."""
    with tempfile.TemporaryDirectory() as drawn:
        for archive, (names, editors) in PICTURES.items():
            file = ROOT / "benchmarks" / "results" / f"{archive}.jsonl.zst"
            wanted = tuple(f"{name}-" for name in names.split(","))
            for svg in write_figures([file], Path(drawn), editors.split(",") if editors else ()).files:
                if svg.suffix == ".svg" and svg.name.startswith(wanted):
                    shutil.copy(svg, folder)
    return sorted(folder.glob("*.svg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    for data in DATA:
        parser.add_argument(f"--{data}", metavar="FILE", nargs="+", default=[])
    parser.add_argument("--out", default="runs")
    parser.add_argument("--protocols", nargs="+", default=["single", "consecutive"])
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    if arguments.draw:
        sys.stdout.write("".join(f"{file.relative_to(ROOT)}\n" for file in draw(IMAGES)))
        return
    all_tasks = list(tasks(vars(arguments), arguments.out, arguments.protocols, arguments.n))
    left = [task.command for task in all_tasks if not task.is_done]
    go_on(left, len(all_tasks), arguments.workers, arguments.dry_run)


if __name__ == "__main__":
    main()
