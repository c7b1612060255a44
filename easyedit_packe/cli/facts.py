"""Facts and settings as the commands are given them: by options, or from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HyperParamsError, RequestError, one_of

if TYPE_CHECKING:
    from ..config import HyperParams


def asked_for(
    prompt: str | None, target: str | None, subject: str | None, rephrase: Sequence[str] | None, file: Path | None
) -> list[dict[str, Any]]:
    """EasyEdit requests, from the options or from a file."""
    if file is None:
        if prompt is None or target is None:
            raise RequestError("expected --prompt and --target, or --requests with a JSON file.")
        return [{"prompt": prompt, "target_new": target, "subject": subject, "rephrase_prompt": rephrase}]
    if not prompt is target is subject is None or rephrase:
        raise RequestError("expected either --requests, or --prompt, --target, --subject and --rephrase, got both.")
    where = str(file)
    try:
        text = file.read_text(encoding="utf-8")
        requests = json.loads(text) if file.suffix != ".jsonl" else []
        for number, line in enumerate(text.splitlines() if file.suffix == ".jsonl" else (), 1):
            where = f"{file}, line {number},"
            requests += [json.loads(line)] if line.strip() else []
    except (OSError, ValueError, RecursionError) as e:
        raise RequestError(f"{where} is not readable as JSON: {e}.") from None
    if not isinstance(requests, list):
        raise RequestError(f"{file}: expected a JSON list of requests, got {type(requests).__name__}.")
    return requests


def settings_for(name: str | None, editor: str | None, model: str) -> HyperParams:
    """Hyper-parameters from a file, or else the ones that are shipped for the model's name.

    Raises:
        HyperParamsError: there are none, or they are another editor's than the one that is asked for.
    """
    from ..config import HyperParams, load_hparams
    from ..config.files import shipped_dir

    if editor is not None and editor not in HyperParams.algorithms:
        raise HyperParamsError(f"--editor: {one_of(editor, list(HyperParams.algorithms))}; got {editor!r}.")
    if name is not None:
        settings = load_hparams(name, editor or "PaCKE")
        if editor not in (None, settings.alg_name):
            raise HyperParamsError(f"--editor: expected {settings.alg_name}, as {name} says, got {editor}; give one.")
    else:
        editor, called = editor or "PaCKE", Path(model).resolve().name if Path(model).exists() else Path(model).name
        file = shipped_dir() / editor / f"{called}.yaml"
        if not file.is_file():
            names = sorted(path.stem for path in file.parent.glob("*.yaml"))
            raise HyperParamsError(
                f"no hyper-parameters of {editor} are shipped for {model!r} ({one_of(called, names)}); name some with "
                "--hparams."
            )
        settings = load_hparams(file, editor)
    settings.device, settings.model_name = None, model
    return settings
