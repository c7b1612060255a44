"""Make PaCKE and PaCKE+ editors of EasyEdit, in memory; no file of EasyEdit is changed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch

from . import baselines
from .config import HyperParams, PaCKEHyperParams
from .config.files import build, find_yaml, read_yaml, renamed
from .easyedit import parts
from .easyedit.adapt import adapt
from .easyedit.bridge import bridged, needs_cuda
from .easyedit.locate import Found, import_easyeditor
from .easyedit.measuring import check_measuring
from .editor import apply_packe_plus_to_model, apply_packe_to_model
from .errors import EasyEditError, HyperParamsError, RequestError, one_of
from .model.chat import MARK, in_turn
from .model.fetch import SOURCES
from .model.load import LoadedModel, load
from .requests import read_requests

OWN: dict[str, Callable[..., Any]] = {"PaCKE": apply_packe_to_model, "PaCKE+": apply_packe_plus_to_model}
"""This package's algorithms; both take several requests in one call."""

ONE_RELEASE_ONLY = {"objective_optimization", "lora_type", "fp16"}
"""Settings of EasyEdit's own editors that HEAD has and the PyPI release refuses."""

ONLY_HEAD = {"GRACE", "WISE", "ULTRAEDIT", "SPHERE"}
"""Editors that this package compares with and does not bring along."""

_MARK = "__packe__"
_METHODS = ("edit", "batch_edit", "edit_requests", "normal_edit", "generate_edit", "edit_dataset")


def register() -> Found:
    """Add `PaCKE`, `PaCKE+`, and the editors of `baselines` that it lacks, to the EasyEdit on this machine; a second
    call changes nothing.

    Afterwards `BaseEditor.from_hparams(PaCKEHyperParams.from_hparams(...))` works, and so do its `edit`,
    `batch_edit` and, where the release has them, `edit_requests`, `normal_edit`, `generate_edit` and `edit_dataset`.
    In both releases, and for EasyEdit's own editors too, `model_name` may then be a `LoadedModel` or a name that
    `packe model fetch` knows, `device` may be "cpu", `edit` takes any `batch_size`, and edits are rolled back unless
    `sequential_edit=True`. Either way each edit is measured right after it is made, so that what later edits do to
    it does not show; `packe bench protocol=consecutive` measures after the last. For PaCKE and PaCKE+, options of
    measuring that the release would pass over in silence are errors.

    Returns:
        Which EasyEdit was found.

    Raises:
        EasyEditError: none was found.
    """
    _, found = import_easyeditor()
    editors = parts.alg_dict()
    editors.update(OWN)
    for name in _missing(editors):
        editors[name] = baselines.baseline(name)[0]
    adapt(editors)
    _make_batchable(parts.batch_editor())
    _bridge(parts.base_editor(), found)
    return found


def hparams_class(alg_name: str) -> type:
    """The hyper-parameter class of an editor of the installed EasyEdit, or of this package.

    Raises:
        EasyEditError: this EasyEdit has no such editor; the message names the nearest.
    """
    reason = missing_editor(alg_name)
    if reason:
        raise EasyEditError(reason)
    if alg_name in OWN:
        return HyperParams.algorithms[alg_name]
    if alg_name in _missing(parts.alg_dict()):
        return baselines.baseline(alg_name)[1]
    return parts.hparams_classes()[_class_name(alg_name)]


def missing_editor(alg_name: str) -> str:
    """Why there is no such editor here, and what to do; empty where there is one."""
    _, found = import_easyeditor()
    known = parts.alg_dict()
    if alg_name in {*OWN, *_missing(known)} or (alg_name in known and _class_name(alg_name) in parts.hparams_classes()):
        return ""
    if alg_name in ONLY_HEAD:
        return f"{found} has no {alg_name}; set EASYEDIT_HOME to a checkout of EasyEdit's HEAD, which has it."
    return f"{found} has no text editor {alg_name!r}; {one_of(alg_name, sorted({*known, *_missing(known), *OWN}))}."


