"""What the extended objective keeps between calls: how the model's inputs usually look, and which edits it holds."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .contexts import background_lines, kept_texts
from .ffn import FFNMap, FFNModule
from .hooks import ends_with
from .moments import InputMoments
from .patch import WeightPatch
from .requests import EditRequest, Encoded, collate, encode

TEXTS, TEXT_TOKENS = 256, 40
"""Size of the text that a model writes about nothing in particular, once: several times as many tokens as a value
module of a small model has inputs, so that few directions look unused by chance."""


@dataclass
class Edit:
    """One call's edit, as far as later calls need it.

    Attributes:
        requests: what it was made for.
        marks: by parameter name, the touched nodes [k] and a checksum of each one's new value [k].
        inputs: what the modules saw where the edit wrote.
        subjects: of the requests, where they are known.
    """

    requests: list[Encoded]
    marks: dict[str, tuple[Tensor, Tensor]]
    inputs: InputMoments = field(default_factory=lambda: InputMoments(sparse=True))
    subjects: frozenset[str] = frozenset()


class EditMemory:
    """State of one hyper-parameter object: the model it last edited, background statistics, and earlier edits.

    It never trusts that an edit is still there: before each call it compares the nodes that the edit touched with what
    the model holds, and forgets edits that were rolled back. So it serves EasyEdit's single edits, which are rolled
    back one by one, and consecutive ones alike.
    """

    def __init__(self) -> None:
        self._model: weakref.ref[nn.Module] | None = None
        self.edits: list[Edit] = []
        self.texts = torch.zeros(0, 0, dtype=torch.long)
        self.background = InputMoments()
        self._sums: dict[str, tuple[Tensor, list[Edit], Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return EditMemory, ()  # a copy of the hyper-parameters begins with an empty memory

    def of(self, model: nn.Module, ffn: FFNMap) -> EditMemory:
        """This memory, made ready for a model: emptied if it is another one, and without edits that are gone."""
        if self._model is None or self._model() is not model:
            self.__init__()
            self._model = weakref.ref(model)
        self.forget_reverted(dict(model.named_parameters()), ffn)
        return self

    def add(
        self,
        requests: Sequence[Encoded],
        subjects: Iterable[str],
        patch: WeightPatch,
        inputs: InputMoments,
        limit: int,
    ) -> None:
        """Remember an edit, unless it changes nothing; beyond `limit` the oldest ones are dropped."""
        if not any(s.change.any() for s in patch.slices.values()):
            return
        weights = {n: s for n, s in patch.slices.items() if n.endswith(".weight")}
        marks = {n: (s.index.cpu(), checksums(s.new)) for n, s in weights.items()}
        edit = Edit(list(requests), marks, inputs, frozenset(subjects))
        self.edits = [*self.edits, edit][-limit:] if limit else []

    def about_others(self, subjects: Iterable[str]) -> list[Edit]:
        """Earlier edits of other subjects; a new fact of the same one has to be written where the old one lives."""
        return [e for e in self.edits if e.subjects.isdisjoint(subjects)]

    def moment(self, m: FFNModule, index: Tensor, edits: Sequence[Edit]) -> Tensor:
        """Sum over some of the edits of what a change of the nodes `index` reacts to there, [D, D] or [k, k].

        The sum over all is kept and only added to, in the edits' order, so that it does not depend on when it is asked
        for; the edits that are not meant, few, are taken off.
        """
        nodes, summed, total = self._sums.get(m.name, (index, [], torch.zeros(())))
        begun = len(summed) <= len(self.edits) and all(a is b for a, b in zip(summed, self.edits, strict=False))
        if not (begun and (m.kind == "key" or torch.equal(nodes, index))):
            summed, total = [], torch.zeros(())
        for edit in self.edits[len(summed) :]:
            total = total + edit.inputs.of_nodes(m, index) if m.name in edit.inputs.counts else total
        self._sums[m.name] = (index, list(self.edits), total)
        for edit in self.edits:
            if m.name in edit.inputs.counts and not any(edit is e for e in edits):
                total = total - edit.inputs.of_nodes(m, index)
        return total

    def also_about(self, subjects: Iterable[str], requests: Sequence[Encoded]) -> list[Encoded]:
        """Earlier requests about these subjects, oldest first, apart from those whose very prompt is asked anew."""
        asked = {e.prompt for e in requests}
        found: dict[tuple[int, ...], Encoded] = {}
        for edit in self.edits:
            if not edit.subjects.isdisjoint(subjects):
                found |= {e.prompt: e for e in edit.requests if e.prompt not in asked}
        return list(found.values())

    def forget_reverted(self, parameters: dict[str, Tensor], ffn: FFNMap) -> None:
        """Drop edits whose nodes, apart from those that a later kept edit touched as well, hold other values."""
        axes = {f"{m.name}.weight": m.node_axis for m in ffn.modules}
        kept: list[Edit] = []
        covered: dict[str, Tensor] = {}
        for edit in reversed(self.edits):
            if all(self._holds(parameters[n], axes[n], *mark, covered.get(n)) for n, mark in edit.marks.items()):
                kept.insert(0, edit)
                for name, (index, _) in edit.marks.items():
                    covered[name] = torch.cat([covered.get(name, index), index]).unique()
        self.edits = kept

    @staticmethod
    def _holds(parameter: Tensor, axis: int, index: Tensor, sums: Tensor, covered: Tensor | None) -> bool:
        if covered is not None:
            free = ~torch.isin(index, covered)
            index, sums = index[free], sums[free]
        found = parameter.detach().index_select(axis, index.to(parameter.device)).movedim(axis, 0)
        return torch.equal(checksums(found), sums)

    # On disk, with the model's weights, so that a sequence of edits can go on in another process

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, as `safetensors` saves it."""
        found = {"texts": self.texts} | {f"background|{k}": t for k, t in self.background.tensors().items()}
        for i, edit in enumerate(self.edits):
            for j, e in enumerate(edit.requests):
                places = torch.tensor([e.answer_start, *(e.subject or ())])
                found |= {f"edit|{i}|ids|{j}": e.ids, f"edit|{i}|places|{j}": places}
            for name, (index, sums) in edit.marks.items():
                found |= {f"edit|{i}|index|{name}": index, f"edit|{i}|checksums|{name}": sums}
            found[f"edit|{i}|subjects|"] = torch.tensor(
                list("\n".join(sorted(edit.subjects)).encode()), dtype=torch.uint8
            )
            found |= {f"edit|{i}|inputs|{k}": t for k, t in edit.inputs.tensors().items()}
        return found

    @classmethod
    def load(cls, model: nn.Module, tensors: Mapping[str, Tensor]) -> EditMemory:
        """The memory that `tensors` was taken from, for the model that holds its edits."""
        memory = cls()
        memory._model = weakref.ref(model)
        memory.texts = tensors["texts"]
        memory.background.load({k[11:]: t for k, t in tensors.items() if k.startswith("background|")})
        parts: dict[int, dict[str, dict[str, Tensor]]] = {}
        for key, t in tensors.items():
            if key.startswith("edit|"):
                _, i, kind, name = key.split("|", 3)
                parts.setdefault(int(i), {}).setdefault(kind, {})[name] = t
        for _, part in sorted(parts.items()):
            requests = []
            for j, ids in sorted(part["ids"].items(), key=_number):
                start, *subject = part["places"][j].tolist()
                requests.append(Encoded(ids, start, tuple(subject) or None))
            marks = {name: (index, part["checksums"][name]) for name, index in part["index"].items()}
            names = bytes(part["subjects"][""].tolist()).decode()
            memory.edits.append(Edit(requests, marks, subjects=frozenset(names.split("\n") if names else ())))
            memory.edits[-1].inputs.load(part.get("inputs", {}))
        return memory

    # How inputs usually look

    def prepare_texts(self, model: nn.Module, tok: Any, seed: int) -> None:
        """Let the model write its background text, the first time."""
        if not len(self.texts):
            self.texts = kept_texts(model, tok, TEXTS, TEXT_TOKENS, seed)

    def prepare_background(self, model: nn.Module, tok: Any, ffn: FFNMap, seed: int) -> None:
        """Moments of the modules' inputs on sampled text and on lines about names, the first time."""
        if all(m.name in self.background.counts for m in ffn.modules):
            return
        self.prepare_texts(model, tok, seed)
        device = model.get_input_embeddings().weight.device
        lines = collate(encode(tok, [EditRequest(line, "it") for line in background_lines()]), device)
        moments = InputMoments()
        for ids, mask in ((self.texts.to(device), None), (lines.ids, lines.mask)):
            with torch.no_grad(), moments.watching(ffn.modules, mask), ends_with(ffn.modules[-1].module):
                model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        self.background = moments


def _number(item: tuple[str, Tensor]) -> int:
    return int(item[0])


def checksums(values: Tensor) -> Tensor:
    """One number for each node's bits [k], int64: equal for equal bits, different for practically all others."""
    bits = values.detach().contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])
    bits = bits.flatten(1).long().cpu()
    return (bits * (2 * torch.arange(bits.shape[1]) + 1)).sum(1)
