"""The least change, against dense linear algebra."""

import torch

from easyedit_packe.plus.least_change import Writes, least_change
from easyedit_packe.plus.moments import damping


def random_writes(seed=0, tokens=7):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def factor(size):
        x = normal(30, size)
        return damping(x.T @ x / 30, torch.tensor(0.5, dtype=torch.float64), 4.0)

    key = Writes(normal(tokens, 3), normal(tokens, 5), normal(3).exp(), factor(5))
    value = Writes(normal(tokens, 4), normal(tokens, 5), factor(4), factor(5))
    plain = Writes(normal(tokens, 2), normal(tokens, 5), None, None)
    return [key, value, plain]


def whole(factor, size):
    if factor is None:
        return torch.eye(size, dtype=torch.float64)
    return factor.diag() if factor.ndim == 1 else factor @ factor.T


def test_the_least_change_by_dense_linear_algebra():
    """Minimise the quadratic form subject to the rows' equations, written out with full matrices."""
    writes, rows = random_writes(), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    wanted = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = least_change(writes, rows, wanted, ridge=1e-12)
    jacobian, form = [], []
    for w in writes:
        per_token = w.nodes[:, :, None] * w.hidden[:, None, :]
        of_rows = torch.zeros(3, *per_token.shape[1:], dtype=torch.float64).index_add(0, rows, per_token)
        jacobian.append(of_rows.reshape(3, -1))
        form.append(torch.kron(*(whole(f, x.shape[1]) for f, x in ((w.of_nodes, w.nodes), (w.of_hidden, w.hidden)))))
    jacobian, form = torch.cat(jacobian, 1), torch.block_diag(*form)
    inverse = torch.linalg.inv(form)
    dense = inverse @ jacobian.T @ torch.linalg.solve(jacobian @ inverse @ jacobian.T, wanted)
    flat = torch.cat([c.reshape(-1) for c in found])
    torch.testing.assert_close(flat, dense, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(jacobian @ flat, wanted, rtol=1e-6, atol=1e-9)


def test_a_row_that_nothing_can_move_asks_for_nothing():
    writes, rows = random_writes(), torch.tensor([0, 0, 0, 0, 2, 2, 2])
    wanted = torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64)
    with_it = least_change(writes, rows, wanted, 0.01)
    without = least_change(writes, torch.where(rows == 2, 1, 0), wanted[[0, 2]], 0.01)
    for a, b in zip(with_it, without, strict=True):
        torch.testing.assert_close(a, b)


def test_by_its_own_scale_a_row_that_hardly_moves_is_not_given_up_for_others():
    """The change does not depend on the units of a row's number: the ridge is relative to each row's own gradient."""
    writes, rows = random_writes(), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    wanted = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    unit = torch.tensor([1.0, 1e-3, 1.0], dtype=torch.float64)
    scaled = [Writes(w.nodes * unit[rows][:, None], w.hidden, w.of_nodes, w.of_hidden) for w in writes]
    found = least_change(scaled, rows, wanted * unit, 0.3)
    for a, b in zip(found, least_change(writes, rows, wanted, 0.3), strict=True):
        torch.testing.assert_close(a, b)
