"""The scheme of the paper's authors without any shortcut, written for comparison.

One Adam over all feed-forward keys and values: full gradients and full moments for every one of these weights. For each
batch a forward, a backward, gradients zeroed outside the critical nodes and a step; then the same again for the
contrastive term and the negative nodes. Its momentum goes on moving nodes that are chosen no more. docs/paper.md names
the authors' program; tests/project/test_benchmarks.py holds this one to our reproduction of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.requests import Encoded


class DenseEditor:
    """One edit of one batch, in place."""

    def __init__(self, model: torch.nn.Module, requests: list[Encoded], hparams: PaCKEHyperParams) -> None:
        self.model, self.hparams = model, hparams
        self.ffn = FFNMap.of(model)
        model.requires_grad_(False)
        self.weights = {m.name: m.weight.requires_grad_(True) for m in self.ffn.modules}
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=hparams.lr, weight_decay=hparams.weight_decay)
        device = next(model.parameters()).device
        ids = pad_sequence([e.ids for e in requests], batch_first=True).to(device)
        mask = pad_sequence([torch.ones_like(e.ids) for e in requests], batch_first=True).to(device)
        self.inputs = {"input_ids": ids, "attention_mask": mask}
        self.labels = torch.full_like(ids, -100)
        for row, e in enumerate(requests):
            self.labels[row, e.answer_start : len(e.ids)] = e.answer
        with torch.no_grad():
            said = model(**self.inputs).logits.argmax(-1).roll(1, 1)  # what is said before a token stands at it
        self.unedited = said.where(self.labels != -100, -100)

    def run(self) -> None:
        """Trace again every `retrace_every` steps, as the authors do."""
        for step in range(self.hparams.num_steps):
            if step == 0 or (self.hparams.retrace_every and step % self.hparams.retrace_every == 0):
                self.trace()
            self.step()

    def backward(self, labels: Tensor, weight: float = 1.0) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.model(**self.inputs, labels=labels).loss * weight
        loss.backward()
        return loss.detach()

    def trace(self) -> None:
        # Importance is a sum of gradients over batches (here one), kept beside them as the authors keep it.
        importance = {m.name: torch.zeros_like(m.weight, dtype=torch.float32) for m in self.ffn.modules}
        self.backward(self.labels)
        for m in self.ffn.modules:
            importance[m.name] = importance[m.name] + m.weight.grad
        self.critical, self.negative = {}, {}
        for m in self.ffn.modules:
            g = importance[m.name]
            g = g.T if m.node_axis == 0 else g
            score = ((g - g.mean(1, keepdim=True)) / g.std(1, keepdim=True)).abs().mean(0)
            self.critical[m.name] = torch.argsort(score, descending=True, stable=True)[
                : self.hparams.num_critical_paths
            ]
            self.negative[m.name] = torch.argsort(score, stable=True)[: self.hparams.num_negative_paths]

    def step(self) -> Tensor:
        loss = self.masked_step(self.labels, self.critical, 1.0)
        if self.hparams.contrast_weight > 0:
            self.masked_step(self.unedited, self.negative, self.hparams.contrast_weight)
        return loss

    def masked_step(self, labels: Tensor, nodes: dict[str, Tensor], weight: float) -> Tensor:
        loss = self.backward(labels, weight)
        for m in self.ffn.modules:
            kept = m.weight.grad.index_select(m.node_axis, nodes[m.name])
            m.weight.grad.zero_()
            m.weight.grad.index_copy_(m.node_axis, nodes[m.name], kept)
        self.optimizer.step()
        return loss
