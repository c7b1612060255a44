"""The method without any of our shortcuts: full gradients, masks and a full Adam, for tests to compare with."""

from __future__ import annotations

import torch

from easyedit_packe.model.ffn import ExpertsModule, FFNMap


def as_d_by_m(m, tensor):
    """The nodes of a weight-shaped tensor of a module as [D, M]."""
    if isinstance(m, ExpertsModule):  # [E, ., .]; keys behind, or between, their gates
        nodes = tensor if m.node_axis == 0 else tensor.transpose(1, 2)
        return (nodes[:, m.experts.up] if m.kind == "key" else nodes).flatten(0, 1).T
    nodes = tensor.narrow(m.node_axis, m.first, m.num_nodes)
    return nodes.T if m.node_axis == 0 else nodes


def of_nodes(m, bias):
    """The nodes' entries of a bias-shaped tensor of a key module [M]; None where the bias belongs to no node."""
    if not m.has_node_bias or bias is None:
        return None
    return bias[:, m.experts.up].flatten() if isinstance(m, ExpertsModule) else bias[m.first :]


def mark(m, tensor, nodes, is_bias=False):
    """Of a weight- or bias-shaped tensor only what belongs to these nodes; all of a value module's bias."""
    if is_bias and m.kind == "value":
        return tensor
    mask = torch.zeros_like(tensor)
    if isinstance(m, ExpertsModule):
        expert, at = nodes // m.experts.width, nodes % m.experts.width
        at = m.experts.up[at] if m.kind == "key" else at
        (mask.transpose(1, 2) if m.node_axis == 1 and not is_bias else mask)[expert, at] = 1.0
    else:
        mask.index_fill_(0 if is_bias else m.node_axis, nodes + m.first, 1.0)
    return tensor * mask


def dense_scores(gradients, score):
    """Scores of all nodes from {name: (weight gradient [D, M], bias gradient [M] or None)}, as the formulas read."""
    out = {}
    for name, (g, b) in gradients.items():
        if score == "zscore":
            out[name] = ((g - g.mean(1, keepdim=True)) / g.std(1, keepdim=True)).abs().mean(0)
        else:
            g = g if b is None else torch.cat([g, b[None]])
            out[name] = g.sum(0) if score == "gradient_sum" else g.norm(dim=0)
    return out


class DenseEditor:
    """Runs PaCKE on `model` in place. `encoded` are requests from `easyedit_packe.requests.encode`."""

    def __init__(self, model, encoded, hp):
        self.model, self.encoded, self.hp = model, encoded, hp
        self.ffn = FFNMap.of(model)
        model.requires_grad_(False)
        self.params = {}
        for m in self.ffn.modules:
            self.params[f"{m.name}.weight"] = m.weight
            if m.bias is not None and (m.kind == "key" or hp.value_bias == "trained"):
                self.params[f"{m.name}.bias"] = m.bias
        self.start = {n: p.detach().clone() for n, p in self.params.items()}
        for p in self.params.values():
            p.requires_grad_(True)
        self.nodes, self.losses = [], []
        self.y = {i: self.logits(i).argmax(-1).detach() for i in range(len(encoded))}

    def logits(self, i):
        e = self.encoded[i]
        return self.model(e.ids[None]).logits[0, e.answer_start - 1 : -1]

    def loss(self, batch, labels):
        n = sum(len(self.encoded[i].answer) for i in batch)
        return sum(
            torch.nn.functional.cross_entropy(self.logits(i), labels(i), reduction="sum") for i in batch
        ) / n  # fmt: skip

    def target(self, i):
        return self.encoded[i].answer

    def grads(self, loss):
        return dict(zip(self.params, torch.autograd.grad(loss, list(self.params.values())), strict=True))

    def batches(self):
        size = self.hp.edit_batch_size or len(self.encoded)
        return [list(range(len(self.encoded)))[i : i + size] for i in range(0, len(self.encoded), size)]

    def trace(self):
        g = self.grads(sum(self.loss(b, self.target) for b in self.batches()))
        by_module = {
            m.name: (as_d_by_m(m, g[f"{m.name}.weight"]), of_nodes(m, g.get(f"{m.name}.bias")))
            for m in self.ffn.modules
        }
        scores = dense_scores(by_module, self.hp.score)
        order = {n: torch.argsort(s, descending=True, stable=True) for n, s in scores.items()}
        critical = {n: o[: self.hp.num_critical_paths] for n, o in order.items()}
        worst = self.hp.num_negative_paths if self.hp.contrast_weight else 0
        negative = {n: torch.argsort(scores[n], stable=True)[:worst] for n in order}
        return critical, negative

    def masked(self, grads, nodes):
        out = {}
        for m in self.ffn.modules:
            out[f"{m.name}.weight"] = mark(m, grads[f"{m.name}.weight"], nodes[m.name])
            if f"{m.name}.bias" in grads:
                out[f"{m.name}.bias"] = mark(m, grads[f"{m.name}.bias"], nodes[m.name], is_bias=True)
        return out

    def step(self, *grads):
        for name, p in self.params.items():
            p.grad = sum(g[name] for g in grads) + self.hp.weight_decay * (p.detach() - self.start[name])
        self.optimizer.step()

    def run(self):
        hp = self.hp
        for epoch in range(hp.num_steps):
            if epoch == 0 or (hp.retrace_every and epoch % hp.retrace_every == 0):
                critical, negative = self.trace()
                self.nodes.append((critical, negative))
                if epoch == 0 or hp.optimizer_state == "fresh":
                    self.optimizer = torch.optim.Adam(self.params.values(), lr=hp.lr)
            for batch in self.batches():
                loss = self.loss(batch, self.target)
                self.losses.append(loss.item())
                first = self.masked(self.grads(loss), critical)
                lam = hp.contrast_weight
                if lam == 0:
                    self.step(first)
                elif hp.contrast_step == "joint":
                    second = self.masked(self.grads(lam * self.loss(batch, self.y.get)), negative)
                    self.step(first, second)
                else:
                    self.step(first)
                    self.step(self.masked(self.grads(lam * self.loss(batch, self.y.get)), negative))
        return self
