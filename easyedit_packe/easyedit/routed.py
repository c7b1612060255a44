"""Editors that put a router into the model instead of changing its weights: GRACE and WISE.

Both replace one linear layer by an adapter of EasyEdit's that decides, text by text, whether an edit answers. What is
measured is the model with this adapter in it. Such a model must see each text alone and unpadded, because WISE
decides by the mean over all that it sees; and GRACE must be told at which token the question ends.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HyperParamsError, RequestError
from .host import conditions, host, swapped
from .rollback import modules_put_back

_KEPT = {
    "GRACEAdapter": (
        "keys", "values", "epsilons", "key_labels", "edit_ids", "key_id", "edit_label", "edit_id", "iter",
    ),
    "WISEAdapter": (
        "new_weight", "memory_weight", "memory_mean_act", "merge_cnt", "editing_mean_act", "editing_total_cnt",
        "weight_mask", "used_mask",
    ),
}  # fmt: skip
"""EasyEdit's adapter -> what in it comes from edits."""

_HISTORIES = ("edit_history", "merge_group_edit_history")
"""What WISE keeps of its edits outside the adapter, in its module."""

UNRELATED = (
    "The weather was mild all week",
    "She closed the door and sat down",
    "Water boils faster with a lid on",
    "They walked home along the river",
    "The train was late again",
    "He could not find his keys",
    "Bread keeps longer in a cool place",
    "The children were playing outside",
)
"""Texts that WISE shall not answer for, where a request names none: it asks for one with each edit. No question of any
data set is among them."""


def adapters(model: nn.Module) -> list[nn.Module]:
    """The routers in this model."""
    return [m for m in model.modules() if type(m).__name__ in _KEPT]


def unwrapped(model: Any) -> Any:
    """The model itself, with its router in it, of what GRACE and WISE give back; anything else as it is."""
    inner = getattr(model, "model", None)
    return inner if type(model).__name__ in ("GRACE", "WISE") and inner is not None else model


def ask_at(model: nn.Module, position: int) -> None:
    """Tell GRACE which token's representation is looked up in the next pass: the question's last; -1 is the text's."""
    for adapter in adapters(model):
        setattr(adapter, "key_id", position)  # noqa: B010 (no attribute that nn.Module declares)


def grace(apply: Callable) -> Callable:
    """EasyEdit's GRACE: the model's flags and modules come back, and a call that would lose requests is refused."""

    @functools.wraps(apply)
    def call(model: Any, tok: Any, requests: Sequence[dict], hparams: Any, copy: bool = False, **kwargs: Any) -> Any:
        _one(requests, "GRACE")
        model = deepcopy(model) if copy else model
        before = dict(model.named_modules())
        with conditions(model, tok, hparams):
            edited, undo = apply(model, tok, requests, hparams, **kwargs)
        return edited, modules_put_back(model, before, undo)

    return call


def wise(apply: Callable) -> Callable:
    """EasyEdit's WISE: one edit after another in one adapter, and a text that it shall not answer for."""

    @functools.wraps(apply)
    def call(model: Any, tok: Any, requests: Sequence[dict], hparams: Any, copy: bool = False, **kwargs: Any) -> Any:
        _one(requests, "WISE")
        if not hparams.retrieve:
            raise HyperParamsError(
                "retrieve: expected true, got false: without it EasyEdit merges WISE's weights whenever its wrapper is "
                "called, so what it says depends on how often it was asked."
            )
        model = deepcopy(model) if copy else model
        unrelated = UNRELATED[sum(requests[0]["prompt"].encode()) % len(UNRELATED)]
        requests = [{"loc_prompt": unrelated, **requests[0]}]
        settings = {"sequential_edit": True, "model_name": _named(model, hparams)}
        before = dict(model.named_modules())
        with conditions(model, tok, hparams, "left", settings):
            edited, undo = apply(model, tok, requests, hparams, **kwargs)
        return edited, modules_put_back(model, before, undo)

    return call


def _one(requests: Sequence[dict], editor: str) -> None:
    if len(requests) != 1:
        raise RequestError(f"expected one request a call, got {len(requests)}: {editor} writes one fact at a time.")


def _named(model: Any, hparams: Any) -> str:
    """WISE looks for "gpt2" in the model's name to learn whether weights lie transposed."""
    return "gpt2" if model.config.model_type == "gpt2" else str(hparams.model_name)


def sample_wise_prefixes(model: Any, tok: Any, hparams: Any) -> None:
    """The texts that WISE puts before a request, sampled now, from the model as it is."""
    utils = host("models.wise.utils")
    with swapped(tok, padding_side="left"):
        utils.get_context_templates(model, tok, length_params=[[5, 5], [10, 5]], device=model.device)


def forget() -> None:
    """The next edit of WISE is its first."""
    module = host("models.wise.WISE")
    if module is not None:
        for name in _HISTORIES:
            setattr(module, name, [])


def state(model: nn.Module) -> dict[str, Tensor]:
    """What the model's routers know of their edits, as tensors of bytes by the router's name; empty without any."""
    found = {}
    for name, adapter in model.named_modules():
        kept = _KEPT.get(type(adapter).__name__)
        if kept:
            about: dict[str, Any] = {"adapter": type(adapter).__name__}
            about["parts"] = {k: getattr(adapter, k) for k in kept if hasattr(adapter, k)}
            about["history"] = _history(about["adapter"])
            buffer = io.BytesIO()
            torch.save(about, buffer)
            found[f"router:{name}"] = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    return found


def put_back(model: nn.Module, hparams: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Build the routers of `state` into a model that has none.

    Returns:
        The tensors that are not about routers.
    """
    for name, stored in tensors.items():
        if name.startswith("router:"):
            _put_back(model, hparams, name.removeprefix("router:"), stored)
    return {k: t for k, t in tensors.items() if not k.startswith("router:")}


def _put_back(model: nn.Module, hparams: Any, name: str, stored: Tensor) -> None:
    with torch.serialization.safe_globals([host("models.wise.utils").EditingMeanAct]):
        about = torch.load(io.BytesIO(stored.numpy().tobytes()), weights_only=True)
    kind = about["adapter"]
    flags = {p: p.requires_grad for p in model.parameters()}
    wrapper = host("models.grace.GRACE").GRACE if kind == "GRACEAdapter" else host("models.wise.WISE").WISE
    wrapper(model=model, config=hparams, device=next(model.parameters()).device)
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
    adapter: Any = model.get_submodule(name)
    for part, value in about["parts"].items():
        setattr(adapter, part, value)
    if kind == "WISEAdapter":
        for history, value in zip(_HISTORIES, about["history"], strict=True):
            setattr(host("models.wise.WISE"), history, value)


def _history(kind: str) -> list[Any]:
    return [getattr(host("models.wise.WISE"), name) for name in _HISTORIES] if kind == "WISEAdapter" else []
