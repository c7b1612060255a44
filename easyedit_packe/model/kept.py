"""What is made once of a model stays in the user's cache: making it takes longer than many edits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..cache import cache_dir, written_whole
from .bits import weights_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VERSION = 2
"""Of what is measured, and how: another one is measured anew."""

LARGEST = 0.5
"""Size of what is kept, as a share of the model's: of a large model more would be written than anybody expects."""

MOST = 8
"""Files of a kind; those that were last needed longest ago go. An edited model is a model of its own."""


class Kept:
    """What is kept of a model as it is now: all its weights are read once, for however many things are asked for."""

    def __init__(self, model: PreTrainedModel, tok: Any) -> None:
        self._model, self._tok = model, tok

    @cached_property
    def _of(self) -> list[Any]:
        config = {k: str(v) for k, v in self._model.config.to_dict().items() if not k.startswith("_")}
        config.pop("transformers_version", None)
        how = self._tok("How it reads: 1,234 words.")["input_ids"]
        return [VERSION, weights_digest(self._model), config, how, self._tok.get_vocab()]

    def get(self, kind: str, settings: Sequence[Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `make` gives, or once gave for this very model and tokeniser, and these settings (plain values)."""
        key = json.dumps([*settings, *self._of], sort_keys=True)
        file = cache_dir() / kind / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
        with suppress(OSError, SafetensorError):  # what is not there, or not whole, is made anew
            found = load_file(file)
            file.touch()
            return found
        made = make()
        if sum(t.nbytes for t in made.values()) <= LARGEST * sum(p.nbytes for p in self._model.parameters()):
            with suppress(OSError, SafetensorError), written_whole(file) as part:  # unwritten, it costs time, no edit
                save_file({name: t.contiguous() for name, t in made.items()}, part)
            _only_newest(file.parent)
        return made


def _only_newest(folder: Path) -> None:
    with suppress(OSError):
        files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in files[MOST:]:
            old.unlink()
