"""`packe reproduce`: the paper's tables for one model, on the machine that can run it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import PaCKEError, needs


def reproduce(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[hydra.KEY=VALUE]...", help="For the launcher, such as hydra.launcher.partition=gpu."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="gpt-j-6B, llama-7b, llama3-8b, or any name in hparams/.")
    ] = "llama3-8b",
    weights: Annotated[
        str | None,
        typer.Option(help="Its folder, or its hub name, which a run downloads. Default: --model, if a folder."),
    ] = None,
    zsre: Annotated[str | None, typer.Option(help="zsre_mend_eval.json, or a folder with it.")] = None,
    counterfact: Annotated[str | None, typer.Option(help="counterfact-edit.json, or a folder with it.")] = None,
    gpu_hours: Annotated[
        float | None,
        typer.Option(min=0, help="At most so many, by estimate: fewer records, or fewer editors. Default: no limit."),
    ] = None,
    parts: Annotated[
        str, typer.Option(help="figure3, table1, table2, table2-program, with commas. Default: all of the paper.")
    ] = "",
    editors: Annotated[str, typer.Option(help="Only these, with commas. Default: all of the paper.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try all of it on a tiny random model, on a CPU, without a network.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be run, and run nothing.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the runs and tables.")] = Path("reproduce"),
    dtype: Annotated[
        str, typer.Option(help="float32, as EasyEdit loads models; bfloat16 and float16 round small edits away.")
    ] = "float32",
    stats_dir: Annotated[
        Path | None, typer.Option(help="Second moments. Default: this package's cache, where `packe stats` puts them.")
    ] = None,
    launcher: Annotated[str, typer.Option(help="basic, joblib, submitit_local or submitit_slurm: Hydra's.")] = "basic",
    jobs: Annotated[int, typer.Option(help="Runs at a time, each on a GPU of its own.")] = 1,
    gpu: Annotated[
        str | None, typer.Option(help="For the estimate: a100-40gb, a100-80gb, h100, h200, l40s, rtx4090.")
    ] = None,
    tflops: Annotated[float | None, typer.Option(help="For the estimate: 10^12 operations a second.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="For the estimate: GB a second.")] = None,
    memory: Annotated[float | None, typer.Option(help="For the estimate: GB of the GPU.")] = None,
) -> None:
    """Run tables 1 and 2 and figure 3 of the paper for a model, and show the paper's figures beside.

    It says first what it will run, how long that takes and how much memory, by estimate. Killed at any moment, the
    same command goes on where it stopped; runs that are done cost nothing.

    Example: packe reproduce --model llama3-8b --dry-run

    Example: packe reproduce --model llama3-8b --weights /models/llama3 --zsre F --counterfact F --gpu-hours 8

    Example: packe reproduce --model gpt-j-6B --weights W --zsre F --counterfact F --launcher joblib --jobs 4
    """
    for package in ("hydra", "pandas", "tabulate", "zstandard"):
        needs(package, "bench")
    if dry_run:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the library is imported
    from ..bench.reproduce import launch
    from ..bench.reproduce.budget import choose
    from ..bench.reproduce.costs import Cost, cost
    from ..bench.reproduce.machine import BYTES, machine
    from ..bench.reproduce.models import configuration, sizes
    from ..bench.reproduce.needs import blocking, missing
    from ..bench.reproduce.plan import Item, hyper_parameters, planned
    from ..bench.reproduce.tables import write_tables
    from ..bench.reproduce.text import assumptions, needs_text, plan_text

    where = _where(model, weights, {"zsre": zsre, "counterfact": counterfact}, out, dtype, stats_dir)
    if dtype not in BYTES:
        from ..bench.settings import Settings

        Settings(dtype=dtype, data="demo").check()
    launch.check(launcher, jobs)
    on, size = machine(gpu, tflops, bandwidth, memory), sizes(configuration(where))
    chosen_parts, left = planned(where, _listed(parts), _listed(editors))
    hparams: dict[str, Any] = {}

    def price(item: Item) -> Cost:
        if item.editor not in hparams:
            hparams[item.editor] = hyper_parameters(item.editor, where)
        return cost(item, hparams[item.editor], size, on, dtype)

    chosen = choose(chosen_parts, price, on.memory * 1e9, gpu_hours)
    typer.echo(plan_text(chosen, left, where, on, size, gpu_hours))
    typer.echo(f"\n{assumptions()}")
    lacks = missing(chosen_parts, where)
    if lacks:
        typer.echo(f"\n{needs_text(lacks)}")
    if dry_run:
        sys.exit(_tried(where, chosen_parts))
    if plan:
        return
    stops = blocking(lacks)
    if stops:
        named = ", ".join(need.what for need in stops)
        raise PaCKEError(f"expected what is not here: {named}. See above what to do, or try --dry-run.")
    runs = [item for item, _ in chosen.runs]
    failed = launch.run_all(runs, where, launcher, jobs, arguments or [])
    typer.echo(f"\n{write_tables(chosen_parts, [*left, *chosen.left], runs, where)}", nl=False)
    for error in failed:
        typer.echo(f"packe reproduce: failed: {error}", err=True)
    sys.exit(1 if failed else 0)


def _tried(where: Any, parts: Any) -> int:
    """The exit code of a dry run."""
    from ..bench.reproduce.dry_run import dry_run

    typer.echo(f"\nDry run: every step on a tiny random model of {where.name}'s architecture, two records a run.")
    trials = dry_run(where, parts, typer.echo)
    failed = sum(bool(trial.reason) for trial in trials)
    total = sum(trial.seconds for trial in trials)
    typer.echo(f"{len(trials) - failed} of {len(trials)} steps are ok, in {total:.0f} s.")
    return 1 if failed else 0


def _where(
    model: str, weights: str | None, files: dict[str, str | None], out: Path, dtype: str, stats_dir: Path | None
) -> Any:
    """A folder as `--model` is the weights, and its name the model's; else the weights may be where the model's own
    hyper-parameters say, as EasyEdit's files have it."""
    from ..bench.reproduce.plan import Where, as_folder
    from ..config import PaCKEHyperParams
    from ..errors import HyperParamsError
    from ..model.fetch import SOURCES

    if weights is None and Path(model).is_dir():
        weights, model = model, Path(model).resolve().name
    elif weights is None and model in SOURCES:
        weights = model
    elif weights is None:
        try:
            named = Path(str(PaCKEHyperParams.from_hparams(model).model_name))
        except HyperParamsError as e:
            raise PaCKEError(f"--model: {e}") from None
        weights = str(named) if named.is_dir() else None
    if weights is not None and Path(weights).exists():
        weights = as_folder(weights)
    return Where(
        name=model,
        weights=weights,
        files={data: as_folder(file) for data, file in files.items() if file is not None},
        out=as_folder(out),
        dtype=dtype,
        stats_dir=as_folder(stats_dir) if stats_dir else None,
    )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
