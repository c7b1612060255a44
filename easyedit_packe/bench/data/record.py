"""One record of a data set: what is edited, and what is measured and never shown to an editor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import PaCKEError


class DataError(PaCKEError, ValueError):
    """A data file is missing or is not what its format says."""


@dataclass(frozen=True)
class Probe:
    """A prompt, and the answers that are right; of several, the first is the one that is measured by its tokens.

    Where no answer is known, what must stay is the unedited model's own: of that the first token is measured.
    """

    prompt: str
    answers: tuple[str, ...]

    @property
    def answer(self) -> str:
        return self.answers[0] if self.answers else ""


Probes = tuple[Probe, ...]


def kinds(**probes: Probes) -> dict[str, Probes]:
    """By name, those of which a record has any."""
    return {name: some for name, some in probes.items() if some}


@dataclass(frozen=True)
class Record:
    """One fact.

    Attributes:
        case_id: its number in the data set.
        prompt, subject, target_new: what an editor sees; the subject stands in the prompt, where the data set has one.
        ground_truth: the answer before the edit; "" where the data set does not say.
        rephrases: the same question in other words; the first is the one that EasyEdit measures.
        localities: by name, questions whose answers must stay; the first probe is the one that EasyEdit measures of
            ZsRE and CounterFact.
        portability: by name, what follows from the new fact.
        same_subject: other questions about the subject, whose answers must stay, where the data set has them.
    """

    case_id: int
    prompt: str
    subject: str | None
    target_new: str
    ground_truth: str
    rephrases: tuple[str, ...] = ()
    localities: Mapping[str, Probes] = field(default_factory=dict)
    portability: Mapping[str, Probes] = field(default_factory=dict)
    same_subject: Probes = ()

    def __post_init__(self) -> None:
        """Raises `DataError` where what should be a text is none, before anything is edited."""
        if not isinstance(self.case_id, int | str):
            raise DataError(f"expected a number or a text as case_id, got {self.case_id!r}; mend it or leave it out")
        texts: list[tuple[str, object]] = [
            (name, getattr(self, name)) for name in ("prompt", "target_new", "ground_truth")
        ]
        texts += [("subject", self.subject)] if self.subject is not None else []
        texts += [("rephrases", text) for text in self.rephrases]
        asked = [*self.localities.items(), *self.portability.items(), ("same_subject", self.same_subject)]
        texts += [(name, text) for name, probes in asked for p in probes for text in (p.prompt, *p.answers)]
        for name, value in texts:
            if not isinstance(value, str):
                raise DataError(
                    f"record {self.case_id}: expected a text in {name}, got {value!r}; mend it or leave it out"
                )

    @property
    def neighbours(self) -> Probes:
        """All probes that must stay, whatever they are called."""
        return tuple(probe for probes in self.localities.values() for probe in probes)

    @property
    def former(self) -> str:
        """The answer before the edit, for editors that need one (KN): what EasyEdit puts where none is known."""
        return self.ground_truth or "<|endoftext|>"

    @property
    def stated_subject(self) -> str | None:
        """The subject, where it is known and stands in the prompt: there editors look for it."""
        return self.subject if self.subject and self.subject in self.prompt else None

    @property
    def request(self) -> dict[str, Any]:
        """What an editor may see: no paraphrase, nothing that must stay, and no subject that the prompt lacks."""
        request = {
            "case_id": self.case_id,
            "prompt": self.prompt,
            "target_new": self.target_new,
            "ground_truth": self.former,
        }
        return request | ({"subject": self.stated_subject} if self.stated_subject else {})

    @property
    def distracting(self) -> Probes:
        """The same, each behind the edited statement, which draws the answer to the new target."""
        return tuple(Probe(self.told(probe.prompt), probe.answers) for probe in self.neighbours)

    def told(self, prompt: str) -> str:
        """A question behind the new fact, in the same context."""
        return f"{self.prompt} {self.target_new}. {prompt}"


def tidied(record: Record) -> Record:
    """Without space around its texts, which some editors would write and others not, and without questions and answers
    that are nothing else."""

    def asked(probes: Probes) -> Probes:
        texts = [(p.prompt.strip(), [a.strip() for a in p.answers]) for p in probes]
        return tuple(Probe(prompt, tuple(filter(None, answers))) for prompt, answers in texts if prompt)

    return replace(
        record,
        prompt=record.prompt.strip(),
        subject=None if record.subject is None else record.subject.strip(),
        target_new=record.target_new.strip(),
        ground_truth=record.ground_truth.strip(),
        rephrases=tuple(text.strip() for text in record.rephrases if text.strip()),
        localities=kinds(**{name: asked(probes) for name, probes in record.localities.items()}),
        portability=kinds(**{name: asked(probes) for name, probes in record.portability.items()}),
        same_subject=asked(record.same_subject),
    )
