"""PaCKE+: critical nodes, rectified by the least change that makes the edit hold.

What differs from the paper (`packe.rectify`), each part a field of `PaCKEPlusHyperParams`:

- *What is asked* (`demands`): the target has to lead in the request, in other orders of its words and behind prefixes,
  and to come near in neutral contexts of the subject; earlier edits have to stay.
- *Where*: nodes are chosen by the gradient from the subject's last token on, relative to how strongly they usually act.
- *How* (`least_change`): not Adam on a sum of losses but Gauss-Newton: linearise what each text lacks, and take the
  smallest change that provides it, measured by what it does to usual inputs and to those of earlier edits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import PaCKEPlusHyperParams
from ..errors import ModelError
from ..model.config import max_tokens
from ..model.ffn import FFNMap, FFNModule, norm, slice_dtype
from ..model.forward import answer_logits, require_finite
from ..model.hooks import frozen
from ..packe.rectify import Rectification
from ..packe.slices import Slices
from ..packe.tracing import NodeSets, choose_nodes, module_scores, watch_outputs
from ..patch import WeightPatch
from ..requests import EditRequest, collate, encode, fitting, with_end
from .contrast import contrast_moments, contrasts
from .demands import asked, lacks, leads, neutral, stated
from .layers import in_layers
from .least_change import Writes, least_change
from .moments import InputMoments, at_places, damping
from .names import of_a_kind
from .outputs import in_units, onward
from .places import alike, places
from .relations import same_relation
from .seen import Seen, gradients_at
from .state import EditMemory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OVERSHOOT = 1.5
"""By how much more a step asks for than is lacking: leads rise more slowly than to first order."""

RIDGE_FACTOR = 3.0
"""By how much `ridge` grows after a step that made things worse, by its square after a second one, and so on, and
shrinks back after a good step that follows a good one (Nielsen). By one factor each time it would go to and fro between
steps that are too long and steps that are short, until none is left."""

REACH = 0.25
"""Norm of a step, at most, as a share of that of the matrices it may change: further, first order says nothing."""

STALLED = 0.2
"""A step that provides less than this share of what neutral contexts lack is the last one."""

HELD = 4
"""Pieces of a pass whose activations are held until it is known whether a change follows; of more, none are."""


def rectify_plus(
    model: PreTrainedModel,
    tok: Any,
    ffn: FFNMap,
    requests: Sequence[EditRequest],
    hparams: PaCKEPlusHyperParams,
    memory: EditMemory,
) -> Rectification:
    """What `packe.rectify` does, PaCKE+'s way; the edit goes into `memory`, to be kept where the patch is applied.

    Raises:
        ModelError: the model's outputs are not finite, or it has fewer nodes than asked for.
        HyperParamsError: `layers` names one that the model does not have.
    """
    with frozen(model):
        return PlusRectifier(model, tok, ffn, requests, hparams, memory).run()


class PlusRectifier:
    """One call of `rectify_plus`: the state that its steps share."""

    def __init__(
        self,
        model: PreTrainedModel,
        tok: Any,
        ffn: FFNMap,
        requests: Sequence[EditRequest],
        hparams: PaCKEPlusHyperParams,
        memory: EditMemory,
    ) -> None:
        self.model, self.hparams, self.memory = model, hparams, memory
        self.device = model.get_input_embeddings().weight.device
        self.ffn = in_layers(ffn, hparams)
        memory.fold(hparams.memory_size)
        if hparams.null_space:
            memory.background.prepare(model, tok, self.ffn, hparams)
        self.usual = memory.background.usual
        most = max_tokens(model)
        whole = [with_end(tok, r, hparams.answer_end, most) for r in requests]
        self.requests = encode(tok, whole, most)
        same = same_relation(model, tok, requests, hparams)
        in_other_words = fitting(tok, stated(whole, same, hparams, memory.background, model, tok), most)
        neutrally = fitting(tok, neutral(requests, hparams), most)
        self.contexts = in_other_words + neutrally
        self.subjects = [r.subject or "" for r in requests]
        known = set(self.subjects) - {""}
        self.others = memory.about_others(known)
        self.replay = memory.also_about(known, self.requests)[-hparams.replay :] if hparams.replay else []
        self.rows = self.requests + self.contexts + self.replay
        self.lengths = [len(e.answer) for e in self.rows]
        kinds = ((self.requests, False), (in_other_words, False), (neutrally, True), (self.replay, False))
        optional = [kind for rows, kind in kinds for _ in rows]
        self.optional = torch.tensor(optional, device=self.device)
        self.margins = [hparams.context_margin if kind else hparams.margin for kind in optional]
        against = []
        if hparams.contrast and hparams.null_space:
            names = of_a_kind(model, tok, requests, memory.background.kinds, hparams.contrast_names)
            against = contrasts(requests, same, names, hparams)
        self.contrast = contrast_moments(model, tok, self.ffn, against, hparams)
        self.pieces = alike([len(e.ids) - 1 for e in self.rows], hparams.micro_batch_size)
        self.slices = Slices(self.ffn)
        self.critical: dict[str, Tensor] = {}
        self.damping: dict[str, Tensor] = {}
        self.onward: dict[str, Tensor] = {}

    def margin(self, rows: Iterable[int]) -> Tensor:
        """The lead that each answer token of these rows must have [N]."""
        return torch.tensor([self.margins[i] for i in rows for _ in range(self.lengths[i])], device=self.device)

    def lacking(self, seen: Seen) -> Tensor:
        """What each row lacks [R]."""
        of_tokens = lacks(seen.lead, self.margin(range(len(self.rows))).to(seen.lead))
        return torch.stack([part.sum() for part in of_tokens.split(self.lengths)])

    # The edit

    def run(self) -> Rectification:
        hp = self.hparams
        best = self.look()
        self.choose(best)
        least, ridge, kept, stalled = self.lacking(best).sum().item(), hp.ridge, self.slices.weight, False
        worse = 0  # steps since the last that made things better
        history = [self.terms(best.lead)]
        for step in range(1, hp.num_steps):
            if self.enough(self.lacking(best), stalled):
                break
            change = self.change(best, ridge)
            if step == 1 and not change.isfinite().all():
                raise ModelError(
                    "expected finite gradients, got NaN or infinite ones; the model overflows in its dtype on the way "
                    "back: load it in float32 or bfloat16."
                )
            self.slices.weight = change.add_(kept)
            seen = self.look()
            history.append(self.terms(seen.lead))
            lacking = self.lacking(seen).sum().item()
            stalled = lacking > (1 - STALLED) * least
            if lacking < least:
                least, best, kept = lacking, seen, self.slices.weight
                ridge, worse = ridge if worse else max(hp.ridge, ridge / RIDGE_FACTOR), 0
            else:  # the last change went further than first order carries: a shorter one instead (Levenberg, Marquardt)
                self.slices.weight, worse = kept, worse + 1
                ridge *= RIDGE_FACTOR**worse
        terms = {name: [step[name] for step in history] for name in history[0]}
        patch = self.slices.patch()
        if hp.memory_size:
            made = patch if self.ffn.has_weights else WeightPatch(self.slices.changes())
            self.memory.add(list(zip(self.subjects, self.requests, strict=True)), made, self.inputs(best))
        return Rectification(patch, [NodeSets(self.critical, {})], terms.pop("loss"), terms, self.slices)

    def enough(self, lacking: Tensor, stalled: bool) -> bool:
        """Whether nothing is lacking, or what still is costs more than it is worth.

        That is so once only neutral contexts lack something [R], and either few of them do, or the last step hardly
        helped: the target cannot lead everywhere, and what is done to the subject in trying is done to its other facts.
        """
        share, open_ = self.hparams.context_share, lacking > 0
        if share == 1 or open_[~self.optional].any():
            return not open_.any()
        return stalled or bool(open_.sum() <= (1 - share) * self.optional.sum())

    def terms(self, lead: Tensor) -> dict[str, float | None]:
        """The request's mean token loss, and the least lead among each kind of rows; None where the model overflowed,
        after a step that is taken back."""
        by_row = lead.split(self.lengths)
        counts = {"request": len(self.requests), "context": len(self.contexts), "replay": len(self.replay)}
        loss = F.softplus(-torch.cat(by_row[: counts["request"]])).mean().item()
        found, start = {"loss": loss}, 0
        for name, n in counts.items():
            if n:
                found[f"{name}_lead"] = torch.cat(by_row[start : start + n]).min().item()
            start += n
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    def look(self) -> Seen:
        """Run all rows; the gradient is that of what is asked of each: the sum of its leads, negated."""
        leads_of: dict[int, Tensor] = {}
        of_rows: list[Tensor] = []
        inputs: list[list[Tensor]] = []
        backward: list[Callable[[], list[Tensor]]] = []
        for piece in self.pieces:
            rows = [self.rows[i] for i in piece]
            batch = collate(rows, self.device)
            with self.slices.attached(train=False), watch_outputs(self.ffn.modules) as watched:
                lead = leads(answer_logits(self.model, batch), batch.targets)
            if not self.critical:
                require_finite(lead.detach(), "logits")
            at = places(rows, batch, self.hparams.write_at)
            leads_of |= zip(piece, lead.detach().split([self.lengths[i] for i in piece]), strict=True)
            of_rows.append(torch.tensor(piece)[at.nonzero()[:, 0]])
            inputs.append([at_places(x, at) for x, _ in watched])
            wanted = -lead[asked(lead.detach(), rows, self.margin(piece).to(lead))].sum()
            run = partial(gradients_at, wanted, [y for _, y in watched], at)
            backward.append(run if len(self.pieces) <= HELD else partial(list, run()))
        return Seen(
            torch.cat([leads_of[i] for i in range(len(self.rows))]),
            torch.cat(of_rows),
            self.ffn.modules,
            [torch.cat(parts) for parts in zip(*inputs, strict=True)],
            backward,
        )

    def change(self, seen: Seen, ridge: float) -> Tensor:
        """The least change of all nodes [N, D] by which, to first order, no row lacks anything
        and rows that lack nothing stay as they are."""
        writes, wanted = [], -OVERSHOOT * self.lacking(seen).to(self.slices.weight)
        for m in self.ffn.modules:
            hidden, inner = seen.tokens[m.name]
            index = self.critical[m.name].to(inner.device)
            sides = self.damping.get(m.name), self.onward.get(m.name)
            writes.append(Writes(inner[:, index], hidden, *(sides if m.kind == "value" else reversed(sides))))
        found = torch.cat([c.to(self.slices.weight) for c in least_change(writes, seen.rows, wanted, ridge)])
        return found * min(1.0, (self.reach / found.norm()).item())

    # Where

    def choose(self, seen: Seen) -> None:
        """Choose the critical nodes, and learn what a change of them should not react to."""
        hp = self.hparams
        if hp.outputs and hp.null_space:
            outputs = in_units(self.ffn.modules, self.memory.background.outputs, self.usual)
            self.onward = {m.name: onward(outputs[m.name].to(m.weight.device), hp.outputs) for m in self.ffn.modules}
        for m in self.ffn.modules:
            count = hp.num_critical_paths if m.kind == "key" else hp.value_nodes or m.num_nodes
            scores = module_scores(m, *self.relative(m, *seen.tokens[m.name]), hp.score)
            self.critical[m.name] = choose_nodes({m.name: scores}, count, 0).critical[m.name].sort().values
            if hp.null_space:
                self.damping[m.name] = self.damping_of(m)
            if self.onward and m.kind == "key":
                self.onward[m.name] = self.onward[m.name][self.critical[m.name].to(self.onward[m.name].device)]
        self.slices.choose(NodeSets(self.critical, {name: torch.empty(0, dtype=torch.long) for name in self.critical}))
        self.slices.weight.requires_grad_(False)
        self.reach = REACH * math.hypot(*(norm(m, self.model.dtype) for m in self.ffn.modules))

    def relative(self, m: FFNModule, hidden: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        """A node counts for what it does here against what it does elsewhere: an activation of a value module against
        its usual size, a gradient of a key node's against what its activation is for further on."""
        if m.kind == "key":
            return hidden, inner / self.onward[m.name].to(inner).sqrt() if self.onward else inner
        if not self.hparams.null_space:
            return hidden, inner
        usual = self.usual.usual_size(m).to(inner)
        return hidden, inner / (usual + 0.1 * usual.mean())

    def damping_of(self, m: FFNModule) -> Tensor:
        """M of `least_change`, factored: usual text, others, where this edit must not act, where earlier edits live."""
        index, hp, elsewhere = self.critical[m.name], self.hparams, self.memory.background.elsewhere
        kinds = ((1.0, self.usual), (hp.elsewhere, elsewhere), (hp.contrast, self.contrast))
        moment = hp.memory_weight * self.memory.moment(m, index, self.others)
        for weight, seen in kinds:
            moment = moment.add(seen.of_nodes(m, index), alpha=weight) if weight and seen else moment
        return damping(moment, self.usual.scale(m), hp.null_space)

    def inputs(self, seen: Seen) -> InputMoments:
        """What the modules saw where the edit wrote, for later edits to leave alone."""
        moments = InputMoments(sparse=True)
        own = seen.rows < len(self.requests) + len(self.contexts)
        for m, x in zip(self.ffn.modules, seen.inputs, strict=True):
            moments.add(m, x[own.to(x.device)].to(slice_dtype(x.dtype)))
        return moments
