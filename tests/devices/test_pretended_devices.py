"""The pretended devices refuse what real ones refuse, and nothing else."""

import copy

import pytest
import torch

from ..conftest import make_model
from ..pretended_devices import pretended_devices, spread

FIRST, SECOND, CPU = torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu")
MIXED = "Expected all tensors to be on the same device"
ON_CPU = torch.arange(3.0)


@pytest.fixture
def placed():
    with pretended_devices() as placed:
        yield placed


def two():
    return ON_CPU.to(FIRST), ON_CPU.to(SECOND)


MIXTURES = {
    "add": lambda a, b: a + b,
    "add in place": lambda a, b: a.add_(b),
    "matrix product": lambda a, b: a @ b,
    "cat": lambda a, b: torch.cat([a, b]),
    "stack of numbers": lambda a, b: torch.stack([a[0], b[0]]),
    "equal": torch.equal,
    "where": lambda a, b: torch.where(a > 0, a, b),
    "index_select": lambda a, b: a.index_select(0, b.long()),
    "index_copy": lambda a, b: a.index_copy_(0, torch.arange(3, device=a.device), b),
    "index_add": lambda a, b: a.index_add(0, b.long(), a),
    "assigned by index": lambda a, b: a.index_put_((torch.arange(3),), b),
    "cross entropy": lambda a, b: torch.nn.functional.cross_entropy(a[None], b[:1].long()),
    "foreach": lambda a, b: torch._foreach_add([a], [b]),
    "gradient": lambda a, b: setattr(a, "grad", b),
}


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("other", [SECOND, CPU])
def test_a_mixture_is_refused_and_fine_after_moving(placed, name, other):
    a, b = ON_CPU.to(FIRST), ON_CPU.to(other)
    with pytest.raises(RuntimeError, match=MIXED):
        MIXTURES[name](a, b)
    assert len(placed.refused) == 1
    MIXTURES[name](a, b.to(a.device))
    assert len(placed.refused) == 1


def test_indices_may_lie_on_the_cpu_or_beside_what_they_index(placed):
    a, b = two()
    index = torch.tensor([0, 2])
    assert a[index].device == a[index.to(FIRST)].device == FIRST
    a[index] = torch.ones(2, device=FIRST)
    a[index] = torch.tensor(5.0)
    assert a.tolist() == [5, 1, 5]
    for t, i in ((a, b.long()), (ON_CPU, a.long())):
        with pytest.raises(RuntimeError, match="indices should be either on cpu or on the same device"):
            t[i]


def test_numbers_on_the_cpu_may_be_read_but_take_nothing(placed):
    a, number = ON_CPU.to(FIRST), torch.tensor(2.0)
    assert (a * number).device == (number * a).device == (a[0] * number).device == FIRST
    with pytest.raises(RuntimeError, match=MIXED):
        number += a[0]
    with pytest.raises(RuntimeError, match=MIXED):
        torch.stack([a[0], number])
    with pytest.raises(RuntimeError, match=MIXED):
        a[0] + ON_CPU.to(SECOND)[0]


def test_devices_follow_views_results_and_assignments(placed):
    a, _ = two()
    assert a.device == a[1:].device == a.view(3, 1).device == (a + 1).device == torch.zeros_like(a).device == FIRST
    assert a.new_zeros(2).device == torch.zeros(2, device="cuda:0").device == torch.empty(1, device=FIRST).device
    assert torch.zeros_like(a, device=SECOND).device == SECOND
    assert torch.zeros(2).device == a.cpu().device == a.to("cpu", torch.float16).device == CPU
    assert a.is_cuda
    assert not a.cpu().is_cuda
    assert a.to(FIRST) is a
    assert a.to(SECOND) is not a
    assert a.to(ON_CPU) is not a
    b = ON_CPU.clone()
    b.copy_(a)
    assert b.device == CPU
    b.data = a
    assert b.device == copy.deepcopy(b).device == FIRST
    layer = torch.nn.Linear(2, 2).to(SECOND)
    assert layer.weight.device == copy.deepcopy(layer).weight.device == SECOND
    with pytest.raises(TypeError, match="to numpy"):
        a.numpy()


def test_gradients_come_back_to_where_they_belong(placed):
    a = ON_CPU.to(FIRST).requires_grad_()
    b = (2 * a).to(SECOND)
    b.register_hook(lambda g: seen.append((g.device, torch.zeros(1, device=g.device).device)))
    seen = []
    (b * b).sum().backward()
    assert seen == [(SECOND, SECOND)]
    assert a.grad.device == FIRST
    assert a.grad.tolist() == [0, 8, 16]
    losses = torch.stack([(a * b).sum() for b in ((3 * a).to(SECOND).to(FIRST), a)])
    (g,) = torch.autograd.grad(losses, [a], torch.eye(2, device=FIRST), is_grads_batched=True)
    assert g.device == FIRST
    assert g.tolist() == [[0, 6, 12], [0, 2, 4]]


def test_the_spread_model_needs_its_hooks(architecture, placed):
    from accelerate.hooks import remove_hook_from_module

    plain = make_model(architecture, tie_word_embeddings=False)
    model = spread(copy.deepcopy(plain))
    ids = torch.tensor([[3, 4, 5]])
    assert {p.device.index for p in model.parameters()} == {0, 1, 2}
    assert model.get_output_embeddings().weight.device.index == 2
    assert torch.equal(model(ids).logits.cpu(), plain(ids).logits)
    assert placed.refused == []
    remove_hook_from_module(model, recurse=True)
    with pytest.raises(RuntimeError, match=MIXED):
        model(ids.to(FIRST))


def test_outside_nothing_is_pretended():
    with pretended_devices():
        a, b = two()
    assert a.device == b.device == CPU
    assert (a + b).tolist() == [0, 2, 4]
