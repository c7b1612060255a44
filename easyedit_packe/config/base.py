"""What all hyper-parameter classes of this package share: EasyEdit's own fields, validation, and plain values.

A class is an ordinary dataclass, as EasyEdit expects. Types and ranges stand in the annotations, and pydantic checks
them; what it finds becomes this package's error: field, expected, received, remedy.
"""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, ValidationError, create_model

from ..errors import HyperParamsError, one_of
from .files import find_yaml, read_yaml, shipped_like


def _a_number(value: Any) -> Any:
    """`1e-5` may arrive as text, as YAML 1.1 reads it; true is no number."""
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Flag = StrictBool
Count = Annotated[int, BeforeValidator(_a_number), Field(ge=0)]
"""0 or more; 0 switches off."""
Positive = Annotated[int, BeforeValidator(_a_number), Field(ge=1)]
Weight = Annotated[float, BeforeValidator(_a_number), Field(ge=0, allow_inf_nan=False)]
"""A finite number, 0 or more; 0 switches off."""
Rate = Annotated[float, BeforeValidator(_a_number), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_a_number), Field(ge=0, le=1)]
Number = Annotated[float, BeforeValidator(_a_number), Field(allow_inf_nan=False)]

REMEDIES = {
    Count: ("0 or more", "use 0 to switch it off, or a positive number"),
    Positive: ("at least 1", "use a positive whole number"),
    Weight: ("a finite number, 0 or more", "use 0 to switch it off"),
    Rate: ("a positive number", "use a finite number above 0"),
    Share: ("a number from 0 to 1", "use 1 for all"),
    Number: ("a finite number", "it may be below 0"),
}


@dataclass
class HyperParams:
    """The fields that EasyEdit itself reads of every editor's hyper-parameters."""

    ALG: ClassVar[str]
    """Name in EasyEdit's `ALG_DICT`, and of the folder under `hparams/`."""
    RETIRED: ClassVar[frozenset[str]] = frozenset()
    """Fields of version 0.1 that chose this algorithm and are no more."""
    algorithms: ClassVar[dict[str, type[HyperParams]]] = {}
    """Every class of this package, by `ALG`."""

    alg_name: str = ""
    """Name of the algorithm; a YAML written for another one is refused."""
    model_name: Any = ""
    """Path or hub name of the model; or a `LoadedModel`; or the name of a model that `packe model fetch` knows."""
    device: int | str | None = None
    """CUDA index, or a torch device such as "cpu"; None takes CUDA when it is there and the CPU otherwise."""
    model_parallel: Flag = False
    """Let EasyEdit spread the model over all GPUs (`device_map="auto"`)."""
    fp16: Flag = False
    """Let EasyEdit load the model in float16. Updates are float32 all the same."""
    use_chat_template: Flag = False
    """Edit and, with EasyEdit's HEAD, measure what an instruct model is asked: the prompt as a user's turn, by the
    tokeniser's own chat template."""
    max_length: Positive = 128
    """Tokens that EasyEdit's metrics keep of a prompt and its answer."""
    batch_size: Positive = 1
    """Requests that `BaseEditor.batch_edit` hands over in one call. Must be 1 for `edit` in some releases."""

    def __init_subclass__(cls) -> None:
        HyperParams.algorithms[cls.ALG] = cls

    def __post_init__(self) -> None:
        self.alg_name = self.alg_name or self.ALG
        self.require(self.alg_name == self.ALG, "alg_name", repr(self.ALG), "this configuration is for another editor")
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        try:
            checked = type(self)._schema()(**given)
        except ValidationError as e:
            raise HyperParamsError(self._said(e)) from None
        for name in given:
            setattr(self, name, getattr(checked, name))
        self.check()

    def check(self) -> None:
        """What fields must be together."""

    def require(self, ok: bool, field: str, expected: str, remedy: str) -> None:
        """Raises HyperParamsError, unless `ok`."""
        if not ok:
            raise HyperParamsError(f"{field}: expected {expected}, got {getattr(self, field)!r}; {remedy}.")

    def _said(self, error: ValidationError) -> str:
        first = error.errors()[0]
        field = str(first["loc"][0])
        value = getattr(self, field)
        kind = typing.get_type_hints(type(self), include_extras=True)[field]
        if typing.get_origin(kind) is Literal:
            return f"{field}: {one_of(value, list(typing.get_args(kind)))}; got {value!r}."
        options = _options(kind)
        expected, remedy = next((REMEDIES[o] for o in options if o in REMEDIES), ("", ""))
        if expected and first["type"] in ("greater_than", "greater_than_equal", "less_than_equal", "finite_number"):
            orders = " or null" * (type(None) in options)
            value = float(value) if isinstance(value, int) and _is_float(options) else value
            return f"{field}: expected {expected}{orders}, got {value!r}; {remedy}."
        names = " or ".join("null" if o is type(None) else _name(o) for o in options)
        return f"{field}: expected {names}, got {value!r} ({type(value).__name__}); correct its type."

    @classmethod
    @functools.cache
    def _schema(cls) -> Any:
        """The class's fields as a pydantic model."""
        hints = typing.get_type_hints(cls, include_extras=True)
        given: dict[str, Any] = {f.name: (hints[f.name], ...) for f in fields(cls)}
        return create_model(cls.__name__, __config__={"protected_namespaces": ()}, **given)

    @classmethod
    def from_hparams(cls, name_or_path: str | Path) -> Self:
        """Read a YAML file, with or without its `.yaml`, or the name of a shipped one such as "llama3-8b".

        Raises:
            HyperParamsError: no such file, not a mapping, an unknown key, or a value that does not fit.
        """
        path = find_yaml(name_or_path, cls.ALG)
        return cls.from_dict(read_yaml(path), source=str(path))

    @classmethod
    def from_dict(cls, config: dict[str, Any], source: str = "hyper-parameters") -> Self:
        """Build from plain values; numbers may arrive as text, as YAML 1.1 reads `1e-5`."""
        if config.get("alg_name") != cls.ALG:
            raise HyperParamsError(
                f"{source}: alg_name: expected {cls.ALG!r}, got {config.get('alg_name')!r}; "
                f"this configuration is for another editor, take one from hparams/{cls.ALG}/."
            )
        known = [f.name for f in fields(cls)]
        for key in config:
            if key in known:
                continue
            for other in cls.algorithms.values():
                if key in other.RETIRED or key in {f.name for f in fields(other)}:
                    raise HyperParamsError(
                        f"{source}: {key!r} is a setting of {other.ALG}, and this configuration is for {cls.ALG}; "
                        f"use {shipped_like(source, other.ALG)} instead, or leave the line out."
                    )
            else:
                raise HyperParamsError(f"{source}: unknown key {key!r}; {one_of(key, known)}.")
        try:
            return cls(**config)
        except HyperParamsError as e:
            raise HyperParamsError(f"{source}: {e}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, one entry a field; `from_dict` reads them back."""
        config = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: str(v) if isinstance(v, str) or k == "model_name" else v for k, v in config.items()}


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _plain(option: Any) -> Any:
    return typing.get_args(option)[0] if typing.get_origin(option) is Annotated else option


def _is_float(options: tuple[Any, ...]) -> bool:
    return any(_plain(o) is float for o in options)


def _name(option: Any) -> str:
    plain = _plain(option)
    if typing.get_origin(plain) is list:
        (item,) = typing.get_args(plain)
        return f"a list of {_name(item)}" + (f" ({REMEDIES[item][0]})" if item in REMEDIES else "")
    return getattr(plain, "__name__", str(plain))
