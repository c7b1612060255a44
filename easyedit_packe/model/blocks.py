"""Find a model's feed-forward blocks by the names of their modules.

Families share few forms of blocks (`FORMS`), so a family needs no entry of its own. A block has a form if it has
exactly that form's matrices. That its names mean what they say is then tried on the model itself (`behaviour.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor, nn

from ..errors import ModelError
from .config import text_config
from .experts import find_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Form:
    """A feed-forward block by the names of its linear modules.

    `key` and `value` hold the nodes. `gate` holds none; its output, passed through the activation function, multiplies
    the key's. With `packed` the first half of the key module's outputs are such a gate, the second half are the keys'.
    """

    key: str
    value: str
    gate: str | None = None
    packed: bool = False

    @property
    def linear(self) -> list[str]:
        return [name for name in (self.key, self.value, self.gate) if name is not None]

    @property
    def is_gated(self) -> bool:
        return self.packed or self.gate is not None


# To support another block, add its form here and a tiny model to tests/families.py.
FORMS: dict[str, Form] = {
    "gated": Form("up_proj", "down_proj", gate="gate_proj"),  # Llama, Mistral, Qwen, Gemma, OLMo and most others
    "gated w1 w2 w3": Form("w3", "w2", gate="w1"),  # LFM 2
    "packed": Form("gate_up_proj", "down_proj", packed=True),  # Phi 3 and 4, GLM
    "plain": Form("up_proj", "down_proj"),  # Nemotron, Apertus, Arcee, MPT
    "plain fc1": Form("fc1", "fc2"),  # Phi 1 and 2, OPT
    "plain fc_in": Form("fc_in", "fc_out"),  # GPT-J, CodeGen
    "plain c_fc": Form("c_fc", "c_proj"),  # GPT-2, whose matrices are transposed; StarCoder, GPT-Neo
    "plain dense": Form("dense_h_to_4h", "dense_4h_to_h"),  # GPT-NeoX (Pythia), Falcon, BLOOM, Persimmon
}
WHERE = "easyedit_packe/model/blocks.py: FORMS"
EXPERTS = "experts"
"""The form of a block that is a mixture of experts (`experts.py`)."""


@dataclass(frozen=True)
class Block:
    """The feed-forward block of one decoder layer.

    Attributes:
        path: its name in the model with `*` for the layer, e.g. `model.layers.*.mlp`; the layer's own where the
            matrices lie there.
        form: which of `FORMS`, or `EXPERTS`.
    """

    path: str
    layer: int
    form: str
    module: nn.Module

    @property
    def name(self) -> str:
        return self.path.replace("*", str(self.layer))

    def __getitem__(self, part: str) -> Any:
        return getattr(self.module, part)

    @property
    def transposed(self) -> bool:
        """`Conv1D` stores [in, out] (GPT-2), `nn.Linear` [out, in]."""
        from transformers.pytorch_utils import Conv1D

        return isinstance(self[FORMS[self.form].key], Conv1D)

    @property
    def width(self) -> int:
        """M: how many nodes of each kind."""
        return shape_of(self[FORMS[self.form].value])[0 if self.transposed else 1]


def is_plain(weight: object) -> TypeGuard[Tensor]:
    """Whether a weight holds the numbers that it stands for: not quantised, nor spread over processes."""
    return isinstance(weight, Tensor) and weight.is_floating_point() and type(weight.data) is Tensor


def shape_of(linear: Any) -> tuple[int, ...]:
    """[out, in] of an `nn.Linear`, however a quantised one stores it; that of the weight of others."""
    if not is_plain(linear.weight) and hasattr(linear, "out_features"):
        return linear.out_features, linear.in_features
    return tuple(linear.weight.shape)


def find_blocks(model: PreTrainedModel) -> list[Block]:
    """The block of each decoder layer, in their order.

    Raises:
        ModelError: a layer has no block of a known form, or several.
    """
    found = []
    where, layers = _decoder_layers(model)
    for i, layer in enumerate(layers):
        name = f"{where}.{i}"
        if any("expert" in n.rpartition(".")[2] for n, _ in layer.named_modules()):
            experts = find_experts(layer)
            if len(experts) != 1:
                raise ModelError(
                    f"expected one mixture of experts in {name} of {what(model)}, in the form that transformers has "
                    f"since 5.0 (one module with all experts' weights), found {len(experts)} among {_seen(layer)}; "
                    "choose a model of another family."
                )
            found.append(Block(f"{where}.*.{experts[0][0]}", i, EXPERTS, experts[0][1]))
            continue
        fits = [
            Block(f"{where}.*{part}", i, form, module)
            for part, module in [("", layer), *((f".{n}", c) for n, c in layer.named_children())]
            for form in FORMS
            if _fits(FORMS[form], module, whole=part != "")
        ]
        if len(fits) != 1:
            raise ModelError(
                f"expected one feed-forward block of a known form in {name} of {what(model)}, found {len(fits)} "
                f"among {_seen(layer)}; known are {', '.join('/'.join(f.linear) for f in FORMS.values())}. To add one, "
                f"give the names of its key and value modules in {WHERE}."
            )
        found += fits
    return found


def what(model: nn.Module) -> str:
    """The model, for an error message."""
    return f"{type(model).__name__} (model_type={getattr(getattr(model, 'config', None), 'model_type', None)!r})"


def _decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The layers that write text, and their name in the model; those of an image encoder are none of them."""
    count = text_config(model).num_hidden_layers if hasattr(model, "config") else None
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    lists = [c for c in decoder.children() if isinstance(c, nn.ModuleList) and len(c) == count]
    if len(lists) != 1:
        raise ModelError(
            f"expected one list of {count} decoder layers in {what(model)}, found {len(lists)} among "
            f"{', '.join(n for n, _ in decoder.named_children()) or 'nothing'}; pass a Hugging Face causal language "
            "model."
        )
    return next(name for name, m in model.named_modules() if m is lists[0]), lists[0]


def _fits(form: Form, module: nn.Module, whole: bool) -> bool:
    """Whether a module has the form's matrices, and, if it is a block as a whole and not a layer, no other."""
    parts = dict(module.named_children())
    if not set(form.linear) <= set(parts):
        return False
    others = (p for n, p in module.named_parameters() if n.partition(".")[0] not in form.linear)
    return not whole or all(p.ndim < 2 for p in others)


def _seen(layer: nn.Module) -> str:
    """What a layer is made of, for an error message: `mlp (router, experts)`."""
    parts = []
    for name, child in layer.named_children():
        inner = [n for n, c in child.named_children() if any(True for _ in c.parameters())]
        parts.append(f"{name} ({', '.join(inner)})" if inner else name)
    return ", ".join(parts) or "nothing"
