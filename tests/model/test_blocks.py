"""A block that is not what its names say is refused, and so is a layer whose block is not known."""

import pytest
import torch
import transformers

from easyedit_packe.errors import ModelError
from easyedit_packe.model.blocks import EXPERTS, FORMS, Form, find_blocks
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.patch.layout import layout_info, layout_of

from ..conftest import assert_same_bits, snapshot
from ..families import FAMILIES, make_family


def test_every_form_is_that_of_a_tested_family():
    assert {family.form for family in FAMILIES.values()} == {*FORMS, EXPERTS}


def test_a_block_of_no_known_form_says_what_to_add_and_then_is_one(monkeypatch):
    model = make_family("llama")
    for layer in model.model.layers:
        layer.mlp.widen, layer.mlp.narrow = layer.mlp.up_proj, layer.mlp.down_proj
        del layer.mlp.up_proj, layer.mlp.down_proj
    seen = r"model\.layers\.0 of LlamaForCausalLM.*mlp \(gate_proj, widen, narrow\).*FORMS"
    with pytest.raises(ModelError, match=seen):
        FFNMap.of(model)
    monkeypatch.setitem(FORMS, "mine", Form("widen", "narrow", gate="gate_proj"))
    monkeypatch.setattr(
        type(model.model.layers[0].mlp),
        "forward",
        lambda mlp, x: mlp.narrow(mlp.act_fn(mlp.gate_proj(x)) * mlp.widen(x)),
    )
    assert [m.name.rpartition(".")[2] for m in FFNMap.of(model).modules] == ["widen", "narrow"] * 2
    assert layout_of(layout_info(model)) == (
        [f"model.layers.*.mlp.{n}" for n in ("gate_proj", "narrow", "widen")],
        False,
    )


def test_a_model_without_decoder_layers():
    with pytest.raises(ModelError, match="pass a Hugging Face causal language model"):
        find_blocks(torch.nn.Linear(2, 2))


def test_a_block_with_a_matrix_that_no_form_has():
    model = make_family("llama")
    model.model.layers[1].mlp.experience = torch.nn.Linear(16, 4)
    with pytest.raises(ModelError, match=r"found 0 among"):
        find_blocks(model)
    model.model.layers[1].mlp.experience = torch.nn.LayerNorm(16)  # no matrix: what it does is seen below
    assert len(find_blocks(model)) == 2


@pytest.mark.parametrize("layer", [0, 1])
def test_mixtures_of_experts_of_another_form_are_refused(layer):
    """Also where the first layer is of a known one."""
    model = make_family("mixtral")
    model.model.layers[layer].mlp.experts = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(4))
    with pytest.raises(
        ModelError, match=rf"expected one mixture of experts in model\.layers\.{layer} .*found 0.*another"
    ):
        FFNMap.of(model)


def test_first_layers_without_experts():
    """Also where one shared expert has the names of a dense block."""
    of = transformers.DeepseekV3ForCausalLM
    model = of(of.config_class(**FAMILIES["deepseek_v3"].options | {"first_k_dense_replace": 1}))
    assert [b.path for b in find_blocks(model)] == ["model.layers.*.mlp", "model.layers.*.mlp.experts"]
    assert [m.num_nodes for m in FFNMap.of(model).modules] == [24, 24, 32, 32]


def test_experts_that_compute_something_else_are_refused(monkeypatch):
    model = make_family("mixtral", torch.float32)
    experts = type(model.model.layers[0].mlp.experts)
    own = experts.forward
    monkeypatch.setattr(experts, "forward", lambda self, x, *routed: own(self, x, *routed) + x)
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.experts has the form.*computes something else"):
        FFNMap.of(model)
    monkeypatch.setattr(experts, "_apply_gate", lambda self, y: y.chunk(2, -1)[0] + y.chunk(2, -1)[1].square())
    with pytest.raises(ModelError, match="to multiply each key's output by its gate"):
        FFNMap.of(model)


def swapped(mlp, x):
    return mlp.down_proj(mlp.gate_proj(x) * mlp.act_fn(mlp.up_proj(x)))


def unordered(mlp, x):
    return mlp.down_proj((mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)).flip(-1))


def normalised(mlp, x):
    inner = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
    return mlp.down_proj(inner / inner.norm(dim=-1, keepdim=True))


def apart(mlp, x):
    return torch.nn.functional.linear(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight)


def up_first(mlp, x):
    up, gate = mlp.gate_up_proj(x).chunk(2, dim=-1)
    return mlp.down_proj(up * mlp.activation_fn(gate))


def interleaved(mlp, x):
    gate, up = mlp.gate_up_proj(x).unflatten(-1, (-1, 2)).unbind(-1)
    return mlp.down_proj(up * mlp.activation_fn(gate))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("family", "code", "message"),
    [
        ("llama", swapped, "not in proportion to the outputs of up_proj"),
        ("llama", unordered, "does not move with key j of up_proj alone"),
        ("llama", normalised, "does not move with key j of up_proj alone"),
        ("llama", apart, "up_proj does not come before down_proj"),
        ("phi3", up_first, "not in proportion to the outputs of gate_up_proj"),
        ("phi3", interleaved, "does not move with key j of gate_up_proj alone"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_right_names_and_other_code(family, code, message, dtype, monkeypatch):
    model = make_family(family, dtype)
    monkeypatch.setattr(type(model.model.layers[0].mlp), "forward", code)
    before = snapshot(model)
    with pytest.raises(ModelError, match=rf"model\.layers\.0\.mlp has the names .*{message}"):
        FFNMap.of(model)
    assert_same_bits(model, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", sorted({f.form: name for name, f in FAMILIES.items()}.values()))
def test_every_form_is_recognised_in_every_dtype(family, dtype):
    assert len(FFNMap.of(make_family(family, dtype)).modules) == 4


def test_a_family_that_normalises_between_keys_and_values():
    from transformers import BitNetForCausalLM

    torch.manual_seed(0)  # and weights that are not so small that the norm's epsilon hides what it does
    options = FAMILIES["llama"].options | {"initializer_range": 0.2}
    model = BitNetForCausalLM(BitNetForCausalLM.config_class(**options))
    with pytest.raises(ModelError, match=r"input j of down_proj does not move with key j of up_proj alone"):
        FFNMap.of(model)


def test_a_family_whose_code_leaves_its_modules_out():
    """BLOOM computes its values past the module where it imitates the training on several devices."""
    model = make_family("bloom")
    for block in model.transformer.h:
        block.mlp.pretraining_tp, block.mlp.slow_but_exact = 2, True
    with pytest.raises(ModelError, match="dense_h_to_4h does not come before dense_4h_to_h"):
        FFNMap.of(model)


def test_shapes_that_do_not_belong_together():
    model = make_family("llama")
    mlp = model.model.layers[1].mlp
    mlp.up_proj = torch.nn.Linear(16, 20, bias=False, dtype=torch.float64)
    with pytest.raises(ModelError, match=r"as many keys as values and gates in model\.layers\.1\.mlp"):
        FFNMap.of(model)
