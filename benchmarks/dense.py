"""The authors' scheme without any shortcut, written for comparison (DESIGN 2.4, points 3 and 4).

Full gradients and full Adam moments for every feed-forward key and value weight. For each batch a forward, a backward,
gradients zeroed outside the critical nodes and a step; then the same again for the contrastive term and negative nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from easyedit_packe.ffn import FFNMap
from easyedit_packe.requests import Encoded, collate


class DenseEditor:
    """One edit of one batch; `trace` once, then `step` as often as wanted. Changes the model's weights."""

    def __init__(self, model: torch.nn.Module, requests: list[Encoded], hparams) -> None:
        self.model, self.hparams = model, hparams
        self.ffn = FFNMap.of(model)
        model.requires_grad_(False)
        self.weights = {m.name: m.weight.requires_grad_(True) for m in self.ffn.modules}
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=hparams.lr, weight_decay=hparams.weight_decay)
        batch = collate(requests, next(model.parameters()).device)
        self.inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        self.labels = torch.full_like(batch.ids, -100)
        self.labels[batch.rows, batch.cols + 1] = batch.targets
        with torch.no_grad():
            said = model(**self.inputs).logits.argmax(-1)
        self.unedited = torch.full_like(batch.ids, -100)
        self.unedited[batch.rows, batch.cols + 1] = said[batch.rows, batch.cols]

    def backward(self, labels: Tensor, weight: float = 1.0) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.model(**self.inputs, labels=labels).loss * weight
        loss.backward()
        return loss.detach()

    def trace(self) -> None:
        self.backward(self.labels)
        self.critical, self.negative = {}, {}
        for m in self.ffn.modules:
            g = m.weight.grad.float()
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