def _class_name(alg_name: str) -> str:
    return alg_name.replace("_", "-").lower()


def load_hparams(alg_name: str, name_or_path: str | Path) -> Any:
    """Hyper-parameters from a YAML, or from `hparams/<alg_name>/<name>.yaml` here or in EasyEdit, for either release.

    `alg_name` may be the name of a shipped folder, such as "FT-C"; the editor is the file's own `alg_name`. Settings
    that only the other EasyEdit's editor has are left out.

    Raises:
        HyperParamsError: no such file, an unknown setting or a missing one.
    """
    if alg_name == "PaCKE" and renamed(name_or_path) is not None:
        return PaCKEHyperParams.from_hparams(name_or_path)
    path = _find_yaml(name_or_path, alg_name)
    config = read_yaml(path)
    cls = hparams_class(config.get("alg_name", alg_name))
    if issubclass(cls, HyperParams):
        return cls.from_hparams(path)
    known = {f.name for f in fields(cast(Any, cls))}
    if "act_margin" in config and "act_margin" not in known:  # how WISE's YAML writes three of its fields
        config |= dict(zip(("alpha", "beta", "gamma"), config.pop("act_margin"), strict=True))
    return build(cls, {k: v for k, v in config.items() if k in known or k not in ONE_RELEASE_ONLY}, str(path))


def _find_yaml(name_or_path: str | Path, alg_name: str) -> Path:
    """A file, one that this package ships, or else one that the EasyEdit checkout in use ships."""
    try:
        return find_yaml(name_or_path, alg_name)
    except HyperParamsError:
        _, found = import_easyeditor()
        theirs = found.root / "hparams" / alg_name / f"{Path(name_or_path).name}.yaml"
        if theirs.is_file():
            return theirs
        raise


def apply_function(alg_name: str) -> Any:
    """What `ALG_DICT` has under this name, to be called inside `bridged(hparams)`.

    Raises:
        EasyEditError: see `hparams_class`.
    """
    hparams_class(alg_name)
    return parts.alg_dict()[alg_name]


def _missing(known: Mapping[str, Callable]) -> list[str]:
    """This package's editors that EasyEdit does not have, or has in a form that no longer runs."""
    own = [name for name in baselines.BASELINES if name not in known or "easyedit_packe" in known[name].__module__]
    return [*own, "LoRA"] if needs_cuda() and "LoRA" not in own else own


def _make_batchable(batch_editor: Any) -> None:
    original = batch_editor.is_batchable_method
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def is_batchable_method(alg_name: str) -> bool:
        return alg_name in OWN.keys() | baselines.BATCHABLE or original(alg_name)

    setattr(is_batchable_method, _MARK, True)
    batch_editor.is_batchable_method = staticmethod(is_batchable_method)


class NoSuchMethod(EasyEditError, AttributeError):
    """`BaseEditor` of this release lacks a method that the other release's has."""


