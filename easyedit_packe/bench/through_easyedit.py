"""Edit a data set through EasyEdit's `BaseEditor` and say what came of it; behind `examples/run_*.py`."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..easyedit import parts
from ..errors import HyperParamsError
from ..registry import load_hparams, register
from .data import FORMATS, Probe, Record, read_records
from .editors import EDITORS

DATA_TYPES = {"ZsRE": "zsre", "CF": "counterfact", "MCF": "mcf"}
"""EasyEdit's names of data types."""


def _localities(post: dict[str, Any]) -> list[float]:
    """Of one record, each kind's."""
    return [float(np.mean(v)) for k, v in post.get("locality", {}).items() if k.endswith("_acc")]


def summarise(metrics: Sequence[dict[str, Any]], seconds: float, easyedit: str, **more: Any) -> dict[str, Any]:
    """Means of EasyEdit's own metrics after the edit.

    Returns:
        efficacy (`rewrite_acc`), generality (`rephrase_acc`), locality (mean of all `*_acc` under `locality`), each
        with its standard error, score (mean of the three), n, seconds_per_edit, easyedit. None where there is no value,
        as the standard error of a single one.
    """
    post = [m["post"] for m in metrics]
    values = {
        "efficacy": [float(np.mean(p["rewrite_acc"])) for p in post],
        "generality": [float(np.mean(p["rephrase_acc"])) for p in post if "rephrase_acc" in p],
        "locality": [float(np.mean(kinds)) for kinds in map(_localities, post) if kinds],
    }
    means = {k: float(np.mean(v)) if v else None for k, v in values.items()}
    errors = {f"{k}_se": float(np.std(v, ddof=1) / len(v) ** 0.5) if len(v) > 1 else None for k, v in values.items()}
    known = [mean for mean in means.values() if mean is not None]
    score = float(np.mean(known)) if len(known) == len(means) else None
    return {
        **means,
        "score": score,
        **errors,
        "n": len(post),
        "seconds_per_edit": seconds / max(len(post), 1),
        "easyedit": easyedit,
        **more,
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """EasyEdit prints and logs each record; a progress bar is enough."""
    logger = logging.getLogger("easyeditor")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


class Stopwatch:
    """Times a `BaseEditor`'s calls of its editing algorithm, and nothing else."""

    def __init__(self, editor: Any) -> None:
        self.seconds, self.calls = 0.0, 0
        apply_algo = editor.apply_algo

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return apply_algo(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self.calls += 1

        editor.apply_algo = timed


def edit_arguments(record: Record) -> dict[str, Any]:
    """One record as keyword arguments of `BaseEditor.edit`."""
    arguments = {
        "prompts": [record.prompt],
        "target_new": [record.target_new],
        "ground_truth": [record.former],
        "rephrase_prompts": list(record.rephrases[:1]) or None,
        "locality_inputs": _columns(record.localities),
        "portability_inputs": _columns(record.portability),
    }
    if record.stated_subject:
        arguments["subject"] = [record.stated_subject]
    return arguments


def _columns(kinds: Mapping[str, tuple[Probe, ...]]) -> dict[str, dict[str, list[list[str]]]]:
    """Lists inside the lists: EasyEdit measures all probes of the one request, of those that have an answer."""
    answered = {name: [p for p in probes if p.answers] for name, probes in kinds.items()}
    return {
        name: {"prompt": [[p.prompt for p in probes]], "ground_truth": [[p.answer for p in probes]]}
        for name, probes in answered.items()
        if probes
    }


def edit_records(editor: Any, records: Sequence[Record], sequential: bool = False) -> list[dict[str, Any]]:
    """EasyEdit's metrics of each record, measured right after its edit; with a progress bar.

    With `sequential` no edit is rolled back.
    """
    from tqdm import tqdm

    metrics = []
    for record in tqdm(records, desc=editor.alg_name, unit="edit"):
        with quiet():
            one, _, _ = editor.edit(**edit_arguments(record), sequential_edit=sequential, verbose=False)
        metrics.append({**one[0], "case_id": record.case_id})
    return metrics


def main(data_type: str, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """`examples/run_*.py`: EasyEdit's flags, EasyEdit's metrics, one summary."""
    parser = argparse.ArgumentParser(description=f"Edit {data_type} records one by one with any editor of EasyEdit.")
    parser.add_argument("--editing_method", default="PaCKE", help="PaCKE, or an editor that the EasyEdit found has")
    parser.add_argument(
        "--hparams_dir", default="smollm2-135m", help="YAML file, with or without .yaml, or a shipped name"
    )
    parser.add_argument("--data_dir", required=True, help="folder with the data file, or the file itself")
    parser.add_argument("--data_type", default=data_type, choices=[*DATA_TYPES, *FORMATS])
    parser.add_argument("--ds_size", type=int, help="how many records, from the first on (default: all)")
    parser.add_argument(
        "--sequential_edit", action="store_true",
        help="do not roll edits back; EasyEdit measures each right after it is made, so what later edits do to it does "
        "not show (packe bench protocol=consecutive measures after the last)",
    )  # fmt: skip
    parser.add_argument("--metrics_save_dir", default="./output", help="gets <method>_results.json and summary.json")
    args = parser.parse_args(argv)

    found = register()
    records = read_records(args.data_dir, DATA_TYPES.get(args.data_type, args.data_type), args.ds_size)
    settings_folder, algorithm = names_of(args.editing_method)
    hparams = load_hparams(settings_folder, args.hparams_dir)
    if hparams.alg_name != algorithm:
        raise HyperParamsError(
            f"--editing_method: expected {hparams.alg_name}, as {args.hparams_dir} says, got {args.editing_method}."
        )
    with quiet():
        editor = parts.base_editor().from_hparams(hparams)
    watch = Stopwatch(editor)
    metrics = edit_records(editor, records, args.sequential_edit)
    summary = summarise(
        metrics, watch.seconds, str(found),
        editor=args.editing_method, data=args.data_type,
        protocol="sequential, each measured right after its edit" if args.sequential_edit else "single",
        hparams=plain(hparams),
    )  # fmt: skip
    folder = Path(args.metrics_save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{args.editing_method}_results.json", metrics)
    _write(folder / "summary.json", summary)
    _print(summary, folder)
    return summary


def names_of(editor: str) -> tuple[str, str]:
    """The folder of an editor's hyper-parameters and EasyEdit's name of it, from either, or from a table's (FT-C)."""
    for known in EDITORS.values():
        if not (known.told or known.simie) and editor in (known.name, known.alg_name):
            return known.folder or known.alg_name, known.alg_name
    return editor, editor


def plain(hparams: Any) -> dict[str, Any]:
    return hparams.to_dict() if hasattr(hparams, "to_dict") else asdict(hparams)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=_number) + "\n", encoding="utf-8")


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value.tolist() if hasattr(value, "tolist") else str(value)


def _print(summary: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{summary['editor']} on {summary['data']}, n = {summary['n']}, {summary['protocol']}")
    for column in ("efficacy", "generality", "locality", "score", "seconds / edit"):
        table.add_column(column, justify="right")
    cells = [_cell(summary[k], summary[f"{k}_se"]) for k in ("efficacy", "generality", "locality")]
    table.add_row(*cells, _cell(summary["score"]), f"{summary['seconds_per_edit']:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{summary['easyedit']}; details in {folder}/", highlight=False)


def _cell(mean: float | None, error: float | None = None) -> str:
    return "/" if mean is None else f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"
