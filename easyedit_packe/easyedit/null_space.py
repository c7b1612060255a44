"""AlphaEdit's projection onto directions that ordinary text hardly uses."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..cache import cache_dir, digest, written_whole
from ..errors import HyperParamsError
from .statistics import find_stats, load_moment

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOG = logging.getLogger(__name__)


def null_space(moment: Tensor, threshold: float) -> Tensor:
    """P = U U^T [M, M], U the eigenvectors of C = E[k k^T] with an eigenvalue below `threshold`."""
    values, vectors = torch.linalg.eigh(moment.double())
    u = vectors[:, values < threshold]
    return (u @ u.T).float()


def projection_file(model: PreTrainedModel, hparams: Any) -> Path:
    """File with P of each of `hparams.layers` [layers, M, M]: the one of `P_loc` where it exists, or else one in the
    user's cache, made on the first call.

    That one is named after the model, the layers, the threshold and the content of the statistics.

    Raises:
        EasyEditError: there are no statistics of a layer.
        HyperParamsError: the file of `P_loc` holds something else.
    """
    if hparams.P_loc and Path(hparams.P_loc).is_file():
        return _checked(Path(hparams.P_loc), model, hparams)
    if hparams.P_loc:
        LOG.warning("P_loc: there is no file %s; the projection is taken from the cache instead.", hparams.P_loc)
    stats = [find_stats(model, hparams.rewrite_module_tmp.format(layer), hparams) for layer in hparams.layers]
    key = repr((hparams.layers, float(hparams.nullspace_threshold), [digest(file) for file in stats]))
    name = f"{stats[0].parent.parent.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    file = cache_dir() / "null_space" / name
    if not file.is_file():
        p = torch.stack([null_space(load_moment(s), hparams.nullspace_threshold) for s in stats])
        with written_whole(file) as part:
            torch.save(p, part)  # the format that EasyEdit's own AlphaEdit loads
    return file


def _checked(file: Path, model: PreTrainedModel, hparams: Any) -> Path:
    weight = model.get_parameter(f"{hparams.rewrite_module_tmp.format(hparams.layers[0])}.weight")
    try:
        found = tuple(torch.load(file, map_location="cpu", weights_only=True, mmap=True).shape)
    except (OSError, RuntimeError, UnpicklingError, AttributeError) as e:
        raise HyperParamsError(f"P_loc: expected a tensor that torch.save wrote, got {file}: {e}") from None
    if len(found) != 3 or found[0] != len(hparams.layers) or found[1] != found[2] or found[1] not in weight.shape:
        raise HyperParamsError(
            f"P_loc: expected projections of the layers {hparams.layers}, one square matrix each, as wide as one side "
            f"of {tuple(weight.shape)}, got {file} of shape {found}; leave P_loc empty to have them made."
        )
    return file
