"""Second moments of feed-forward activations, saved where EasyEdit looks for them before it downloads Wikipedia.

ROME, MEMIT and all that follows from them need `C = E[k k^T]` [M, M], where k [M] is the input of a layer's value
module. EasyEdit measures it on a dump of Wikipedia; here it comes from a text file or from the model's own samples.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from ..cache import cache_dir, digest, written_whole
from ..errors import EasyEditError, ModelError, RequestError
from ..model.ffn import FFNMap
from ..model.hooks import ends_with, frozen, output_hooks
from ..model.kept import Kept
from ..model.sampling import beginning, continued

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLES = 100_000
"""`mom2_n_samples` of nearly every YAML of EasyEdit. Only part of a file name: the note beside it has the truth."""


def stats_dir() -> Path:
    """Where statistics are kept, and what an empty `stats_dir` in a YAML means."""
    return cache_dir() / "stats"


def model_names(model: PreTrainedModel) -> tuple[str, str]:
    """The folder names that HEAD and the PyPI release give a model: the last part of its path, and all of it.

    Raises:
        ModelError: the model has no name; EasyEdit would then write to the root of the file system.
    """
    path = model.config._name_or_path.rstrip("/")
    if not path:
        raise ModelError(
            "expected a model that was loaded by name or path, got one whose config._name_or_path is empty; "
            "set it to any name, EasyEdit files statistics under it."
        )
    return path.rsplit("/")[-1], path.replace("/", "_")


def stats_files(
    model: PreTrainedModel,
    module_name: str,
    root: str | Path | None = None,
    samples: int = SAMPLES,
    dtype: str = "float32",
    dataset: str = "wikipedia",
) -> list[Path]:
    """The files of one module's statistics: HEAD's, then the PyPI release's (one file where they agree)."""
    file = f"{module_name}_{dtype}_mom2_{samples}.npz"
    root = Path(root) if root else stats_dir()
    return list(dict.fromkeys(root / name / f"{dataset}_stats" / file for name in model_names(model)))


def find_stats(model: PreTrainedModel, module_name: str, hparams: Any) -> Path:
    """The file of statistics that an editor's hyper-parameters ask for.

    Raises:
        EasyEditError: there is none; the message has the command that makes it.
    """
    files = stats_files(
        model, module_name, hparams.stats_dir, hparams.mom2_n_samples, hparams.mom2_dtype, hparams.mom2_dataset
    )
    for file in files:
        if file.is_file():
            return file
    raise missing_stats(hparams, files[0])


def missing_stats(hparams: Any, file: Path | None = None) -> EasyEditError:
    layers = ",".join(map(str, getattr(hparams, "layers", [])))
    root = getattr(hparams, "stats_dir", None)
    where = f" --stats-dir {root}" if root and Path(root) != stats_dir() else ""
    return EasyEditError(
        f"{hparams.alg_name} needs second-moment statistics of layers {layers}"
        + (f" ({file} is not there)" if file else "")
        + "; EasyEdit would now download Wikipedia. Make them with "
        f"`packe stats --model {hparams.model_name} --layers {layers} --corpus TEXT_FILE{where}`, "
        "or with `--corpus self` from text that the model itself writes."
    )


def load_moment(file: Path) -> Tensor:
    """C = E[k k^T], [M, M].

    Raises:
        EasyEditError: the file is damaged.
    """
    try:
        with np.load(file) as saved:
            return torch.from_numpy(saved["mom2.mom2"]) / int(saved["mom2.count"])
    except (BadZipFile, KeyError, ValueError, EOFError) as e:
        raise EasyEditError(f"{file}: no whole statistics ({e}); make them anew by `packe stats`.") from None


