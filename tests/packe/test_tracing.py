"""Scores are those of the dense gradient, and the chosen path is the best of all paths."""

import itertools

import pytest
import torch

from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.tracing import choose_nodes, scores_from_gradient, trace
from easyedit_packe.requests import collate, encode, read_requests

from ..conftest import REQUESTS, make_model, make_tokenizer
from ..dense import as_d_by_m, dense_scores
from ..live_bytes import peak_bytes

SCORES = ["zscore", "gradient_sum", "gradient_norm"]


def parts_of(model, requests=REQUESTS, size=None):
    encoded = encode(make_tokenizer(), read_requests(requests))
    size = size or len(encoded)
    batches = [collate(encoded[i : i + size]) for i in range(0, len(encoded), size)]
    return [lambda b=b: token_losses(answer_logits(model, b), b.targets).sum() for b in batches]


def traced(model, score, requests=REQUESTS, size=None, matrices=1):
    with frozen(model):
        return trace(FFNMap.of(model), parts_of(model, requests, size), score, matrices)


def dense_gradients(model, requests=REQUESTS):
    ffn = FFNMap.of(model)
    sum(part() for part in parts_of(model, requests)).backward()
    return {
        m.name: (as_d_by_m(m, m.weight.grad), m.bias.grad if m.has_node_bias else None) for m in ffn.modules
    }  # fmt: skip


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("size", "matrices"), [(None, 1), (1, 1), (2, 4)])
def test_scores_equal_those_of_the_dense_gradient(architecture, score, size, matrices):
    model = make_model(architecture, torch.float64)
    ours = traced(model, score, size=size, matrices=matrices)
    expected = dense_scores(dense_gradients(model), score)
    assert ours.keys() == expected.keys()
    atol = 1e-6 if architecture == "gptj" else 1e-11  # GPT-J computes attention in float32
    for name in expected:
        torch.testing.assert_close(
            ours[name], expected[name], rtol=0, atol=atol * (1 + expected[name].abs().max().item())
        )


@pytest.mark.parametrize("kind", ["key", "value"])
def test_gradient_sum_is_the_slope_of_the_loss_along_a_node(architecture, kind):
    model = make_model(architecture, torch.float64)
    scores = traced(model, "gradient_sum")
    m = next(m for m in FFNMap.of(model).modules if m.kind == kind and m.layer == 1)
    part, eps, j = parts_of(model)[0], 1e-3, 5
    at = m.first + j
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            m.weight.select(m.node_axis, at).add_(sign * eps)
            if m.has_node_bias:
                m.bias[at] += sign * eps
            values.append(part().item())
            m.weight.select(m.node_axis, at).sub_(sign * eps)
            if m.has_node_bias:
                m.bias[at] -= sign * eps
    slope = (values[0] - values[1]) / (2 * eps)
    # Llama's norm and GPT-J's attention compute in float32 inside a float64 model: hence the step and the tolerance.
    assert scores[m.name][j].item() == pytest.approx(slope, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("architecture", ["gptj", "gpt2"])
def test_the_signed_sum_of_value_nodes_vanishes_under_layer_norm(architecture):
    """LayerNorm ignores a constant added to every entry, so Eq. 6 as printed cannot rank these value nodes."""
    model = make_model(architecture, torch.float64)
    total, size = traced(model, "gradient_sum"), traced(model, "gradient_norm")
    for m in FFNMap.of(model).modules:
        relative = (total[m.name].abs().max() / size[m.name].max()).item()
        assert (relative < 1e-5) == (m.kind == "value"), m.name


@pytest.mark.parametrize("score", SCORES)
def test_tracing_returns_the_best_of_all_paths(score):
    """All (4 x 4)^2 paths of a model with 2 layers and 4 nodes a module, scored one by one."""
    model = make_model("llama", torch.float64, layers=2, intermediate_size=4)
    scores = traced(model, score)
    dense = dense_scores(dense_gradients(model), score)
    names = list(dense)
    paths = {
        p: sum(dense[n][j].item() for n, j in zip(names, p, strict=True)) for p in itertools.product(range(4), repeat=4)
    }
    nodes = choose_nodes(scores, 1, 1)
    assert tuple(nodes.critical[n].item() for n in names) == max(paths, key=paths.get)
    assert tuple(nodes.negative[n].item() for n in names) == min(paths, key=paths.get)


def test_a_row_without_gradient_counts_as_zero():
    gradient = torch.randn(4, 6, dtype=torch.float64)
    gradient[2] = 0
    others = gradient[[0, 1, 3]].clone()
    score = scores_from_gradient(gradient.clone(), "zscore")
    torch.testing.assert_close(score, scores_from_gradient(others, "zscore") * 3 / 4)


def test_ties_go_to_the_lower_index():
    nodes = choose_nodes({"m": torch.tensor([1.0, 2.0, 2.0, 0.0, 0.0])}, 2, 1)
    assert nodes.critical["m"].tolist() == [1, 2]
    assert nodes.negative["m"].tolist() == [3]


@pytest.mark.parametrize(("size", "matrices"), [(None, 1), (1, 1)])
def test_at_most_one_matrix_exists_while_tracing(size, matrices):
    model = make_model("llama", layers=2, hidden_size=512, intermediate_size=4096)
    matrix = 512 * 4096 * 4
    with frozen(model):
        activations = peak_bytes(lambda: traced(model, "gradient_sum", size=None))
        used = peak_bytes(lambda: traced(model, "zscore", size=size, matrices=matrices))
    assert activations < matrix, "the model is too small for this test to tell"
    assert used - activations <= 1.1 * matrix
