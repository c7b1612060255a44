"""Second moments of the inputs of feed-forward modules: which directions a text uses, and which it leaves free."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..model.config import max_tokens
from ..model.ffn import FFNMap, FFNModule, slice_dtype
from ..model.hooks import OutputHook, ends_with, output_hooks
from ..model.progress import shown
from ..requests import EditRequest, collate, fitting
from .places import alike, places

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DENSE = 4096
"""Most inputs of a module whose moment is summed as a whole."""


class InputMoments:
    """Mean of x x^T over the tokens seen, as far as a change of some nodes of a module needs it.

    The whole moment is summed: [D, D] for a key module, [M, M] for a value module. Where M is so large that the inputs
    themselves are smaller, these are kept, in bfloat16, and the moments of the chosen nodes are taken from them.

    All that is kept lies in main memory, wherever the model is: of a large model it is half as large as the model
    itself. `of_nodes`, which one edit needs, is computed on the module's device.

    Args:
        sparse: keep the inputs of all modules: smaller than their moments for a few tokens.
    """

    def __init__(self, sparse: bool = False) -> None:
        self.sparse = sparse
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self._whole: dict[str, Tensor] = {}
        self._sizes: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, m: FFNModule, x: Tensor) -> None:
        """Count inputs [T, in] of a module."""
        if not self.sparse and x.shape[1] <= DENSE:
            moment = (x.T @ x).cpu()
            self.sums[m.name] = self.sums[m.name] + moment if m.name in self.sums else moment
        else:
            x = x.to(torch.bfloat16).cpu()
            self.rows[m.name] = torch.cat([self.rows[m.name], x]) if m.name in self.rows else x
        self.counts[m.name] = self.counts.get(m.name, 0) + len(x)
        self._whole.pop(m.name, None)
        self._sizes.pop(m.name, None)

    def copied(self) -> InputMoments:
        """One that can go on by itself; tensors are never changed, and so shared."""
        other = InputMoments(self.sparse)
        other.sums, other.rows, other.counts = dict(self.sums), dict(self.rows), dict(self.counts)
        return other

    def accumulate(self, few: InputMoments) -> None:
        """Count the moments of the few inputs of another one, kept as they are, as one more term of plain sums, not of
        means. Where M is large inputs are kept here, too, scaled, until their moment is smaller."""
        for name, rows in few.rows.items():
            if name not in self.sums and rows.shape[1] > DENSE:
                rows = rows / len(rows) ** 0.5
                rows = torch.cat([self.rows.pop(name), rows]) if name in self.rows else rows
                if len(rows) < rows.shape[1]:
                    self.rows[name] = rows
                else:
                    self.sums[name] = second_moment(rows) * len(rows)
            else:
                moment = second_moment(rows)
                self.sums[name] = self.sums[name] + moment if name in self.sums else moment
            self.counts[name] = 1
            self._sizes.pop(name, None)
            self._whole.pop(name, None)

    def tensors(self) -> dict[str, Tensor]:
        """All that was counted, by name, for `load`; of a moment, which is symmetric, one half."""
        kinds = {"sums": {name: half(t) for name, t in self.sums.items()}, "rows": self.rows}
        found = {f"{kind}|{name}": t for kind, tensors in kinds.items() for name, t in tensors.items()}
        return found | {f"counts|{name}": torch.tensor(n) for name, n in self.counts.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for key, t in tensors.items():
            kind, name = key.split("|")
            if kind == "sums" and t.ndim == 1:  # version 0.1.0 wrote them whole
                t = mirrored(t)
            getattr(self, kind)[name] = int(t) if kind == "counts" else t

    def of_nodes(self, m: FFNModule, index: Tensor) -> Tensor:
        """What a change of the nodes `index` [k] reacts to: [D, D] of a key module, [k, k] of a value module."""
        device, index = m.weight.device, index.cpu()
        whole = m.kind == "key" or len(index) == m.num_nodes
        count = self.counts[m.name]
        if m.name in self.sums:
            total = self.sums[m.name]
            return ((total if whole else total[index][:, index]) / count).to(device)
        if m.name in self._whole and whole:
            return self._whole[m.name].to(device)
        rows = self.rows[m.name]
        found = second_moment((rows if m.kind == "key" else rows[:, index]).to(device))
        found = found if count == len(rows) else found * (len(rows) / count)
        if whole and not self.sparse:  # of many tokens, and the same for the next edit
            self._whole[m.name] = found.cpu()
        return found

    def usual_size(self, m: FFNModule) -> Tensor:
        """Root mean square of each input."""
        if m.name not in self._sizes:
            if m.name in self.sums:
                squares = self.sums[m.name].diagonal() / self.counts[m.name]
            else:
                squares = self.rows[m.name].float().square().mean(0)
            self._sizes[m.name] = squares.sqrt()
        return self._sizes[m.name]

    def scale(self, m: FFNModule) -> Tensor:
        """The usual square of an input, a number: their median, as in some layers a single node, which fires at the
        first token of every text, would make up the mean of all. Nodes that never fire, most of them in a layer of some
        ReLU models, are left out; 1 where none does."""
        squares = self.usual_size(m).square()
        fired = squares[squares > 0]
        return fired.median() if len(fired) else torch.ones_like(squares[0])

    @torch.no_grad()
    def count(
        self,
        model: PreTrainedModel,
        tok: Any,
        ffn: FFNMap,
        texts: Sequence[EditRequest],
        write_at: str,
        most: int,
        desc: str | None = None,
    ) -> None:
        """Count the inputs at those tokens of the texts' prompts where an edit would write; `most` texts at a time.

        Args:
            desc: of a progress bar, in a terminal; None shows none.
        """
        prompts = [e.begun for e in fitting(tok, texts, max_tokens(model))]
        pieces = alike([e.answer_start for e in prompts], most)
        for piece in shown(pieces, desc):
            rows = [prompts[i] for i in piece]
            batch = collate(rows, model.get_input_embeddings().weight.device)
            with self.watching(ffn.modules, places(rows, batch, write_at)), ends_with(ffn.modules[-1].module):
                model.base_model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)

    @contextmanager
    def watching(self, modules: Sequence[FFNModule], mask: Tensor | None) -> Iterator[None]:
        """While active, the inputs of each forward pass are counted: where `mask` is not 0, or all without one."""

        def watch(m: FFNModule) -> OutputHook:
            def hook(x: Tensor, _: Tensor) -> None:
                x = x.detach().flatten(0, -2) if mask is None else at_places(x.detach(), mask.bool())
                self.add(m, x.to(slice_dtype(x.dtype)))

            return hook

        with output_hooks([(m.module, watch(m)) for m in modules]):
            yield


def half(moment: Tensor) -> Tensor:
    """The lower triangle of a symmetric matrix [n, n], row after row: [n (n + 1) / 2]."""
    i, j = torch.tril_indices(*moment.shape)
    return moment[i, j]


def mirrored(lower: Tensor) -> Tensor:
    """The matrix of which `half` gave the lower triangle."""
    n = (math.isqrt(8 * len(lower) + 1) - 1) // 2
    i, j = torch.tril_indices(n, n)
    found = lower.new_empty(n, n)
    found[i, j] = found[j, i] = lower
    return found


def second_moment(x: Tensor) -> Tensor:
    """Mean of x x^T over the rows of [T, n]: [n, n]."""
    x = x.float() / len(x) ** 0.5
    return x.T @ x


def at_places(x: Tensor, at: Tensor) -> Tensor:
    """Where `at` [B, T] is true: of [B, T, width], or [B * T, width] as some models hand it to their modules."""
    return x.flatten(0, -2)[at.flatten().nonzero().squeeze(1).to(x.device)]


def damping(moment: Tensor, scale: Tensor, strength: float) -> Tensor:
    """The Cholesky factor of `M = I + strength * moment / scale`, lower triangular.

    M^-1 is nearly 1 on directions that the inputs leave free, nearly 0 on others.

    Raises:
        ModelError: the moment is not one in double precision, because inputs overflow.
    """

    def m(moment: Tensor) -> Tensor:
        found = (strength / scale).to(moment) * moment
        found.diagonal().add_(1)
        return found

    factor, failed = torch.linalg.cholesky_ex(m(moment))
    if failed:  # after very many edits, or with strong outliers, single precision loses the identity in the sum
        factor, failed = torch.linalg.cholesky_ex(m(moment.double()))
    if failed:
        raise ModelError(
            "expected activations that can be told apart, got some so large that nothing else counts: the model "
            "overflows in its dtype, or an edit before this one has broken it. Load it in float32 or bfloat16, or "
            "revert that edit and make it with a larger `ridge`."
        )
    return factor.to(moment)
