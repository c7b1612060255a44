"""Target vectors on disk: computed once for an unedited model, taken by every editor that needs the same ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..cache import cache_dir, written_whole

Target = Tensor | tuple[Tensor, ...]


class StoredTargets:
    """A store for `shared_targets`, in the user's cache, apart for each model.

    Attributes:
        saved_seconds: what computing the vectors that were found here took when they were computed. A benchmark adds
            it to an editor's time, so that no editor looks faster for coming second.
        asked: whether any vector was asked for. What memory it takes to compute one is then not known: a run that was
            killed and resumed finds what it has computed before.
    """

    def __init__(self, model: str) -> None:
        self.folder = cache_dir() / "targets" / model
        self.saved_seconds = 0.0
        self.asked = False

    def __call__(self, key: str, compute: Callable[[], Target]) -> Target:
        """The vectors of this key: found here, or computed and kept."""
        self.asked = True
        file = self.folder / f"{key}.safetensors"
        if file.is_file():
            value, seconds = _read(file)
            self.saved_seconds += seconds
            return value
        start = time.perf_counter()
        value = compute()
        _write(file, value, time.perf_counter() - start)
        return value


def _read(file: Path) -> tuple[Target, float]:
    with safe_open(file, "pt") as f:
        about = f.metadata()
        values = tuple(f.get_tensor(str(i)) for i in range(int(about["count"])))
    return values if about["kind"] == "tuple" else values[0], float(about["seconds"])


def _write(file: Path, value: Target, seconds: float) -> None:
    values = value if isinstance(value, tuple) else (value,)
    kind = "tuple" if isinstance(value, tuple) else "tensor"
    about = {"count": str(len(values)), "seconds": str(seconds), "kind": kind}
    with written_whole(file) as part:
        save_file({str(i): v.detach().cpu().contiguous() for i, v in enumerate(values)}, part, metadata=about)
