"""`packe edit` and `packe ask`: facts in, a patch or an adapter out; and what the model then says."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PatchError, RequestError
from .export import said
from .facts import asked_for, settings_for
from .loading import attach, dtype_of, is_quantised, loaded, require, rounded, spinner
from .options import (
    DEFAULT_MODEL,
    AsJson,
    ChatTemplate,
    Dtype,
    Editor,
    HParams,
    LoadIn,
    MaxRank,
    ModelName,
    NewPatch,
    Prompt,
    RequestsFile,
    Subject,
    Target,
)
from .places import may_write_adapter, may_write_patch

if TYPE_CHECKING:
    from ..patch import WeightPatch
    from ..patch.lora import LoraAdapter


def edit(
    out: NewPatch,
    prompt: Prompt = None,
    target: Target = None,
    subject: Subject = None,
    rephrase: Annotated[list[str] | None, typer.Option(help="Only measured. May be repeated.")] = None,
    requests: RequestsFile = None,
    model: ModelName = DEFAULT_MODEL,
    editor: Editor = None,
    hparams: HParams = None,
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Precision to load the model in, and of the patch; auto: as the checkpoint is stored. Changes are "
            "computed in float32 and rounded to it: bfloat16 rounds small ones away (of the paper's 1e-5 steps, most), "
            "float32 keeps all, and its patch then fits the model in float32 only."
        ),
    ] = Dtype.AUTO,
    load_in: LoadIn = None,
    max_rank: MaxRank = None,
    chat_template: ChatTemplate = False,
    as_json: AsJson = False,
) -> None:
    """Edit one fact, or many, and write the edit as a patch; the model itself is not changed.

    Beside quantised weights, of --load-in or as the model is stored, the edit is a PEFT adapter: --out is its folder.

    Example: packe edit --prompt "The Eiffel Tower is located in the city of" --target Rome --out rome.safetensors

    Example: packe edit --requests facts.json --model ./my-llama --hparams llama3-8b --out facts.safetensors

    Example: packe edit --editor PaCKE+ --subject "The Louvre" --prompt "{} is in" --target Rome --out rome.safetensors

    Example: packe edit --load-in 8bit --prompt "The Louvre is in" --target Rome --out ./rome-adapter
    """
    from ..editor import compute_adapter, compute_patch
    from ..model.chat import in_turn
    from ..model.config import max_tokens
    from ..model.generation import greedy, token_accuracy
    from ..patch import WeightPatch
    from ..requests import EditRequest, encode, read_requests

    asked = asked_for(prompt, target, subject, rephrase, requests)
    facts = read_requests(asked)
    paraphrases = [_paraphrases(request) for request in asked]
    if load_in is not None:
        may_write_adapter(out)
    elif not out.is_dir():  # whether it may be one only the model says
        may_write_patch(out)
    require(model)
    settings = settings_for(hparams, editor, model)
    settings.use_chat_template |= chat_template
    net, tok = loaded(model, dtype, load_in)
    if is_quantised(net):
        may_write_adapter(out)
    elif out.is_dir():
        may_write_patch(out)
    if max_rank is not None and not is_quantised(net):
        raise PatchError("--max-rank: it caps an adapter, which only a quantised model gets; cap it in `packe export`.")
    turn = partial(in_turn, tok) if settings.use_chat_template else str
    for f, texts in zip(facts, paraphrases, strict=True):  # said now, and not when the edit is made
        encode(tok, [EditRequest(turn(text), f.target) for text in (f.prompt, *texts)], max_tokens(net))
    before = [greedy(net, tok, turn(f.prompt)) for f in facts]
    made: WeightPatch | LoraAdapter
    with spinner(_what_takes_time(len(facts), settings.ALG)):
        if is_quantised(net):
            made = compute_adapter(net, tok, asked, settings, max_rank)
            attach(net, made.save(out))
        else:
            made = compute_patch(net, tok, asked, settings)
            made.apply(net)
    rows: list[dict[str, Any]] = [
        {
            "prompt": f.prompt,
            "target": f.target,
            "before": was,
            "after": greedy(net, tok, turn(f.prompt)),
            "efficacy": token_accuracy(net, tok, turn(f.prompt), f.target),
            "generality": [token_accuracy(net, tok, turn(p), f.target) for p in texts],
        }
        for f, texts, was in zip(facts, paraphrases, before, strict=True)
    ]
    if isinstance(made, WeightPatch):
        made.info["base_model"] = _named(model)
        made.info["metrics"] = [{k: r[k] for k in ("efficacy", "generality")} for r in rows]
        made.save(out)
        written = {"patch": str(out), "bytes": out.stat().st_size}
        written |= {name: made.info.get(name) for name in ("rounding", "rounded")}
        notes = [*rounded(made), f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)"]
    else:
        written = {"adapter": str(out), "bytes": sum(file.stat().st_size for file in out.iterdir())}
        notes = [f"wrote {out}: {said(made)}"]
    if as_json:
        typer.echo(json.dumps({**written, "edits": rows}))
        return
    for r, texts in zip(rows, paraphrases, strict=True):
        typer.echo(f"{r['prompt']}\n  before: {r['before']}\n  after:  {r['after']}")
        for p, share in zip(texts, r["generality"], strict=True):
            typer.echo(f"  {p}: {share:.0%} of the target's tokens")
    for note in notes:
        typer.echo(note)


def ask(
    prompt: Annotated[str, typer.Argument(help="Text to continue.", show_default=False)],
    patch: Annotated[
        list[Path] | None, typer.Option("--patch", "-p", help="Try with this edit. May be repeated.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Try with this PEFT adapter's folder.")] = None,
    model: ModelName = DEFAULT_MODEL,
    load_in: LoadIn = None,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens to say.")] = 12,
    chat_template: ChatTemplate = False,
    as_json: AsJson = False,
) -> None:
    """Let a model continue a text, greedily, with or without edits.

    Example: packe ask --patch rome.safetensors "The Eiffel Tower is located in the city of"

    Example: packe ask --adapter ./rome-adapter --load-in 8bit "The Louvre is in"
    """
    from ..model.chat import in_turn
    from ..model.generation import greedy
    from ..patch import WeightPatch

    edits = [WeightPatch.load(p) for p in patch or []]
    net, tok = loaded(model, dtype_of(edits[0]) if edits else "auto", load_in)
    for p in edits:
        p.apply(net)
    if adapter is not None:
        attach(net, adapter)
    answer = greedy(net, tok, in_turn(tok, prompt) if chat_template else prompt, tokens)
    typer.echo(json.dumps({"prompt": prompt, "answer": answer}) if as_json else answer)


def _named(model: str) -> str:
    """A folder's name as no name of the hub can be, from wherever the patch is looked at later."""
    given = Path(model)
    is_plain = given.is_dir() and not given.is_absolute() and not model.startswith((".", "~"))
    return f".{os.sep}{model}" if is_plain else model


def _paraphrases(request: dict[str, Any]) -> list[str]:
    """Prompts that are only measured; EasyEdit's files hold one, or several, or none. "{}" is the subject, as in the
    prompt."""
    given, subject = request.get("rephrase_prompt") or [], request.get("subject")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise RequestError(f"rephrase_prompt: expected a text, or a list of texts, got {given!r}.")
    return [text.replace("{}", subject) if subject else text for text in texts]


def _what_takes_time(facts: int, algorithm: str) -> str:
    once = "; the first edit of a model also lets it write background text, about two minutes on two cores" * (
        algorithm == "PaCKE+"
    )
    return f"editing {facts} fact{'s' * (facts > 1)}{once}"
