"""PMET (Li et al., 2024, "PMET: Precise Model Editing in a Transformer"): attention and feed-forward targets together,
of which only the feed-forward one is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.files import FromYAML
from ..easyedit.host import host
from ..errors import HyperParamsError
from ..model.hooks import output_hooks
from .memit_family import Weights, editor, second_moment, spread

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MEMITHyperParams: Any = host("models.memit").MEMITHyperParams


@dataclass
class PMETHyperParams(FromYAML, MEMITHyperParams):
    """MEMIT's settings; `mlp_module_tmp` and `attn_module_tmp` name the output projections here."""

    ALG = "PMET"

    rewrite_module_tmps: list[str] = field(default_factory=list)
    """Modules that are written; here `rewrite_module_tmp` alone. EasyEdit's HEAD also takes two."""
    nll_loss_factor: float = 1
    """Weight of the target's likelihood against the other terms."""


def pmet_weights(model: PreTrainedModel, tok: Any, requests: Any, hparams: PMETHyperParams, **_: Any) -> Weights:
    """MEMIT's update, with a target for the module's own output and the square root of the remaining layers l:

        update = R / sqrt(l) K^T (K K^T + mom2_update_weight C)^-1

    Raises:
        HyperParamsError: something is asked for that only EasyEdit's own PMET (HEAD) has.
    """
    if hparams.rewrite_module_tmps not in ([], [hparams.rewrite_module_tmp]):
        raise HyperParamsError(
            f"rewrite_module_tmps: expected [{hparams.rewrite_module_tmp!r}], got {hparams.rewrite_module_tmps}; "
            "writing attention too needs EasyEdit's own PMET (HEAD)."
        )

    def solve(layer: int, k: Tensor, r: Tensor) -> Tensor:
        k, r = k.double(), r.double()
        a = k @ k.T + hparams.mom2_update_weight * second_moment(model, tok, hparams, layer)
        return r @ torch.linalg.solve(a, k).T

    return spread(
        model, tok, requests, hparams, solve,
        target=lambda *args: compute_zs(*args)[1],
        read_at=hparams.rewrite_module_tmp,
        share=lambda left: left**-0.5,
    )  # fmt: skip


def compute_zs(
    model: PreTrainedModel,
    tok: Any,
    request: dict[str, Any],
    hparams: PMETHyperParams,
    layer: int,
    templates: list[list[str]],
) -> tuple[Tensor, Tensor]:
    """Outputs of attention and of the feed-forward block, [D] each, that make the model give the target.

    Adam on two offsets, added at the subject's last token in every prompt. The loss is the target's negative log
    likelihood, the divergence from the unedited model on "<subject> is a", and the offsets' size. As in EasyEdit,
    the first weighs a tenth while the target is already the most likely text, and the search ends there once the
    divergence is small.
    """
    ids = tok.encode(request["target_new"], return_tensors="pt", add_special_tokens=False)[0].to(model.device)
    prompts = [t.format(request["prompt"]) + tok.decode(ids[:-1]) for group in templates for t in group]
    prompts.append("{} is a")
    batch = tok([p.format(request["subject"]) for p in prompts], return_tensors="pt", padding=True).to(model.device)
    find = host("models.memit.compute_z").find_fact_lookup_idx
    at = [find(p, request["subject"], tok, hparams.fact_token, verbose=False) for p in prompts]
    ends = batch["attention_mask"].sum(1)[:-1]
    answers = torch.stack([torch.arange(end - len(ids), end, device=ids.device) for end in ends])
    rows = torch.arange(len(prompts), device=model.device)

    names = [t.format(layer) for t in (hparams.attn_module_tmp, hparams.mlp_module_tmp)]
    offsets = [torch.zeros(model.config.hidden_size, device=model.device, requires_grad=True) for _ in names]
    starts: dict[int, Tensor] = {}

    def hook(i: int) -> Any:
        def add(_: Tensor, y: Tensor) -> Tensor:
            if i not in starts:
                starts[i] = y[0, at[0]].detach().clone()
            return y.index_put((rows, torch.tensor(at, device=y.device)), offsets[i].to(y), accumulate=True)

        return add

    optimizer = torch.optim.Adam(offsets, lr=hparams.v_lr)
    factor, unedited = hparams.nll_loss_factor, None
    for step in range(hparams.v_num_grad_steps):
        with output_hooks([(model.get_submodule(n), hook(i)) for i, n in enumerate(names)]):
            logits = model(**batch).logits
        divergent = logits[-1, at[-1]].log_softmax(-1)[None]
        unedited = divergent.detach() if unedited is None else unedited
        log_probs = torch.stack([logits[i, a] for i, a in enumerate(answers)]).float().log_softmax(-1)
        likely = log_probs.gather(2, ids.expand(len(answers), -1)[..., None]).squeeze(2).mean(1)
        most_likely = log_probs.amax(2).mean(1)
        divergence = hparams.kl_factor * F.kl_div(unedited, divergent, log_target=True, reduction="batchmean")
        size = sum(o.norm() / starts[i].norm() ** 2 for i, o in enumerate(offsets))
        loss = -factor * likely.mean() + divergence + hparams.v_weight_decay * size
        if loss < 5e-2 or step == hparams.v_num_grad_steps - 1:
            break
        if most_likely.exp().mean() == likely.exp().mean():
            factor = 0.1 * hparams.nll_loss_factor
            if divergence <= 0.01:
                break
        else:
            factor = hparams.nll_loss_factor
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for i, offset in enumerate(offsets):
                limit = hparams.clamp_norm_factor * starts[i].norm()
                if offset.norm() > limit:
                    offset *= limit / offset.norm()
    attention, feed_forward = (starts[i] + o.detach() for i, o in enumerate(offsets))
    return attention, feed_forward


apply_pmet_to_model = editor(pmet_weights)
