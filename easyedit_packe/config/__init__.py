"""Hyper-parameters: one dataclass an algorithm, and the YAML files that hold them."""

from pathlib import Path

from ..errors import HyperParamsError, one_of
from .base import HyperParams
from .files import find_yaml, read_yaml, renamed
from .packe import PaCKEHyperParams
from .plus import PaCKEPlusHyperParams

__all__ = ["HyperParams", "PaCKEHyperParams", "PaCKEPlusHyperParams", "load_hparams"]


def load_hparams(name_or_path: str | Path, alg_name: str = "PaCKE") -> HyperParams:
    """A YAML file of PaCKE or of PaCKE+, which its `alg_name` tells; or the shipped `hparams/<alg_name>/<name>.yaml`.

    Raises:
        HyperParamsError: no such file or algorithm, or the file does not fit.
    """
    if alg_name not in HyperParams.algorithms:
        raise HyperParamsError(f"editor: {one_of(alg_name, list(HyperParams.algorithms))}; got {alg_name!r}.")
    if renamed(name_or_path) is not None:
        return HyperParams.algorithms[alg_name].from_hparams(name_or_path)
    path = find_yaml(name_or_path, alg_name)
    named = read_yaml(path).get("alg_name")
    return HyperParams.algorithms.get(str(named), HyperParams.algorithms[alg_name]).from_hparams(path)
