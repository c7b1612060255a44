"""What is compared: an edit of ours, the floor of a step, the authors' scheme, and EasyEdit's FT."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from dense import DenseEditor
from torch import Tensor

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.errors import EasyEditError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen, output_hooks
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.rectify import Rectifier
from easyedit_packe.requests import Batch, Encoded, collate

REQUEST = {"prompt": "The Eiffel Tower is located in the city of", "target_new": "Rome"}
"""Ten tokens, as many as a CounterFact prompt has; `benchmarks/growth.py` measures other lengths."""


class Floor:
    """A bare forward pass, and a backward pass through activations for each term."""

    def __init__(self, model: Any, requests: Sequence[Encoded], hparams: PaCKEHyperParams) -> None:
        self.model, self.terms = model, 1 + (hparams.contrast_weight > 0)
        self.batch = collate(requests, model.get_input_embeddings().weight.device)
        self.first = FFNMap.of(model).modules[0].module  # backward has no business below the lowest node
        with torch.no_grad():
            self.unedited = answer_logits(model, self.batch).argmax(-1)

    def step(self) -> None:
        leaf: list[Tensor] = []

        def cut(_: Any, y: Tensor) -> Tensor:
            leaf.append(y.detach().requires_grad_())
            return leaf[0]

        with output_hooks([(self.first, cut)]):
            logits = answer_logits(self.model, self.batch)
        for i, labels in enumerate((self.batch.targets, self.unedited)[: self.terms]):
            last = i == self.terms - 1
            torch.autograd.grad(token_losses(logits, labels).mean(), leaf, retain_graph=not last)


class PaCKE:
    """Our editor, taken apart into tracing and steps; use it inside `frozen`."""

    def __init__(self, model: Any, requests: Sequence[Encoded], hparams: PaCKEHyperParams) -> None:
        self.run = Rectifier(model, FFNMap.of(model), requests, hparams)
        self.all = list(range(len(requests)))

    def trace(self) -> None:
        self.run.start_training(self.run.trace())

    def step(self) -> None:
        self.run.known = None  # a step with its own passes, not the one that tracing has done
        self.run.train_on(self.all, may_stop=False)


@torch.no_grad()
def bare_forward(model: Any, batch: Batch) -> None:
    answer_logits(model, batch)


def our_edit(model: Any, requests: Sequence[Encoded], hparams: PaCKEHyperParams) -> None:
    with frozen(model):
        Rectifier(model, FFNMap.of(model), requests, hparams).run()


def dense_editor(model: Any, requests: list[Encoded], hparams: PaCKEHyperParams) -> Callable[[], None]:
    """Whole edits of the authors' scheme, on a copy of the model."""
    twin = copy.deepcopy(model)

    def edit() -> None:
        DenseEditor(twin, requests, hparams).run()
        for p in twin.parameters():
            p.grad = None

    return edit


def easyedit_ft(model: Any, hparams: PaCKEHyperParams) -> Callable[[], None] | None:
    """EasyEdit's FT on one layer with as many steps; None where there is no EasyEdit, or the model has no tokeniser."""
    if model.config.model_type != "llama" or not getattr(model.config, "_name_or_path", ""):
        return None
    try:
        import easyedit_packe

        easyedit_packe.register()
        from easyeditor import BaseEditor
    except EasyEditError:
        return None
    from transformers import AutoTokenizer

    from easyedit_packe.bench.through_easyedit import quiet
    from easyedit_packe.easyedit import bridged
    from easyedit_packe.model.load import LoadedModel
    from easyedit_packe.registry import hparams_class

    ft = hparams_class("FT")
    settings = {
        "layers": [21], "num_steps": hparams.num_steps, "lr": 5e-4, "weight_decay": 0, "kl_factor": 0,
        "norm_constraint": False, "objective_optimization": "target_new",
        "rewrite_module_tmp": "model.layers.{}.mlp.down_proj.weight", "layer_module_tmp": "model.layers.{}",
        "mlp_module_tmp": "model.layers.{}.mlp", "attn_module_tmp": "model.layers.{}.self_attn",
        "ln_f_module": "model.norm", "lm_head_module": "lm_head", "device": str(model.device).removeprefix("cuda:"),
        "alg_name": "FT", "model_name": "", "max_length": 40, "batch_size": 1,
    }  # fmt: skip
    known = {f.name for f in dataclasses.fields(ft)}
    ft_hparams = ft(**{k: v for k, v in settings.items() if k in known})
    tok = AutoTokenizer.from_pretrained(model.config._name_or_path)
    ft_hparams.model_name = LoadedModel("llama", model, tok)
    with quiet():
        editor = BaseEditor.from_hparams(ft_hparams)
    request = {**REQUEST, "ground_truth": "Paris"}

    def edit() -> None:
        with quiet(), bridged(ft_hparams):
            _, originals = editor.apply_algo(
                model, tok, [request], ft_hparams, copy=False, return_orig_weights=True, keep_original_weight=True
            )
            with torch.no_grad():
                for name, value in originals.items():
                    model.get_parameter(name)[...] = value

    return edit
