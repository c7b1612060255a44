"""R-ROME (Gupta et al., 2024, "Rebuilding ROME"): ROME with one and the same key on both sides of its update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.files import FromYAML
from ..easyedit.host import host
from ..errors import HyperParamsError
from .memit_family import Weights, edited_weights, editor, prepared

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ROMEHyperParams: Any = host("models.rome").ROMEHyperParams


@dataclass
class R_ROMEHyperParams(FromYAML, ROMEHyperParams):
    """ROME's settings, and which key is used."""

    ALG = "R-ROME"

    fp16: bool = False
    enable_prompt_keys: bool = False
    """The key of the prompt alone. Only EasyEdit's HEAD has it."""
    enable_random_prefix_keys: bool = True
    """The mean key over sampled prefixes and the prompt."""
    original_implementation: bool = False
    """ROME itself. Only EasyEdit's HEAD has it."""


def r_rome_weights(model: PreTrainedModel, tok: Any, requests: Any, hparams: R_ROMEHyperParams, **_: Any) -> Weights:
    """With k and v the means, over all prefixes, of the module's input and output at the subject:

        update = (v* - v) (C^-1 k)^T / (k^T C^-1 k)

    ROME divides by, and subtracts, what the bare prompt gives.

    Raises:
        HyperParamsError: another choice of keys.
    """
    if hparams.enable_prompt_keys or hparams.original_implementation or not hparams.enable_random_prefix_keys:
        raise HyperParamsError(
            "enable_random_prefix_keys: expected true, and both other choices of keys false; "
            "they need EasyEdit's own R-ROME (HEAD)."
        )
    rome = host("models.rome.rome_main")
    (request,) = prepared(requests[:1])
    templates = rome.get_context_templates(model, tok, hparams.context_template_length_params)
    names = {layer: f"{hparams.rewrite_module_tmp.format(layer)}.weight" for layer in sorted(hparams.layers)}
    with edited_weights(model, list(names.values())) as weights:
        for layer, name in names.items():
            left = rome.compute_u(model, tok, request, hparams, layer, templates)
            right = rome.compute_v(model, tok, request, hparams, layer, left, templates).detach()
            # compute_v returns (v* - v) / (k . left) for the bare prompt, which gives v*.
            k, v = inputs_and_outputs(model, tok, request, hparams, layer, ["{}"])
            target = right * torch.dot(k, left) + v
            k, v = inputs_and_outputs(model, tok, request, hparams, layer, templates)
            update = torch.outer(left, (target - v) / torch.dot(k, left))
            weights[name] += rome.upd_matrix_match_shape(update, weights[name].shape)
        return {name: w.clone() for name, w in weights.items()}


def inputs_and_outputs(
    model: PreTrainedModel, tok: Any, request: dict, hparams: Any, layer: int, templates: list[str]
) -> tuple[Tensor, Tensor]:
    """Means over the prefixes of the edited module's input [M] and output [D] at the subject's last token."""
    read = host("models.rome.compute_v").get_module_input_output_at_word
    pairs = [
        read(
            model, tok, layer,
            context_template=template.format(request["prompt"]),
            word=request["subject"],
            module_template=hparams.rewrite_module_tmp,
            fact_token_strategy=hparams.fact_token,
        )
        for template in templates
    ]  # fmt: skip
    inputs, outputs = zip(*pairs, strict=True)
    return torch.stack(inputs).mean(0), torch.stack(outputs).mean(0)


apply_r_rome_to_model = editor(r_rome_weights)
