"""`packe trace`: what an edit would touch, before it is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..cache import written_whole
from ..errors import needs
from .facts import asked_for, settings_for
from .loading import loaded, spinner
from .options import (
    DEFAULT_MODEL,
    ChatTemplate,
    Dtype,
    Editor,
    HParams,
    ModelName,
    Prompt,
    RequestsFile,
    Subject,
    Target,
)


def trace(
    prompt: Prompt = None,
    target: Target = None,
    subject: Subject = None,
    requests: RequestsFile = None,
    model: ModelName = DEFAULT_MODEL,
    editor: Editor = None,
    hparams: HParams = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision to load the model in: that of the edit.")] = Dtype.AUTO,
    chat_template: ChatTemplate = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every node of T+ and T- there.")] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Draw the path there; of several facts, what they have in common.")
    ] = None,
) -> None:
    """Show which vectors an edit would change, layer by layer, without making it; and of several facts, which collide.

    Example: packe trace --prompt "The Eiffel Tower is located in the city of" --target Rome --png path.png

    Example: packe trace --requests facts.json --json trace.json
    """
    if png is not None:
        needs("matplotlib", "figures")
    asked = asked_for(prompt, target, subject, None, requests)
    settings = settings_for(hparams, editor, model)
    settings.use_chat_template |= chat_template
    from rich.console import Console

    from ..trace.document import document
    from ..trace.overlap import overlap
    from ..trace.text import one_fact, several_facts
    from ..trace.trace import require_packe, trace_requests, trace_together

    packe_settings = require_packe(settings)
    net, tok = loaded(model, dtype)
    with spinner(f"tracing {len(asked)} fact{'s' * (len(asked) > 1)}"):
        traces = trace_requests(net, tok, asked, settings)
        common = overlap(traces) if len(traces) > 1 else None
        in_one = common is not None and packe_settings.trace == "call"
        edit = [trace_together(net, tok, asked, settings)] if in_one else traces
    console = Console(highlight=False)
    with console.capture() as said:
        console.print(*(one_fact(traces[0]) if common is None else several_facts(common, edit)), sep="\n")
    typer.echo("\n".join(line.rstrip() for line in said.get().splitlines()))
    if json_file is not None:
        shown = [*traces, *edit] if in_one else traces
        with written_whole(json_file) as file:
            file.write_text(json.dumps(document(model, settings.to_dict(), edit, shown, common)), encoding="utf-8")
        typer.echo(f"wrote {json_file}")
    if png is not None:
        from ..trace.picture import draw_overlap, draw_path, save

        save(draw_path(traces[0]) if common is None else draw_overlap(common), png)
        typer.echo(f"wrote {png}")
