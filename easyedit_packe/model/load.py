"""Models with their tokenisers: loaded by name or folder, or already in memory under any name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .fetch import DEFAULT_MODEL, SOURCES, fetch


class LoadedModel(str):
    """A model in memory under any name, to be given to EasyEdit as `model_name`.

    EasyEdit chooses how to load by the name, and unpacks whatever is not exactly a `str` as (model, tokeniser);
    its metrics then call `.lower()` on the name. This is a name that unpacks.

        hparams.model_name = LoadedModel("my-model", model, tok)
    """

    model: Any
    tok: Any

    def __new__(cls, name: str, model: Any, tok: Any) -> LoadedModel:
        self = super().__new__(cls, name)
        self.model, self.tok = model, tok
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.tok))

    def __deepcopy__(self, memo: dict) -> LoadedModel:
        return self


def load(name_or_path: str = DEFAULT_MODEL, **options: Any) -> tuple[Any, Any]:
    """(model, tokeniser) of a fetched model, a folder or a hub name; `options` go to `from_pretrained`."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(_place(name_or_path), **options)
    tok = tokeniser_of(name_or_path)
    if tok.pad_token_id is None:
        tok.pad_token_id = tok.eos_token_id
    return model, tok


def tokeniser_of(name_or_path: str) -> Any:
    """A model's tokeniser as it is stored."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(_place(name_or_path))


def _place(name_or_path: str) -> str:
    return str(fetch(name_or_path)) if name_or_path in SOURCES else name_or_path
