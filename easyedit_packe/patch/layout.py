"""What a patch says of its model's feed-forward blocks, so that it can be exported without the model."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ModelError, PatchError
from ..model.blocks import EXPERTS, FORMS, find_blocks

_OLD = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3"), "gated"),
    "gptj": "plain fc_in",
    "gpt2": "plain c_fc",
}
"""The families of version 0.1.0, whose patches name the family alone, and their form."""


def layout_info(model: nn.Module) -> dict[str, Any]:
    """`ffn`: names of the blocks' linear modules, `*` for the layer, and whether they are stored [in, out].

    Empty if the blocks are of no known form.
    """
    try:
        blocks = find_blocks(model)
    except ModelError:
        return {}
    dense = [b for b in blocks if b.form != EXPERTS]
    linear = sorted({f"{b.path}.{name}" for b in dense for name in FORMS[b.form].linear})
    return {"ffn": {"linear": linear, "transposed": any(b.transposed for b in dense)}}


def layout_of(info: dict[str, Any]) -> tuple[list[str], bool]:
    """The names and the orientation that `layout_info` gave a patch.

    Raises:
        PatchError: the patch does not say.
    """
    if "ffn" in info:
        return info["ffn"]["linear"], info["ffn"]["transposed"]
    form = FORMS.get(_OLD.get(str(info.get("model_type")), ""))
    if form is None:
        raise PatchError(
            "expected a patch of a model whose feed-forward blocks have a known form (docs/models.md), got one of "
            f"model_type {info.get('model_type')!r} that says nothing of its architecture; make the edit again."
        )
    return [f"*.mlp.{name}" for name in form.linear], info["model_type"] == "gpt2"
