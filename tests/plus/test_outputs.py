"""What a change of an output does further on, against gradients taken one by one, and against the divergence itself."""

import pytest
import torch

from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.hooks import frozen
from easyedit_packe.plus import outputs
from easyedit_packe.plus.moments import InputMoments
from easyedit_packe.plus.outputs import in_units, onward, output_moments

from ..conftest import make_model

TEXTS = torch.randint(2, 12, (3, 5), generator=torch.Generator().manual_seed(1))


def shifted(model, m, at, by, ids):
    """Log probabilities [T - 1, V] of one text's tokens where a module's output at one of them is changed."""

    def hook(_, __, y):
        y = y.clone()
        y[..., at, m.first :] += by
        return y

    handle = m.module.register_forward_hook(hook)
    found = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    handle.remove()
    return found


def test_they_are_the_mean_square_of_each_tokens_gradient(architecture, monkeypatch):
    model = make_model(architecture, torch.float64)
    ffn = FFNMap.of(model)
    monkeypatch.setattr(outputs, "TOGETHER", 2)  # three texts in two pieces
    with frozen(model):
        found = output_moments(model, ffn, TEXTS)
        for m in ffn.modules:
            size = m.num_nodes if m.kind == "key" else ffn.hidden_size
            expected = torch.zeros(size, size, dtype=torch.float64)
            for ids in TEXTS:
                for at in range(1, len(ids)):
                    by = torch.zeros(size, dtype=torch.float64, requires_grad=True)
                    said = shifted(model, m, at, by, ids).gather(1, ids[1:, None]).sum()
                    (g,) = torch.autograd.grad(said, by, allow_unused=True)
                    expected += torch.outer(g, g) / (TEXTS.numel() - len(TEXTS))
            expected = expected.diagonal() if m.kind == "key" else expected
            torch.testing.assert_close(found[m.name].double(), expected, rtol=1e-4, atol=1e-9)


def test_it_is_what_a_small_change_costs_in_divergence():
    """Over texts that the model itself would write, each as often as it would."""
    model = make_model("llama", torch.float64)
    (m,) = (m for m in FFNMap.of(model).modules if m.kind == "value" and m.layer == 2)
    ids, d = TEXTS[0, :2], 1e-3 * torch.randn(FFNMap.of(model).hidden_size, dtype=torch.float64)
    with frozen(model):
        size = len(d)
        by = torch.zeros(size, dtype=torch.float64, requires_grad=True)
        logs = shifted(model, m, 0, by, ids)[0]
        gradients = torch.stack([torch.autograd.grad(x, by, retain_graph=True)[0] for x in logs])
        fisher = gradients.T @ (logs.exp()[:, None] * gradients)
        changed = shifted(model, m, 0, d, ids)[0]
        divergence = (logs.exp() * (logs - changed)).sum()
    torch.testing.assert_close(d @ fisher @ d / 2, divergence.detach(), rtol=2e-2, atol=0)


def test_units_in_which_nodes_of_both_kinds_can_be_compared():
    model = make_model("llama")
    ffn, usual = FFNMap.of(model), InputMoments()
    with frozen(model):
        with torch.no_grad(), usual.watching(ffn.modules, None):
            model(input_ids=TEXTS)
        found = output_moments(model, ffn, TEXTS)
    units = in_units(ffn.modules, found, usual)
    for key, value in zip(ffn.modules[::2], ffn.modules[1::2], strict=True):
        assert units[value.name].diagonal().mean().item() == pytest.approx(1.0, rel=1e-4)
        size = found[value.name].diagonal().mean() * usual.scale(value)
        torch.testing.assert_close(units[key.name], found[key.name] * usual.scale(key) / size)


def test_both_sides_are_damped_by_the_same_rule():
    moment = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    factor = onward(moment, 10.0)
    torch.testing.assert_close(factor @ factor.T, torch.eye(2) + 10 * moment)
    torch.testing.assert_close(onward(moment.diagonal(), 10.0), torch.tensor([21.0, 31.0]))
