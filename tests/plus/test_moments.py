"""Moments and damping, by hand."""

import pytest
import torch

from easyedit_packe.errors import ModelError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.plus.moments import InputMoments, damping, half, mirrored

from ..conftest import make_model


def test_damping_solves_the_ridge_problem():
    """Ridge regression: the u with x* . u = 1 that reacts least to X is in direction (I + s X^T X)^-1 x*."""
    torch.manual_seed(0)
    x, own = torch.randn(40, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    moment = x.T @ x / len(x)
    scale, strength = moment.diagonal().mean(), 5.0
    u = torch.cholesky_solve(own[:, None], damping(moment, scale, strength))[:, 0]
    u = u / (own @ u)

    def cost(v):
        return v @ v + strength / scale * (x @ v).square().mean()

    for _ in range(20):
        step = torch.randn(6, dtype=torch.float64) * 0.1
        other = u + step - own * (own @ step) / (own @ own)
        assert cost(other) >= cost(u)
    assert torch.equal(damping(moment, scale, 0.0), torch.eye(6, dtype=torch.float64))


def test_damping_survives_single_precision():
    """A direction so much stronger than the identity that their sum loses it."""
    factor = damping(1e8 * torch.ones(3, 3), torch.tensor(1.0), 1.0)
    torch.testing.assert_close(factor[-1, -1], torch.tensor(1.5**0.5))  # 1 + 1e8 * (1 - 2e8 / (2e8 + 1))


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1.0])
def test_what_is_no_moment_is_refused_with_the_remedy(broken):
    """As of a model whose activations an earlier edit made overflow."""
    with pytest.raises(ModelError, match=r"overflows in its dtype, or an edit before this one has broken it\. Load it"):
        damping(broken * torch.eye(3), torch.tensor(1.0), 2.0)


def test_moments_of_key_and_value_inputs(architecture):
    model = make_model(architecture)
    ids = torch.randint(2, 12, (2, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    ffn = FFNMap.of(model)
    seen = {}
    handles = [
        m.module.register_forward_hook(lambda _, args, __, n=m.name: seen.update({n: args[0]})) for m in ffn.modules
    ]
    dense, sparse = InputMoments(), InputMoments(sparse=True)
    with torch.no_grad(), dense.watching(ffn.modules, mask), sparse.watching(ffn.modules, mask):
        model(input_ids=ids, attention_mask=mask)
    for h in handles:
        h.remove()
    index = torch.tensor([3, 7])
    for m in ffn.modules:
        x = torch.cat([seen[m.name][0], seen[m.name][1, :3]])
        usual = x.square().mean(0).sqrt()
        x = x if m.kind == "key" else x[:, index]
        for moments, tolerance in ((dense, 1e-5 if m.kind == "key" else 3e-2), (sparse, 3e-2)):
            found = moments.of_nodes(m, index)
            torch.testing.assert_close(found, x.T @ x / len(x), rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(moments.usual_size(m), usual, rtol=tolerance, atol=tolerance)


def test_one_node_that_fires_at_the_first_token_does_not_set_the_scale():
    (m,) = FFNMap.of(make_model("llama")).modules[1:2]
    usual = InputMoments()
    x = torch.ones(10, m.num_nodes)
    x[0, 3] = 1e4
    usual.add(m, x)
    assert usual.scale(m) == 1


def test_nodes_that_never_fire_do_not_set_the_scale():
    """Most nodes of a layer in some ReLU models; where no node fires, any scale will do."""
    (m,) = FFNMap.of(make_model("llama")).modules[1:2]
    few, none = InputMoments(), InputMoments()
    x = torch.zeros(10, m.num_nodes)
    none.add(m, x)
    x[:, :3] = 2.0
    few.add(m, x)
    assert (few.scale(m), none.scale(m)) == (4, 1)
    assert torch.linalg.cholesky_ex(damping(none.of_nodes(m, torch.arange(4)), none.scale(m), 200.0))[1] == 0


def test_a_symmetric_matrix_is_saved_by_half():
    matrix = torch.tensor([[1.0, 2, 4], [2, 3, 5], [4, 5, 6]])
    assert half(matrix).tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.equal(mirrored(half(matrix)), matrix)


def test_moments_come_back_from_half_of_them_and_from_whole_ones():
    """As version 0.1 saved them."""
    m = FFNMap.of(make_model("llama")).modules[1]
    seen = InputMoments()
    seen.add(m, torch.randn(5, m.num_nodes))
    tensors = seen.tensors()
    assert tensors[f"sums|{m.name}"].numel() == m.num_nodes * (m.num_nodes + 1) / 2
    for saved in (tensors, tensors | {f"sums|{m.name}": seen.sums[m.name]}):
        again = InputMoments()
        again.load(saved)
        index = torch.tensor([0, 3, 4])
        assert torch.equal(again.of_nodes(m, index), seen.of_nodes(m, index))
