"""What a real run needs and this machine has not, with what to do about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ...easyedit.statistics import stats_files
from ...model.fetch import SOURCES
from ..data import FORMATS, DataError, find_file
from .models import weights_here
from .parts import Part
from .plan import Where, hyper_parameters


@dataclass(frozen=True)
class Need:
    """One thing that is not here."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def missing(parts: Sequence[Part], where: Where) -> list[Need]:
    """Of the weights, the data files, the second moments of the MEMIT family, and a GPU; nothing is fetched."""
    found = []
    weights = weights_here(where)
    if weights is None:
        found.append(
            Need(
                f"the weights of {where.name}",
                "give --weights a folder with them, or a hub name (owner/name), which the run then downloads",
            )
        )
    for data in dict.fromkeys(data for part in parts for data in part.data):
        try:
            find_file(where.files.get(data, ""), data)
        except DataError:
            names = " or ".join(FORMATS[data].files[:2])
            found.append(Need(f"the data set {data}", f"give --{data} the file {names}"))
    found += _statistics(parts, where, weights)
    import torch

    if not torch.cuda.is_available():
        found.append(Need("a GPU", "on a CPU everything runs as well, and takes far longer"))
    return found


def blocking(needs: Sequence[Need]) -> list[Need]:
    """Those without which nothing can be run."""
    return [need for need in needs if need.what != "a GPU"]


def _statistics(parts: Sequence[Part], where: Where, weights: str | None) -> list[Need]:
    """One command for all layers that have none; of a fetched model the benchmark makes them itself."""
    if weights in SOURCES:
        return []
    path = weights or where.weights or "WEIGHTS"
    model: Any = SimpleNamespace(config=SimpleNamespace(_name_or_path=path))
    layers: dict[int, list[str]] = {}
    for editor in dict.fromkeys(editor for part in parts for editor in part.editors):
        h = hyper_parameters(editor, where)
        if getattr(h, "mom2_adjustment", False):
            for layer in h.layers:
                name = h.rewrite_module_tmp.format(layer)
                files = stats_files(model, name, h.stats_dir, h.mom2_n_samples, h.mom2_dtype, h.mom2_dataset)
                if not all(file.is_file() for file in files):
                    layers.setdefault(layer, []).append(editor)
    if not layers:
        return []
    who = list(dict.fromkeys(editor for editors in layers.values() for editor in editors))
    listed = ",".join(map(str, sorted(layers)))
    root = f" --stats-dir {where.stats_dir}" if where.stats_dir else ""
    return [
        Need(
            f"second moments of layers {listed}, for {', '.join(who)}",
            f"packe stats --model {path} --layers {listed} --corpus TEXT_FILE --tokens 1000000{root}",
        )
    ]