def compute_stats(
    model: PreTrainedModel,
    tok: Any,
    corpus: str | Path = "self",
    layers: Sequence[int] | None = None,
    *,
    tokens: int = 60_000,
    length: int = 128,
    batch_size: int = 32,
    seed: int = 0,
    samples: int = SAMPLES,
    root: str | Path | None = None,
) -> dict[int, Path]:
    """Measure `sum k k^T` over a text, for all layers in one pass, and save it for both releases of EasyEdit.

    The model, its flags and the random state come out as they went in.

    Args:
        corpus: a text file (UTF-8), or "self": text sampled from the model, from `seed`, which takes longer than all
            else, and is kept in the cache for further layers.
        layers: decoder layers; None takes all. One file holds M x M float32 numbers.
        tokens: at most so many are read or sampled. Far more than M are needed for C to have full rank.
        length: tokens in one sequence.
        batch_size: sequences in one forward pass.
        samples: the number in the file's name, `mom2_n_samples` of the YAML.
        root: folder in place of `stats_dir()`.

    Returns:
        Layer to file. A JSON beside each file says what text it really comes from.

    Raises:
        ModelError: unknown architecture or no name. RequestError: no such file or layer, or too short a text.
    """
    ffn = FFNMap.of(model)
    ffn.require_dense("EasyEdit's MEMIT family, which reads these statistics,")
    values = {m.layer: m for m in ffn.modules if m.kind == "value"}
    layers = sorted(values) if layers is None else sorted(set(layers))
    if not layers or not set(layers) <= set(values):
        raise RequestError(f"layers: expected some of 0 to {len(values) - 1}, got {layers}; correct --layers.")
    files = {layer: stats_files(model, values[layer].name, root, samples) for layer in layers}
    about: dict[str, Any] = {"model": model.config._name_or_path, "length": length}
    with frozen(model), torch.no_grad():
        if str(corpus) == "self":
            how = [tokens, length, batch_size, seed]
            ids = Kept(model, tok).get("samples", how, lambda: {"ids": sample_text(model, tok, *how)})["ids"]
            about |= {"corpus": "sampled from the model itself", "seed": seed}
        else:
            ids = _read_text(Path(corpus), tok, tokens, length)
            about |= {"corpus": Path(corpus).name, "sha256": digest(Path(corpus))}
        sums = _second_moments(model, {i: values[i].module for i in layers}, ids, batch_size)
    about |= {
        "tokens": ids.numel(),
        "note": f"The names 'wikipedia' and '{samples}' are what EasyEdit looks for; the text is the corpus above.",
    }
    for layer, total in sums.items():
        _save(total, ids.numel(), samples, about, files[layer])
    return {layer: paths[0] for layer, paths in files.items()}


def sample_text(model: PreTrainedModel, tok: Any, tokens: int, length: int, batch_size: int, seed: int) -> Tensor:
    """Sequences [n, length] from the model at temperature 1, each started from a token drawn at random."""
    special = set(tok.all_special_ids)
    ordinary = torch.tensor([i for i in range(min(len(tok), model.config.vocab_size)) if i not in special])
    begin = torch.tensor([beginning(tok)] * batch_size, dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    rows: list[Tensor] = []
    while len(rows) * batch_size * length < tokens:
        first = ordinary[torch.randint(len(ordinary), (batch_size, 1), generator=generator)]
        rows.append(continued(model, torch.cat([begin, first], dim=1), length, generator))
    return torch.cat(rows)[: max(1, tokens // length)]


def _read_text(path: Path, tok: Any, tokens: int, length: int) -> Tensor:
    if not path.is_file():
        raise RequestError(f"--corpus: expected a text file or `self`, got {str(path)!r}, which is no file.")
    ids: list[int] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            ids += tok(line, add_special_tokens=False)["input_ids"] if line.strip() else []
            if len(ids) >= tokens:
                break
    rows = min(len(ids), tokens) // length
    if not rows:
        raise RequestError(f"{path}: expected at least {length} tokens, got {len(ids)}; give a longer text.")
    return torch.tensor(ids[: rows * length]).view(rows, length)


def _second_moments(
    model: PreTrainedModel, modules: dict[int, nn.Module], ids: Tensor, batch_size: int
) -> dict[int, Tensor]:
    """{layer: sum over tokens of k k^T [M, M], float32}."""
    sums: dict[int, Tensor] = {}

    def add(layer: int, x: Tensor) -> None:
        x = x.detach().flatten(0, -2).float()
        sums[layer] = torch.addmm(sums[layer], x.T, x) if layer in sums else x.T @ x

    hooks = [(module, lambda x, _, layer=layer: add(layer, x)) for layer, module in modules.items()]
    with output_hooks(hooks):
        for rows in ids.split(batch_size):
            with ends_with(modules[max(modules)]):
                model.base_model(input_ids=rows.to(model.device), use_cache=False)
    return sums


def _save(total: Tensor, count: int, samples: int, about: dict[str, Any], files: list[Path]) -> None:
    """As EasyEdit's `CombinedStat(mom2=SecondMoment())` saves itself; the second file is a link to the first."""
    first = files[0]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"mom2.count": count, "mom2.mom2": total.cpu().numpy(), "sample_size": samples}
    with written_whole(first) as part, part.open("wb") as stream:  # to a name, numpy would add another ending
        np.savez(stream, **arrays)
    first.with_suffix(".json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in files[1:]:
        with written_whole(file) as part:
            try:
                os.link(first, part)
            except OSError:  # a file system without links
                shutil.copyfile(first, part)
