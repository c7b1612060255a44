"""How to edit: train the chosen nodes with the contrastive loss (paper, section 3.3, Eq. 7).

`J = L(f_T+(x), y*) + lambda L(f_T-(x), y)`: the first term moves only critical nodes towards the target y*, the
second only negative nodes, towards what the unedited model says at the same positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import PaCKEHyperParams
from ..errors import ModelError
from ..model.ffn import FFNMap
from ..model.forward import answer_logits, require_finite
from ..model.hooks import frozen
from ..patch.weight_patch import WeightPatch
from ..requests import Batch, Encoded, collate
from .objective import token_losses
from .rounding import seed_for
from .slices import NodeGradients, Slices, spread
from .terms import Backward
from .tracing import NodeScores, NodeSets, choose_nodes, factors, module_scores, trace, watch_outputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Rectification:
    """Outcome of `rectify`.

    Attributes:
        patch: the edit, empty if the model's weights may not be read; the model itself is unchanged.
        nodes: the nodes chosen at each tracing.
        losses: first term's mean token loss at each optimiser step, before the step; None where PaCKE+ overshot so
            far that the model overflowed, and took the step back.
        terms: with PaCKE+, by kind of text, by how much the target leads there at each step, at least.
        slices: the changes before they were rounded to the model's dtype; None where there are none.
    """

    patch: WeightPatch
    nodes: list[NodeSets] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    terms: dict[str, list[float | None]] = field(default_factory=dict)
    slices: Slices | None = None


def rectify(
    model: PreTrainedModel, ffn: FFNMap, requests: Sequence[Encoded], hparams: PaCKEHyperParams
) -> Rectification:
    """Trace the requests together, train their nodes, and return the change as a patch.

    The model's weights are read, never written.

    Raises:
        ModelError: the loss is not finite (NaN or infinite weights, or a learning rate that is far too large),
            or the model has fewer nodes than T+ and T- need.
    """
    with frozen(model):
        return Rectifier(model, ffn, requests, hparams).run()


class Rectifier:
    """One call of `rectify`: the state that its steps share."""

    def __init__(
        self, model: PreTrainedModel, ffn: FFNMap, requests: Sequence[Encoded], hparams: PaCKEHyperParams
    ) -> None:
        whole = hparams.num_critical_paths == ffn.num_nodes  # some layer leaves no node to T-
        needed = hparams.num_critical_paths + (0 if whole else hparams.num_negative_paths)
        if needed > ffn.num_nodes:
            raise ModelError(
                f"num_critical_paths + num_negative_paths: expected at most the model's {ffn.num_nodes} nodes a "
                f"module, got {needed}; lower them."
            )
        self.model, self.ffn, self.requests, self.hparams = model, ffn, requests, hparams
        self.contrast = hparams.contrast_weight > 0 and hparams.num_negative_paths > 0 and not whole
        self.negatives = hparams.num_negative_paths if self.contrast else 0
        self.slices = Slices(ffn, train_value_bias=hparams.value_bias == "trained")
        self.device = model.get_input_embeddings().weight.device
        self.unedited: dict[int, Tensor] = {}  # y: the unedited model's arg-max at each request's answer
        self.optimizer: torch.optim.Adam | None = None
        self.generator = torch.Generator().manual_seed(hparams.seed)
        self.backward = Backward(hparams.batch_terms)
        self.scores: NodeScores = {}  # of every node, at the newest tracing
        self.known: tuple[Tensor, list[Tensor]] | None = None  # the next step's loss and gradients, from tracing

    def run(self) -> Rectification:
        result = Rectification(WeightPatch({}))
        if self.hparams.num_critical_paths == 0:
            return result
        losses: list[Tensor] = []
        for step in range(self.hparams.num_steps):
            batches = list(self.optimizer_batches())
            self.known = None
            if step == 0 or (self.hparams.retrace_every and step % self.hparams.retrace_every == 0):
                nodes = self.trace_for(batches)
                result.nodes.append(nodes)
            pass_losses = [self.train_on(batch, may_stop=len(batches) == 1) for batch in batches]
            losses.extend(pass_losses)
            if self.is_enough(torch.stack(pass_losses).mean()):
                break
        result.losses = torch.stack(losses).tolist()
        if not all(torch.isfinite(t).all() for t in [*self.slices.leaves, *losses]):
            raise ModelError(
                f"the loss became {result.losses[-1]} and the edit is not finite; "
                f"check the model's weights, lower lr (now {self.hparams.lr}), or load it in float32 or bfloat16."
            )
        seed = seed_for(self.requests, self.hparams.seed)
        result.patch, result.slices = self.slices.patch(self.hparams.rounding, seed), self.slices
        return result

    # Batches

    def optimizer_batches(self) -> Iterator[list[int]]:
        """The requests of each optimiser step of one pass."""
        n = len(self.requests)
        order = torch.randperm(n, generator=self.generator).tolist() if self.hparams.shuffle else list(range(n))
        return self.in_steps(order)

    def in_steps(self, order: list[int]) -> Iterator[list[int]]:
        size = self.hparams.edit_batch_size or len(order)
        yield from (order[i : i + size] for i in range(0, len(order), size))

    def forward_batches(self, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Batch]]:
        """The requests of each forward pass, and their tokens."""
        size = self.hparams.micro_batch_size or len(indices)
        for i in range(0, len(indices), size):
            part = indices[i : i + size]
            yield part, collate([self.requests[j] for j in part], self.device)

    # Where to edit

    def trace_for(self, batches: Sequence[Sequence[int]]) -> NodeSets:
        """Choose nodes and make them the trained ones; see whether that gives the next step's gradients as well."""
        one_forward = len(batches) == 1 and not 0 < self.hparams.micro_batch_size < len(self.requests)
        if one_forward and self.hparams.reuse_trace:
            return self.backward.if_possible(self.trace_and_step)
        nodes = self.trace()
        self.start_training(nodes)
        return nodes

    def trace_and_step(self) -> NodeSets:
        """Trace, and take the next step's gradients from the same forward and backward pass.

        The gradient of node j is `inner[:, j]^T hidden`, from the factors that its score is made of.
        """
        joint = self.contrast and self.hparams.contrast_step == "joint"
        ((indices, batch),) = self.forward_batches(range(len(self.requests)))
        with self.slices.attached(train=False), watch_outputs(self.ffn.modules) as seen:
            logits = answer_logits(self.model, batch)
        self.remember_unedited(indices, logits)
        losses = [token_losses(logits, batch.targets).mean()]
        require_finite(losses[0], "losses")
        if joint and not self.is_enough(losses[0]):
            losses.append(self.hparams.contrast_weight * token_losses(logits, self.unedited_labels(indices)).mean())
        first, *second = self.backward(losses, [y for _, y in seen])
        chosen, gradients = NodeSets({}, {}), NodeGradients()
        for i, m in enumerate(self.ffn.modules):
            hidden, inner = factors(m, seen[i][0], first[i])
            score = self.scores[m.name] = module_scores(m, hidden, inner, self.hparams.score)
            one = choose_nodes({m.name: score}, self.hparams.num_critical_paths, self.negatives)
            chosen.critical.update(one.critical)
            chosen.negative.update(one.negative)
            gradients.take(m, one.critical[m.name], hidden, inner)
            for others in second:
                gradients.take(m, one.negative[m.name], *factors(m, seen[i][0], others[i]))
        self.start_training(chosen)
        self.known = losses[0].detach().to(self.slices.weight.device), gradients.as_leaves(self.slices)
        return chosen

    def trace(self) -> NodeSets:
        """Choose T+ and T- by the gradient of the first term, summed over the pass's optimiser batches."""
        weights = torch.zeros(len(self.requests))
        everything = list(range(len(self.requests)))
        for batch in self.in_steps(everything):
            weights[batch] = 1 / sum(len(self.requests[j].answer) for j in batch)

        def loss_of(part: Sequence[int], batch: Batch) -> Tensor:
            with self.slices.attached(train=False):
                logits = answer_logits(self.model, batch)
            self.remember_unedited(part, logits)
            loss = (token_losses(logits, batch.targets) * weights[part].to(logits)[batch.rows.to(logits.device)]).sum()
            require_finite(loss, "losses")
            return loss

        parts = [lambda p=p, b=b: loss_of(p, b) for p, b in self.forward_batches(everything)]
        self.scores = trace(self.ffn, parts, self.hparams.score, self.trace_matrices())
        return choose_nodes(self.scores, self.hparams.num_critical_paths, self.negatives)

    def trace_matrices(self) -> int:
        """How many gradient matrices may be summed at a time."""
        matrix = self.ffn.modules[0].weight.numel() * self.slices.weight.element_size()
        model = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return self.hparams.trace_matrices or max(1, int(0.05 * model / matrix))

    def unedited_labels(self, indices: Sequence[int]) -> Tensor:
        """y: what the unedited model says at these requests' answers [N]."""
        return torch.cat([self.unedited[j] for j in indices])

    def remember_unedited(self, part: Sequence[int], logits: Tensor) -> None:
        answers = logits.detach().argmax(-1).split([len(self.requests[j].answer) for j in part])
        for j, answer in zip(part, answers, strict=True):
            self.unedited.setdefault(j, answer)

    # How to edit

    def start_training(self, nodes: NodeSets) -> None:
        """Give the optimiser the nodes of a new tracing: from nothing, or beside those it already moves."""
        places = self.slices.choose(nodes)
        old, leaves = self.optimizer, self.slices.leaves
        self.optimizer = torch.optim.Adam(leaves, lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)
        if old is None or self.hparams.optimizer_state == "fresh":
            return
        names = [n for n in ("weight", "key_bias", "value_bias") if getattr(self.slices, n).numel()]
        for name, before, leaf in zip(names, old.param_groups[0]["params"], leaves, strict=True):
            state = old.state[before]
            self.optimizer.state[leaf] = {
                "step": state["step"].clone(),
                "exp_avg": spread(state["exp_avg"], places[name], len(leaf)),
                "exp_avg_sq": spread(state["exp_avg_sq"], places[name], len(leaf)),
            }

    def is_enough(self, loss: Tensor) -> bool:
        """Whether the loss is below the threshold; without one, the loss is not waited for."""
        return self.hparams.loss_threshold is not None and loss.item() < self.hparams.loss_threshold

    def train_on(self, indices: Sequence[int], may_stop: bool) -> Tensor:
        """One optimiser step on Eq. 7 (two, if the terms take separate ones); returns the first term's loss.

        Where the batch is the whole pass (`may_stop`), a loss below the threshold ends it without a step.
        """
        joint = self.contrast and self.hparams.contrast_step == "joint"
        if self.known is not None:
            loss, gradients = self.known
            gradients = [] if self.is_enough(loss) else gradients
        else:
            loss, gradients = self.gradients(indices, target=True, unedited=joint, may_stop=may_stop)
        if gradients:
            self.step(gradients)
            if self.contrast and not joint:
                self.step(self.gradients(indices, unedited=True)[1])
        return loss

    def gradients(
        self, indices: Sequence[int], *, target: bool = False, unedited: bool = False, may_stop: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The asked terms' gradients for every leaf, each term's kept to its own nodes, from one forward pass.

        With `may_stop` there are no gradients if the first term's loss is below the threshold.
        """
        return self.backward.if_possible(
            lambda: self.try_gradients(indices, target=target, unedited=unedited, may_stop=may_stop)
        )

    def try_gradients(
        self, indices: Sequence[int], *, target: bool, unedited: bool, may_stop: bool
    ) -> tuple[Tensor, list[Tensor]]:
        leaves = self.slices.leaves
        total = [torch.zeros_like(t) for t in leaves]
        num_tokens = sum(len(self.requests[j].answer) for j in indices)
        first_loss = torch.zeros((), device=self.slices.weight.device)
        for part, batch in self.forward_batches(indices):
            with self.slices.attached():
                logits = answer_logits(self.model, batch)
            terms: list[tuple[Tensor, Tensor]] = []  # loss, and the rows of the nodes that it trains
            if target:
                loss = token_losses(logits, batch.targets).sum() / num_tokens
                first_loss = first_loss + loss.detach().to(first_loss.device)
                if may_stop and len(part) == len(indices) and self.is_enough(first_loss):
                    return first_loss, []
                terms.append((loss, self.slices.critical))
            if unedited:
                loss = token_losses(logits, self.unedited_labels(part)).sum() / num_tokens
                terms.append((self.hparams.contrast_weight * loss, self.slices.negative))
            for gradients, (_, mask) in zip(self.backward([loss for loss, _ in terms], leaves), terms, strict=True):
                self.add(total, gradients, mask)
        return first_loss, [] if may_stop and self.is_enough(first_loss) else total

    def add(self, total: list[Tensor], gradients: Sequence[Tensor], mask: Tensor) -> None:
        """Add gradients at the nodes of `mask`; the value modules' biases belong to no node and to every term."""
        masks = {id(self.slices.weight): mask, id(self.slices.key_bias): self.slices.key_rows(mask)}
        for leaf, sum_, gradient in zip(self.slices.leaves, total, gradients, strict=True):
            if id(leaf) in masks:
                sum_.addcmul_(gradient, masks[id(leaf)])
            else:
                sum_.add_(gradient)

    def step(self, gradients: Sequence[Tensor]) -> None:
        if self.optimizer is None:
            raise RuntimeError("a step before `start_training`")
        for leaf, gradient in zip(self.slices.leaves, gradients, strict=True):
            leaf.grad = gradient
        self.optimizer.step()
