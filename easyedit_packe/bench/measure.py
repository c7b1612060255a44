"""Measuring records: the same functions and settings for the unedited model and after every editor's edits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from ..model.config import max_tokens
from ..model.generation import Text
from ..requests import token_ids
from .data import Probe, Record
from .editors import BenchError
from .metrics import easyedit, free, judge, rome, subject, words
from .metrics.judge import Judge
from .metrics.scoring import Heard, Scored, first_token_chances, listen, score, wanted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
TOGETHER = 8
"""Records that are run together, and whose rows are lost together when a run is killed."""


@dataclass(frozen=True)
class Measure:
    """What is measured of each record of a run.

    Attributes:
        compares: ROME's metrics compare probabilities (CounterFact); otherwise they are accuracies.
        generation: also what the model says freely.
        asks: who says whether that is right; None: nobody.
        turn: makes of a prompt the text that the model is asked; None leaves it as it is.
        told: the record's new fact stands before each question about it, in the same context.
        judged: records whose answers are judged; None: all. The others of a batch are measured for its bits alone.
    """

    compares: bool
    generation: bool
    asks: Judge | None = None
    turn: Callable[[str], str] | None = None
    told: bool = False
    judged: Collection[Any] | None = None

    def require_readable(self, model: PreTrainedModel, tok: Any, records: Iterable[Record]) -> None:
        """Raises `BenchError` where a record has a text that is longer than what the model reads."""
        most = max_tokens(model)
        if most is None:
            return
        for record in records:
            asked = [f"{prompt} {answer}" for prompt, answer in self._pairs(record)]
            asked += [self._asked(record, question) for question in subject.questions(record)]
            said = [self._asked(record, p) for p in (record.prompt, *record.rephrases)] if self.generation else []
            for text, more in (*((t, 0) for t in asked), *((t, free.TOKENS) for t in said)):
                # No tokeniser makes more tokens of a text than it has bytes, and a few around it.
                if len(text.encode()) + more + 8 > most and (length := len(token_ids(tok, text)) + more) > most:
                    raise BenchError(
                        f"record {record.case_id}: expected at most {most} tokens (the model's positions), got {length}"
                        f"{f', {more} of a free answer among them,' if more else ''} for {text[:60]!r}...; take a "
                        f"shorter text, or leave the record out{', or set generation=false' if more else ''}."
                    )

    def unedited(self, model: PreTrainedModel, tok: Any, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
        """A row for each record, with what later rows are held against: `kept`, plain values."""
        for record, scored, chances, spoken in self._scored(model, tok, records):
            parts, said = self._families(record, scored)
            chances_kept = subject.before(chances) if chances is not None else []
            row = {**parts, "kept": {"said": said, "subject": chances_kept}}
            yield row | self._free(record, spoken) | self._said(tok, record, scored, chances, spoken)

    def edited(
        self, model: PreTrainedModel, tok: Any, records: Sequence[Record], unedited: Mapping[int, Mapping[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """A row for each record, held against that of the unedited model."""
        for record, scored, chances, spoken in self._scored(model, tok, records):
            parts, said = self._families(record, scored)
            before = unedited[record.case_id]["kept"]
            parts["easyedit"] |= easyedit.locality(said["locality"], before["said"]["locality"])
            if said["distracting"]:
                parts["distracting"] = easyedit.locality(said["distracting"], before["said"]["distracting"])
            if chances is not None:
                parts["subject"] = subject.family(chances, before["subject"], self._first_tokens(tok, record))
            yield parts | self._free(record, spoken) | self._said(tok, record, scored, chances, spoken)

    def _scored(
        self, model: PreTrainedModel, tok: Any, records: Sequence[Record]
    ) -> Iterator[tuple[Record, list[Scored], Any, list[str]]]:
        """Each record with its scored pairs, the first tokens' chances of its questions, and what the model says
        freely, from common batches."""
        for i in range(0, len(records), TOGETHER):
            some = records[i : i + TOGETHER]
            pairs = [self._pairs(record) for record in some]
            prompts = [[self._asked(record, question) for question in subject.questions(record)] for record in some]
            heard, texts = Heard(), wanted(tok, itertools.chain(*pairs), itertools.chain(*prompts))
            spoken = self._spoken(model, tok, some, heard, texts)
            listen(model, texts, heard)
            for record, mine, questions, said in zip(some, pairs, prompts, spoken, strict=True):
                chances = first_token_chances(model, tok, questions, heard) if questions else None
                yield record, score(model, tok, mine, heard), chances, said

    def _spoken(
        self, model: PreTrainedModel, tok: Any, records: Sequence[Record], heard: Heard, also: Sequence[Text]
    ) -> list[list[str]]:
        if not self.generation:
            return [[] for _ in records]
        return free.answers(model, tok, records, self._asked, self.asks is not None, heard, also)

    def _pairs(self, record: Record) -> list[tuple[str, str]]:
        distracting = [(p.prompt, p.answer) for p in self._distracting(record)]
        pairs = easyedit.pairs(record) + rome.pairs(record, self.compares) + distracting
        return [(self._asked(record, prompt), answer) for prompt, answer in pairs]

    def _asked(self, record: Record, prompt: str) -> str:
        text = record.told(prompt) if self.told else prompt
        return self.turn(text) if self.turn is not None else text

    def _first_tokens(self, tok: Any, record: Record) -> set[int]:
        """Of the target after the prompt; in a chat, where a model begins to speak without one, also without the space
        that joins them."""
        text = self._asked(record, record.prompt)
        prompt, joined = token_ids(tok, text), [token_ids(tok, f"{text} {record.target_new}")]
        if self.turn is not None:
            bare = token_ids(tok, f"{text}{record.target_new}")
            joined += [bare] if bare[: len(prompt)] == prompt else []
        return {ids[len(prompt)] for ids in joined}

    def _distracting(self, record: Record) -> tuple[Probe, ...]:
        return record.distracting if self.compares else ()

    def _families(self, record: Record, scored: list[Scored]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Figures by family, and what the model says where it shall say what it said before."""
        first = len(easyedit.pairs(record))
        second = first + len(rome.pairs(record, self.compares))
        values, said = easyedit.family(record, scored[:first])
        parts = {"easyedit": values, "rome": rome.family(record, scored[first:second], self.compares)}
        distracting = {"neighborhood": [list(s.said) for s in scored[second:]]} if self._distracting(record) else {}
        return parts, {"locality": said, "distracting": distracting}

    def _said(self, tok: Any, record: Record, scored: list[Scored], chances: Any, spoken: list[str]) -> dict[str, Any]:
        """For a person to read; what a judge has judged stands with its verdict."""
        return {"said": words.said(tok, record, scored, chances, spoken if self.asks is None else [])}

    def _free(self, record: Record, said: Sequence[str]) -> dict[str, Any]:
        if not self.generation:
            return {}
        figures = free.family(record, said)
        if self.asks is None or (self.judged is not None and record.case_id not in self.judged):
            return {"free": figures}
        found = judge.verdicts(self.asks, record, said)
        return {"free": figures | judge.family(found), "judge": self.asks.name, "verdicts": found}


def together(records: Sequence[Record], missing: Collection[Any]) -> list[Record]:
    """The records of all batches in which one is missing: the same batches give the same bits, whatever of them has
    been measured before a run was killed."""
    groups = [records[i : i + TOGETHER] for i in range(0, len(records), TOGETHER)]
    return [r for group in groups if any(r.case_id in missing for r in group) for r in group]


def progress(items: Iterable[T], what: str, total: int, unit: str = "record") -> Iterator[T]:
    """A progress bar, unless there is nothing to wait for."""
    yield from tqdm(items, desc=what, unit=unit, total=total, disable=not total)
