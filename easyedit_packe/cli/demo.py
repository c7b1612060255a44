"""`packe demo`: a page on this computer to edit a model on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import HyperParamsError, needs
from .facts import settings_for
from .loading import loaded
from .options import DEFAULT_MODEL, ModelName

if TYPE_CHECKING:
    from ..config import HyperParams

PORT = 7860


def demo(
    model: ModelName = DEFAULT_MODEL,
    hparams: Annotated[str | None, typer.Option(help="Shipped name of hyper-parameters; default: the model's.")] = None,
    port: Annotated[int, typer.Option(help="Where the page is; 0 for any free one.")] = PORT,
) -> None:
    """Open a page on this computer: type a fact, edit, compare answers, take the edit back, download it.

    Only this computer can open it, and it needs no network. Ctrl-C ends it.

    Example: packe demo

    Example: packe demo --model ./my-llama --hparams llama3-8b --port 8000
    """
    needs("gradio", "demo")
    from ..demo.serve import bound, server
    from ..demo.sessions import SharedModel

    place = bound(port)
    settings = editors_for(hparams, model)
    net, tok = loaded(model)
    serving = server(SharedModel(net, tok, settings, model))
    typer.echo(f"Open http://127.0.0.1:{place.getsockname()[1]} in a browser on this computer. Ctrl-C ends it.")
    serving.run(sockets=[place])


def editors_for(hparams: str | None, model: str) -> dict[str, HyperParams]:
    """The editors that have hyper-parameters for a model, with these.

    Raises:
        HyperParamsError: none has.
    """
    found: dict[str, HyperParams] = {}
    for editor in ("PaCKE", "PaCKE+"):
        try:
            found[editor] = settings_for(hparams, editor, model)
        except HyperParamsError as e:
            missing = e
    if not found:
        raise missing
    return found
