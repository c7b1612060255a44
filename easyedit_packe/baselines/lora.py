"""LoRA, as EasyEdit's HEAD trains it. The PyPI release's own builds an AdaLoRA that present versions of peft refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..config.files import FromYAML
from ..easyedit.host import host
from ..easyedit.rollback import unload_with_flags
from ..errors import HyperParamsError
from ..model.hooks import kept_gradients

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Theirs: Any = host("models.lora").LoRAHyperParams


@dataclass(kw_only=True)
class LoRAHyperParams(FromYAML, Theirs):
    """EasyEdit's settings, with the kind of adapter."""

    ALG = "LoRA"

    lora_type: Literal["lora", "adalora"] = "lora"
    model_parallel: bool = False


def apply_lora_to_model(
    model: PreTrainedModel,
    tok: Any,
    requests: list[dict[str, Any]],
    hparams: LoRAHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    **_: Any,
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """Train an adapter on the targets' tokens; the model's own weights stay.

    Returns:
        The model with its adapter, to be taken off with `.unload()`, and no originals. A model that has an adapter
        already trains it further, unless `keep_original_weight` is set.

    Raises:
        HyperParamsError: a kind of adapter that is not "lora".
    """
    import copy as copying

    from peft import LoraConfig, TaskType, get_peft_model

    if hparams.lora_type != "lora":
        raise HyperParamsError(f"lora_type: expected 'lora' on this EasyEdit, got {hparams.lora_type!r}.")
    model = copying.deepcopy(model) if copy else model
    if keep_original_weight or not getattr(model, "peft_config", None):
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=hparams.rank,
            lora_alpha=hparams.lora_alpha,
            lora_dropout=hparams.lora_dropout,
            layers_to_transform=hparams.layers or None,
            target_modules=hparams.target_modules,
        )
        flags = [(p, p.requires_grad) for p in model.parameters()]
        model = _unloadable(get_peft_model(model, config))
        unload_with_flags(model, flags)
    optimizer = torch.optim.Adam(model.parameters(), lr=hparams.lr, weight_decay=hparams.weight_decay)
    batches = [requests[i : i + hparams.batch_size] for i in range(0, len(requests), hparams.batch_size)]
    with kept_gradients(model), torch.enable_grad():
        for _step in range(hparams.num_steps):
            for batch in batches:
                optimizer.zero_grad()
                model(**_labelled(tok, batch, next(model.parameters()).device)).loss.backward()
                optimizer.step()
    return model, {}


def _unloadable(adapted: Any) -> Any:
    """The release deletes `peft_config` after `unload()`, which has deleted it already in present versions of peft."""
    unload = adapted.unload

    def unload_and_leave_an_empty_config() -> nn.Module:
        base = unload()
        base.peft_config = {}
        return base

    adapted.unload = unload_and_leave_an_empty_config
    return adapted


def _labelled(tok: Any, requests: list[dict[str, Any]], device: torch.device) -> dict[str, Tensor]:
    """Prompts with their targets, of which only the targets are labels; under either padding side."""
    prompts = [r["prompt"].format(r["subject"]) if "{}" in r["prompt"] else r["prompt"] for r in requests]
    texts = [f"{p} {r['target_new']}" for p, r in zip(prompts, requests, strict=True)]
    tokens = tok(texts, return_tensors="pt", padding=True).to(device)
    asked = torch.tensor([[len(tok(p)["input_ids"])] for p in prompts], device=device)
    mask = tokens["attention_mask"]
    answer = (mask == 1) & (mask.cumsum(1) > asked)
    return {**tokens, "labels": tokens["input_ids"].masked_fill(~answer, -100)}
