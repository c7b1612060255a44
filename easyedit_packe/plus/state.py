"""What PaCKE+ knows of a model: what is usual for it, and which edits it holds.

The state belongs to the model. It hangs on it, moves with a copy of it, and is no part of any configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..model.bits import digest_of
from ..model.ffn import FFNModule
from ..patch import WeightPatch
from ..patch.watchers import watchers
from ..requests import Encoded
from .background import Background
from .edits import Edit, Fact, Past, in_force, marked, marked_anew, shows
from .moments import InputMoments

AWAY = 32
"""Edits that are not in force and still known."""


class EditMemory:
    """The edits that a model holds, and the background of all of them.

    It never trusts that an edit is still there: before each call it compares the nodes that the edit changed with what
    the model holds, and leaves out edits of which most were changed back. So it serves EasyEdit's single edits, which
    are rolled back one by one, and consecutive ones alike. The last few of those stay known: a patch may be put on
    again. Where an edit is taken out from among others (`EditStack.revert`), shared nodes get values that no edit has
    written: it is told of that, and takes note of them.

    A few edits are told apart; of those before them sums remain (`Past`), so that neither the state nor the time of an
    edit grows with their number.

    Attributes:
        edits: those in force that are told apart, oldest first.
        away: those that are not in force.
        past: those before `edits`, in force.
        past_away: what was `past` until it was rolled back.
        background: what is usual for the model.
    """

    def __init__(self) -> None:
        self.edits: list[Edit] = []
        self.away: list[Edit] = []
        self.past = Past()
        self.past_away = Past()
        self.background = Background()
        self._sums: dict[str, tuple[Tensor, list[Edit], Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> EditMemory:
        """For a copy of the model. Edits, past and background never change, so both models look at the same ones."""
        copied = EditMemory()
        copied.edits, copied.away, copied.background = list(self.edits), list(self.away), self.background
        copied.past, copied.past_away = self.past, self.past_away
        return copied

    @classmethod
    def of(cls, model: nn.Module) -> EditMemory:
        """The model's own, with just the edits that it holds."""
        known = watchers(model)
        memory = next((w for w in known if isinstance(w, cls)), None)
        if memory is None:
            memory = cls()
            known.append(memory)
        memory.compare(model)
        return memory

    def fold(self, limit: int) -> None:
        """Of more than twice `limit` edits in force, the older half becomes past. Before an edit is made, not after:
        then it is known which ones were applied."""
        while len(self.edits) > 2 * limit > 0:
            for old in self.edits[:limit]:
                self.past = self.past.and_then(old)
            self.edits = self.edits[limit:]

    def add(self, requests: Sequence[tuple[str, Encoded]], patch: WeightPatch, inputs: InputMoments) -> None:
        """Remember an edit, unless it changes nothing.

        Args:
            requests: the subject, where it is known, and the text of each.
            inputs: what the modules saw where it wrote.
        """
        if not any(s.change.any() for s in patch.slices.values()):
            return
        name = digest_of((n, s.new) for n, s in sorted(patch.slices.items()))[:16]
        marks = {n: marked(s) for n, s in patch.slices.items() if n.endswith(".weight")}
        patch.info["edits"] = [name]
        facts = tuple(Fact(text, subject, name) for subject, text in requests)
        self.away = [e for e in self.away if e.name != name]
        self.edits = [*self.edits, Edit(name, facts, marks, inputs)]

    def about_others(self, subjects: Iterable[str]) -> list[Edit]:
        """Earlier edits of other subjects; a new fact of the same one has to be written where the old one lives."""
        return [e for e in self.edits if e.subjects.isdisjoint(subjects)]

    def also_about(self, subjects: Iterable[str], requests: Sequence[Encoded]) -> list[Encoded]:
        """Earlier requests about these subjects, oldest first, apart from those whose very prompt is asked anew."""
        asked, wanted = {e.prompt for e in requests}, set(subjects)
        found: dict[tuple[int, ...], Encoded] = {}
        for fact in (*self.past.facts, *(fact for edit in self.edits for fact in edit.facts)):
            if fact.subject in wanted and fact.text.prompt not in asked:
                found.pop(fact.text.prompt, None)  # what was asked again is as new as the last time
                found[fact.text.prompt] = fact.text
        return list(found.values())

    def moment(self, m: FFNModule, index: Tensor, edits: Sequence[Edit]) -> Tensor:
        """Sum over the past and some of the edits of what a change of the nodes `index` reacts to there, [D, D] or
        [k, k].

        The sum over all is kept and only added to, in the edits' order, so that it does not depend on when it is asked
        for; the edits that are not meant, few, are taken off.
        """
        nodes, summed, total = self._sums.get(m.name, (index, [], torch.zeros(())))
        begun = len(summed) <= len(self.edits) and all(a is b for a, b in zip(summed, self.edits, strict=False))
        if not (begun and (m.kind == "key" or torch.equal(nodes, index))):
            summed, total = [], torch.zeros(())
        total = total.to(m.weight.device)
        for edit in self.edits[len(summed) :]:
            total = total + edit.inputs.of_nodes(m, index) if m.name in edit.inputs.counts else total
        self._sums[m.name] = (index, list(self.edits), total.cpu())
        for edit in self.edits:
            if m.name in edit.inputs.counts and not any(edit is e for e in edits):
                total = total - edit.inputs.of_nodes(m, index)
        return total + self.past.inputs.of_nodes(m, index) if m.name in self.past.inputs.counts else total

    # Which edits are in force

    def compare(self, model: nn.Module) -> None:
        """Tell the edits that are in force from those whose nodes, apart from the ones that a later edit in force
        changed as well, mostly hold other values. One that comes back is the newest, and has to show at a node of its
        own."""
        parameters = dict(model.named_parameters())
        kept: list[Edit] = []
        away: list[Edit] = []
        gone: list[Edit] = []
        covered: dict[str, Tensor] = {}
        for edits, others in ((self.away, away), (self.edits, gone)):
            for edit in reversed(edits):
                seen = edits is self.edits or shows(edit.marks, covered)
                if seen and in_force(edit.marks, parameters, covered):
                    kept.insert(0, edit)
                    for name, mark in edit.marks.items():
                        covered[name] = torch.cat([covered.get(name, mark.index), mark.index]).unique()
                else:
                    others.insert(0, edit)
        self.edits, self.away = kept, [*away, *gone][-AWAY:]
        pasts = [p for p in (self.past, self.past_away) if p.marks]
        shown = (p for p in pasts if p is self.past or shows(p.marks, covered))
        self.past = next((p for p in shown if in_force(p.marks, parameters, covered)), Past())
        self.past_away = next((p for p in pasts if p is not self.past), Past())

    @contextmanager
    def taking_out(self, model: nn.Module, patch: WeightPatch) -> Iterator[None]:
        """See `patch.watchers`: the patch's edits are forgotten, the others keep what their nodes hold afterwards."""
        self.compare(model)
        yield
        parameters = dict(model.named_parameters())
        gone = set(patch.info.get("edits", ()))
        self.away = [*self.away, *(e for e in self.edits if e.name in gone)][-AWAY:]
        self.edits = [marked_anew(e, patch, parameters) for e in self.edits if e.name not in gone]
        past = marked_anew(self.past, patch, parameters)
        self.past = replace(past, facts=tuple(fact for fact in past.facts if fact.edit not in gone))

    # On disk, with the model's weights, so that a sequence of edits can go on in another process

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, as `safetensors` saves it."""
        found = self.background.tensors()
        for i, edit in enumerate(self.edits):
            found |= {f"edit|{i}|{k}": t for k, t in edit.tensors().items()}
        return found | {f"past|{k}": t for k, t in self.past.tensors().items()}

    @classmethod
    def restore(cls, model: nn.Module, tensors: Mapping[str, Tensor]) -> EditMemory:
        """Make the state that `tensors` was taken from that of a model that holds its edits."""
        memory = cls.of(model)
        memory._sums.clear()
        memory.background = Background.load(tensors)
        edits: dict[int, dict[str, Tensor]] = {}
        past: dict[str, Tensor] = {}
        for key, t in tensors.items():
            if key.startswith("edit|"):
                _, i, name = key.split("|", 2)
                edits.setdefault(int(i), {})[name] = t
            elif key.startswith("past|"):
                past[key.removeprefix("past|")] = t
        memory.edits = [Edit.load(of_edit) for _, of_edit in sorted(edits.items())]
        memory.past = Past.load(past)
        return memory
