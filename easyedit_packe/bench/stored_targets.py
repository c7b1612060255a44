"""Target vectors on disk: computed once for an unedited model, taken by every editor that needs the same ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..cache import cache_dir

Target = Tensor | tuple[Tensor, ...]


class StoredTargets(MutableMapping[str, Any]):
    """A store for `shared_targets`, in the user's cache, apart for each model.

    `saved_seconds` is what computing the vectors that were found here took when they were computed: a benchmark adds it
    to an editor's time, so that no editor looks faster for coming second. (A vector that is missing is computed between
    the question for it and its arrival.)
    """

    def __init__(self, model: str) -> None:
        self.folder = cache_dir() / "targets" / model
        self.saved_seconds = 0.0
        self._asked: dict[str, float] = {}

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def __contains__(self, key: object) -> bool:
        there = self._path(str(key)).is_file()
        if there:
            with safe_open(self._path(str(key)), "pt") as f:
                self.saved_seconds += float(f.metadata()["seconds"])
        else:
            self._asked[str(key)] = time.perf_counter()
        return there

    def __getitem__(self, key: str) -> Target:
        with safe_open(self._path(key), "pt") as f:
            values = tuple(f.get_tensor(str(i)) for i in range(int(f.metadata()["count"])))
            return values if f.metadata()["kind"] == "tuple" else values[0]

    def __setitem__(self, key: str, value: Target) -> None:
        values = value if isinstance(value, tuple) else (value,)
        seconds = time.perf_counter() - self._asked.pop(key, time.perf_counter())
        about = {"count": str(len(values)), "seconds": str(seconds)}
        about["kind"] = "tuple" if isinstance(value, tuple) else "tensor"
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({str(i): v.detach().cpu().contiguous() for i, v in enumerate(values)}, beside, metadata=about)
        beside.replace(path)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (p.stem for p in self.folder.glob("[!.]*.safetensors"))

    def __len__(self) -> int:
        return sum(1 for _ in self)
