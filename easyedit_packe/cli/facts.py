"""Facts and settings as the commands are given them: by options, or from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HyperParamsError, RequestError

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
    if prompt is not None or target is not None:
        raise RequestError("expected either --requests or --prompt and --target, got both.")
    try:
        text = file.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip()]
        requests = [json.loads(line) for line in lines] if file.suffix == ".jsonl" else json.loads(text)
    except (OSError, ValueError) as e:
        raise RequestError(f"{file} is not readable as JSON: {e}.") from None
    if not isinstance(requests, list):
        raise RequestError(f"{file}: expected a JSON list of requests, got {type(requests).__name__}.")
    return requests


def settings_for(name: str | None, editor: str, model: str) -> HyperParams:
    """Hyper-parameters from a file, or else the ones that are shipped for the model's name."""
    from ..config import load_hparams

    if name is not None:
        settings = load_hparams(name, editor)
    else:
        try:
            settings = load_hparams(Path(model).name, editor)
        except HyperParamsError as e:
            raise HyperParamsError(
                f"no hyper-parameters are shipped for {model!r}; name some with --hparams. {e}"
            ) from e
    settings.device, settings.model_name = None, model
    return settings
