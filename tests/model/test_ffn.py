"""The map of key and value vectors is right for each architecture, by what a node does and not by its shape."""

import pytest
import torch

from easyedit_packe.errors import ModelError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.hooks import output_hooks

from ..conftest import make_model


def outputs(model, modules, ids):
    seen = {}
    hooks = [
        (m.module, lambda x, y, m=m: seen.update({m.name: (x.detach().clone(), y.detach().clone())})) for m in modules
    ]
    with output_hooks(hooks), torch.no_grad():
        model(ids)
    return seen


def test_key_node_j_moves_only_inner_unit_j(architecture):
    model, ids = make_model(architecture), torch.tensor([[3, 4, 5]])
    m = FFNMap.of(model).modules[0]
    assert m.kind == "key"
    before = outputs(model, [m], ids)[m.name][1]
    node = torch.tensor([7])
    m.weight.data.index_add_(m.node_axis, m.places(node), torch.ones_like(m.nodes(node)).movedim(0, m.node_axis))
    changed = (outputs(model, [m], ids)[m.name][1] != before).flatten(0, 1).any(0)
    assert changed.nonzero().squeeze(1).tolist() == [m.first + 7]


def test_value_node_j_is_added_in_proportion_to_inner_unit_j(architecture):
    model, ids = make_model(architecture), torch.tensor([[3, 4, 5]])
    m = FFNMap.of(model).modules[1]
    assert m.kind == "value"
    x, before = outputs(model, [m], ids)[m.name]
    change = torch.randn(16)
    m.weight.data.index_add_(m.node_axis, torch.tensor([7]), change[None].movedim(0, m.node_axis))
    after = outputs(model, [m], ids)[m.name][1]
    torch.testing.assert_close(after - before, x[..., 7:8] * change, rtol=1e-4, atol=1e-5)


def test_modules_in_forward_order(architecture):
    ffn = FFNMap.of(make_model(architecture))
    assert [(m.layer, m.kind) for m in ffn.modules] == [(i, k) for i in range(3) for k in ("key", "value")]
    assert ffn.hidden_size == 16
    assert ffn.num_nodes == ffn.modules[1].num_nodes == (32 if architecture.startswith("gpt") else 24)
    assert all(m.has_node_bias == (m.kind == "key" and architecture.startswith("gpt")) for m in ffn.modules)


def test_weights_that_cannot_be_edited():
    model = make_model("llama")
    weight = model.model.layers[1].mlp.up_proj.weight
    model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(weight.to("meta"))
    with pytest.raises(ModelError, match="offloaded"):
        FFNMap.of(model)
    model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="unquantised"):
        FFNMap.of(model)
    with torch.inference_mode():
        model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(weight.clone())
    with pytest.raises(ModelError, match="inference_mode"):
        FFNMap.of(model)
