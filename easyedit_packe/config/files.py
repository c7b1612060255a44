"""The YAML files of hyper-parameters, and EasyEdit's dataclasses read from them with this package's errors."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, ClassVar

from ..errors import HyperParamsError, one_of

_PACKAGE = Path(__file__).parent.parent
_PLUS_SUFFIX = "-plus"
"""Version 0.1 named PaCKE+'s files "<model>-plus" and kept them in PaCKE's folder."""


def shipped_dir() -> Path:
    """The folder with the shipped YAML files: `<ALG>/<model>.yaml`, in a checkout or in an installed package."""
    installed = _PACKAGE / "_hparams"
    return installed if installed.is_dir() else _PACKAGE.parent / "hparams"


def find_yaml(name_or_path: str | Path, alg_name: str) -> Path:
    """A file that exists as given or with `.yaml` added, or the shipped `<alg_name>/<name>.yaml`.

    Raises:
        HyperParamsError: neither exists; the message names the nearest shipped configurations.
    """
    text = str(name_or_path)
    candidates = [Path(text).expanduser(), Path(text + ".yaml").expanduser()]
    shipped = shipped_dir() / alg_name
    if Path(text).name == text:
        name = text.removesuffix(_PLUS_SUFFIX) if alg_name == "PaCKE+" else text
        candidates += [shipped / text, shipped / f"{name}.yaml"]
    for path in candidates:
        if path.is_file():
            return path
    names = sorted(p.stem for p in shipped.glob("*.yaml"))
    raise HyperParamsError(
        f"no configuration {text!r} for {alg_name}: not a file, and {one_of(Path(text).stem, names)}."
    )


def renamed(name_or_path: str | Path) -> str | None:
    """The name under `hparams/PaCKE+/` of a file that version 0.1 shipped as `hparams/PaCKE/<name>-plus.yaml`."""
    old = Path(name_or_path)
    name = old.name.removesuffix(".yaml")
    new = name.removesuffix(_PLUS_SUFFIX)
    gone = not old.is_file() and not old.with_name(f"{name}.yaml").is_file()
    return new if new != name and gone and (shipped_dir() / "PaCKE+" / f"{new}.yaml").is_file() else None


def shipped_like(source: str, alg_name: str) -> str:
    """The shipped file of another algorithm for the same model as the file `source`, or that algorithm's folder."""
    name = Path(source).stem.removesuffix(_PLUS_SUFFIX)
    same = shipped_dir() / alg_name / f"{name}.yaml"
    return f"hparams/{alg_name}/{same.name}" if same.is_file() else f"a file of hparams/{alg_name}/"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's values; `1e-5` is a number.

    Raises:
        HyperParamsError: not readable, or not a mapping.
    """
    from omegaconf import OmegaConf

    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as e:
        raise HyperParamsError(f"{path} is not readable as YAML: {e}") from e
    if not isinstance(config, dict):
        raise HyperParamsError(f"expected {path} to hold `key: value` lines, got {type(config).__name__}.")
    return {str(key): value for key, value in config.items()}


def build(cls: type, config: dict[str, Any], source: str) -> Any:
    """One of EasyEdit's dataclasses from a YAML's values.

    Raises:
        HyperParamsError: an unknown key, or one that is missing.
    """
    known = {f.name: f for f in fields(cls)}
    for key in config:
        if key not in known:
            raise HyperParamsError(f"{source}: unknown key {key!r}; {one_of(key, list(known))}.")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in config]
    if missing:
        raise HyperParamsError(f"{source}: expected a value for {', '.join(missing)}; add the missing lines.")
    return cls(**config)


class FromYAML:
    """`from_hparams` for one of EasyEdit's dataclasses, extended by an editor of this package."""

    ALG: ClassVar[str]

    @classmethod
    def from_hparams(cls, name_or_path: str | Path) -> Any:
        """Read a file, with or without its `.yaml`, or the name of a shipped one such as "llama3-8b".

        Raises:
            HyperParamsError: no such file, another editor's file, an unknown key or a missing one.
        """
        path = find_yaml(name_or_path, cls.ALG)
        config = read_yaml(path)
        if config.get("alg_name") != cls.ALG:
            raise HyperParamsError(
                f"{path}: alg_name: expected {cls.ALG!r}, got {config.get('alg_name')!r}; take a file from "
                f"hparams/{cls.ALG}/."
            )
        return build(cls, config, str(path))
