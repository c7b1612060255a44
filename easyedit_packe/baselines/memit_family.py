"""What MEMIT and its successors share: a target for the last layer, then one linear update a layer.

Symbols in this folder: D hidden size, M intermediate size, n requests; K [M, n] keys of one layer, one column a
request; R [D, n] the part of the residual that this layer takes over; C [M, M] = E[k k^T] over ordinary text.
An update is [D, M], and is transposed by EasyEdit where the weight is stored so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..easyedit.host import conditions, host
from ..errors import RequestError
from ..requests import slotted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Request = dict[str, Any]
Weights = dict[str, Tensor]
"""Parameter name -> its new value."""


def editor(compute: Callable[..., Weights]) -> Callable[..., tuple[PreTrainedModel, Weights]]:
    """EasyEdit's calling convention around `compute(model, tok, requests, hparams, **kwargs) -> Weights`.

    `compute` leaves the model as it was. The originals of the changed weights come back when
    `return_orig_weights` or `keep_original_weight` asks for them.
    """

    @functools.wraps(compute)
    def apply(
        model: PreTrainedModel,
        tok: Any,
        requests: Sequence[Request],
        hparams: Any,
        copy: bool = False,
        return_orig_weights: bool = False,
        keep_original_weight: bool = False,
        **kwargs: Any,
    ) -> tuple[PreTrainedModel, Weights]:
        model = deepcopy(model) if copy else model
        with conditions(model, tok, hparams):
            new = compute(model, tok, requests, hparams, **kwargs)
        originals = {}
        with torch.no_grad():
            for name, value in new.items():
                weight = model.get_parameter(name)
                if return_orig_weights or keep_original_weight:
                    originals[name] = weight.detach().clone()
                weight.copy_(value)
        return model, originals

    return apply


def prepared(requests: Sequence[Request]) -> list[Request]:
    """Requests as EasyEdit's functions want them: "{}" where the subject is, and a space before the target.

    Raises:
        RequestError: a subject that is not in its prompt.
    """
    found = []
    for r in requests:
        prompt, subject, target = r["prompt"], r.get("subject"), r["target_new"]
        if "{}" not in prompt:
            if not subject or subject not in prompt:
                raise RequestError(f"expected a subject that is part of the prompt {prompt!r}, got {subject!r}.")
            prompt = slotted(prompt, subject)
        found.append({**r, "prompt": prompt, "target_new": target if target.startswith(" ") else f" {target}"})
    return found


@contextmanager
def edited_weights(model: PreTrainedModel, names: Sequence[str]) -> Iterator[Weights]:
    """The parameters of these names, to be changed in place; they get their values back."""
    weights = {name: model.get_parameter(name).detach() for name in names}
    kept = {name: w.clone() for name, w in weights.items()}
    try:
        yield weights
    finally:
        for name, w in weights.items():
            w.copy_(kept[name])


def spread(
    model: PreTrainedModel,
    tok: Any,
    requests: Sequence[Request],
    hparams: Any,
    solve: Callable[[int, Tensor, Tensor], Tensor],
    *,
    target: Callable[..., Tensor] | None = None,
    read_at: str | None = None,
    share: Callable[[int], float] = lambda left: 1 / left,
    remember: Callable[[int, Tensor], None] | None = None,
) -> Weights:
    """Bring the last layer's representation to its target, layer by layer (MEMIT, section 4).

    Args:
        solve: (layer, K [M, n], R [D, n]) -> update [D, M] or [M, D].
        target: (model, tok, request, hparams, layer, templates) -> z [D]; None takes MEMIT's `compute_z`.
        read_at: template of the module whose output z is compared with; None takes the decoder layer.
        share: part of the residual for a layer, from how many layers are left, itself included.
        remember: (layer, K) for every layer once all are updated.
    """
    memit = host("models.memit.memit_main")
    requests = prepared(requests)
    templates = memit.get_context_templates(model, tok)
    layers, last = hparams.layers, hparams.layers[-1]
    target = target or memit.compute_z
    z = torch.stack([target(model, tok, r, hparams, last, templates) for r in requests], dim=1).detach()
    names = {layer: f"{hparams.rewrite_module_tmp.format(layer)}.weight" for layer in layers}

    def keys(layer: int) -> Tensor:
        return memit.compute_ks(model, tok, requests, hparams, layer, templates).T

    with edited_weights(model, list(names.values())) as weights:
        for i, layer in enumerate(layers):
            now = memit.get_module_input_output_at_words(
                model, tok, last,
                context_templates=[r["prompt"] for r in requests],
                words=[r["subject"] for r in requests],
                module_template=read_at or hparams.layer_module_tmp,
                fact_token_strategy=hparams.fact_token,
                track="out",
            ).T  # fmt: skip
            weight = weights[names[layer]]
            update = solve(layer, keys(layer), (z - now.to(z)) * share(len(layers) - i))
            weight += memit.upd_matrix_match_shape(update, weight.shape).to(weight)
        if remember is not None:
            for layer in layers:
                remember(layer, keys(layer))
        return {name: w.clone() for name, w in weights.items()}


def second_moment(model: PreTrainedModel, tok: Any, hparams: Any, layer: int) -> Tensor:
    """C of a layer, [M, M] float64, through EasyEdit's own cache."""
    memit = host("models.memit.memit_main")
    name = hparams.rewrite_module_tmp.format(layer)
    moment = memit.get_cov(
        model, tok, name, hparams.mom2_dataset, hparams.mom2_n_samples, hparams.mom2_dtype, hparams=hparams
    )
    return moment.double()


def memit_weights(model: PreTrainedModel, tok: Any, requests: Sequence[Request], hparams: Any) -> Weights:
    """What EasyEdit's MEMIT would make of the weights."""
    memit = host("models.memit.memit_main")
    new = {}
    for name, (keys, values) in memit.execute_memit(model, tok, prepared(requests), hparams).items():
        weight = model.get_parameter(name).detach()
        update = memit.upd_matrix_match_shape(keys @ values.T, weight.shape)
        new[name] = weight + update.to(weight)
    return new