def _bridge(base_editor: Any, found: Found) -> None:
    if getattr(base_editor.__init__, _MARK, False):
        return
    only_cuda = needs_cuda()
    has_sequential = "sequential_edit" in inspect.signature(base_editor.edit).parameters

    original_init = base_editor.__init__

    @functools.wraps(original_init)
    def __init__(self: Any, hparams: Any, *args: Any, **kwargs: Any) -> None:
        name = hparams.model_name
        with bridged(hparams, only_cuda):
            if type(name) is str and (name in SOURCES or hparams.alg_name in OWN):
                hparams.model_name = _loaded(hparams)
            try:
                original_init(self, hparams, *args, **kwargs)
            finally:
                hparams.model_name = name

    setattr(__init__, _MARK, True)
    base_editor.__init__ = __init__
    known = [method for method in _METHODS if hasattr(base_editor, method)]
    for method in known:
        setattr(
            base_editor, method, _bridged_method(getattr(base_editor, method), only_cuda, has_sequential, str(found))
        )

    def __getattr__(self: Any, name: str) -> Any:
        if name in _METHODS:
            raise NoSuchMethod(f"{found} has no BaseEditor.{name}; it has {', '.join(known)}.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    base_editor.__getattr__ = __getattr__


def _bridged_method(original: Any, only_cuda: bool, has_sequential: bool, release: str) -> Any:
    one_by_one = original.__name__ in ("edit", "edit_requests", "generate_edit")
    signature = inspect.signature(original)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with bridged(self.hparams, only_cuda):
            if self.alg_name in OWN:
                # EasyEdit measures before it edits, and its metrics fail obscurely on requests that cannot be edited.
                check_measuring(original.__name__, kwargs, self.hparams, only_cuda, release)
                _check_template(self, only_cuda)
                _check_requests(signature.bind_partial(self, *args, **kwargs).arguments)
            if one_by_one and hasattr(self.hparams, "batch_size"):
                self.hparams.batch_size = 1  # these take one request a call, and refuse any other setting
            if has_sequential or "keep_original_weight" not in signature.parameters:
                return original(self, *args, **kwargs)
            # The PyPI release: its own editors are rolled back only with keep_original_weight=True.
            given = dict(signature.bind_partial(self, *args, **kwargs).arguments)
            given |= given.pop("kwargs", {})
            if given.pop("sequential_edit", not given.get("keep_original_weight", True)):
                return _sequentially(original, {**given, "keep_original_weight": False})
            return original(**{**given, "keep_original_weight": True})

    return method


def _check_template(editor: Any, pypi: bool) -> None:
    """Refuse a chat template that EasyEdit would not measure with.

    Raises:
        HyperParamsError: the release's metrics know none, or the tokeniser has none.
    """
    if not editor.hparams.use_chat_template:
        return
    if pypi:
        raise HyperParamsError(
            "use_chat_template: expected EasyEdit's HEAD, got the PyPI release, which would measure plain text; take a "
            "checkout of HEAD, or `compute_patch`, `packe edit` or `packe bench`, which measure for themselves."
        )
    in_turn(editor.tok, MARK)


def _check_requests(arguments: dict[str, Any]) -> None:
    """Refuse, before anything is measured, what `read_requests` would refuse.

    Raises:
        RequestError: see there.
    """
    arguments = {**arguments, **arguments.get("kwargs", {})}
    requests = arguments.get("requests")
    if requests is None and "prompts" in arguments and "target_new" in arguments:
        columns = {"prompt": arguments["prompts"], "target_new": arguments["target_new"]}
        if arguments.get("subject") is not None:
            columns["subject"] = arguments["subject"]
        columns = {k: [v] if isinstance(v, str) else list(v) for k, v in columns.items()}
        if len({len(v) for v in columns.values()}) > 1:
            raise RequestError(
                "expected as many targets and subjects as prompts, got "
                + ", ".join(f"{len(v)} in {k}" for k, v in columns.items()) + "."
            )  # fmt: skip
        requests = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if requests is not None:
        read_requests(requests)


def _sequentially(original: Any, given: dict[str, Any]) -> Any:
    """`sequential_edit=True` for a release that always rolls back: hand it nothing to roll back with."""
    editor = given["self"]
    apply_algo, last = editor.apply_algo, [None]

    def keep(*a: Any, **k: Any) -> Any:
        model, last[0] = apply_algo(*a, **k)
        return model, (lambda: None) if callable(last[0]) and not hasattr(last[0], "items") else {}

    editor.apply_algo = keep
    try:
        metrics, model, _ = original(**given)
        return metrics, model, last[0]
    finally:
        editor.apply_algo = apply_algo


def _loaded(hparams: Any) -> LoadedModel:
    """The model of `hparams.model_name` under its own name, whatever that is; EasyEdit loads by a list of names."""
    dtype = torch.float16 if getattr(hparams, "fp16", False) else torch.float32
    device_map = "auto" if getattr(hparams, "model_parallel", False) else None
    model, tok = load(hparams.model_name, dtype=dtype, device_map=device_map)
    # The side EasyEdit itself gives a decoder model's tokeniser.
    tok.padding_side = "left"
    return LoadedModel(hparams.model_name, model, tok)
