"""Whether a block does what the names of its modules say, tried on the model itself.

So a family whose code differs from that of all others with these names is refused, and never edited wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .blocks import EXPERTS, FORMS, WHERE, Block, shape_of, what
from .experts import Experts
from .hooks import ends_with, frozen, output_hooks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 8
STEPS = (0.0, 1.0, -2.0)
"""By how much key nodes are moved: twice as far the other way, where a function that is odd would look linear."""


def check_behaviour(model: PreTrainedModel, blocks: list[Block]) -> None:
    """Run the model on a few tokens, as far as the first block of each kind, with some key nodes' outputs moved.

    In a memory `sum_j g(x . k_j) v_j` the value module's input j moves with key j alone, and where there is a gate, in
    proportion to it: g acts on the gate.

    Raises:
        ModelError: this block does something else.
    """
    kinds = {(b.form, type(b.module)): b for b in reversed(blocks)}
    with frozen(model), torch.no_grad():
        for block in kinds.values():
            if block.form == EXPERTS:
                _check_experts(model, block)
                continue
            problem = next(_problems(model, block), None)
            if problem is not None:
                raise ModelError(
                    f"{block.name} has the names of a feed-forward block ({'/'.join(FORMS[block.form].linear)}), but "
                    f"in {what(model)} {problem}. It cannot be edited as one; if it is one of another form, add "
                    f"that to {WHERE}."
                )


def _problems(model: PreTrainedModel, block: Block) -> Iterator[str]:
    """What is wrong with a block, from one forward pass in which each text stands once for every step."""
    form, inner = FORMS[block.form], []
    size = block.width
    first = size if form.packed else 0
    chosen = torch.arange(0, size, 3)

    def move(_: Tensor, y: Tensor) -> Tensor:
        rows = y.flatten(0, -2).clone()
        step = 4 * rows.float().square().mean().sqrt().clamp_min(1e-3)
        for part, times in zip(rows.chunk(len(STEPS)), STEPS, strict=True):
            part[:, first + chosen.to(y.device)] += (times * step).to(y.dtype)
        return rows.view(y.shape)

    def see(x: Tensor, _: Tensor) -> None:
        inner.append(x.detach().flatten(0, -2).float())

    key, value = block[form.key], block[form.value]
    with output_hooks([(key, move), (value, see)]), ends_with(value):
        model.base_model(input_ids=_tokens(model).expand(len(STEPS), -1), use_cache=False)
    if not inner:
        yield f"{form.key} does not come before {form.value}"
        return
    plain, up, down = inner[0].chunk(len(STEPS))
    if not inner[0].isfinite().all():
        return  # such weights are refused where the loss is computed
    up, down = up - plain, down - plain
    moved = up[:, chosen.to(up.device)].norm()
    if not moved > 0 or (up.norm() ** 2 - moved**2).clamp_min(0).sqrt() > 0.01 * moved:
        yield f"input j of {form.value} does not move with key j of {form.key} alone"
    if form.is_gated and (down + 2 * up).norm() > 0.1 * down.norm():
        yield f"{form.value}'s inputs are not in proportion to the outputs of {form.key}"


def _check_experts(model: PreTrainedModel, block: Block) -> None:
    """Compare what experts give with what they give while they are shown, where `Experts` computes in their place.

    Raises:
        ModelError: it is something else, by more than half precision can explain.
    """
    found: list[Tensor] = []
    for way in (nullcontext(), Experts(block.name, block.module).shown()):
        with way, output_hooks([(block.module, lambda _, y: found.append(y.float()))]), ends_with(block.module):
            model.base_model(input_ids=_tokens(model)[None], use_cache=False)
    if len(found) < 2 or (found[1] - found[0]).norm() > 0.02 * found[0].norm():
        raise ModelError(
            f"{block.name} has the form of a mixture of experts, but in {what(model)} it computes something else than "
            "easyedit_packe/model/experts.py says. It cannot be edited; choose another model."
        )


def check_gradients(names_and_modules: Iterable[tuple[str, nn.Module]], dtype: torch.dtype) -> None:
    """Try whether gradients flow through quantised modules, one of each type: some of them only compute forwards.

    Raises:
        ModelError: through this one they do not, or not all of them.
    """
    of_type = {type(module): (name, module) for name, module in reversed(list(names_and_modules))}
    for name, module in of_type.values():
        device = next(module.parameters()).device
        x = torch.randn(2, shape_of(module)[1], generator=torch.Generator().manual_seed(0)).to(device, dtype)
        with torch.enable_grad():
            y = module(x.requires_grad_())
            along = (y * y.detach()).sum()
            (grad,) = torch.autograd.grad(along, x, allow_unused=True) if along.requires_grad else (None,)
            moved = ((y - module(torch.zeros_like(x))) * y).sum().item()  # the same by the map itself, which is linear
        found = 0.0 if grad is None else (grad * x).sum().item()
        if not abs(found - moved) <= 0.1 * abs(moved):
            raise ModelError(
                f"expected gradients to flow through {name}, a {type(module).__name__} from "
                f"{type(module).__module__}, and they do not: here it only computes forwards (as bitsandbytes' 4 bits "
                "do on some CPUs). Edit on a GPU, in 8 bits, or with another way of quantising."
            )


def _tokens(model: PreTrainedModel) -> Tensor:
    weight = model.get_input_embeddings().weight
    return torch.linspace(0, len(weight) - 1, TOKENS, device=weight.device).long()
