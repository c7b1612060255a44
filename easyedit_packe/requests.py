"""Edit requests: what EasyEdit hands over, checked, tokenised and batched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .errors import RequestError


@dataclass(frozen=True)
class EditRequest:
    """One fact to write: after `prompt`, the model shall say `target`.

    `subject` and `ground_truth` (the old answer) are optional and not used by the paper's objective. `frame` is what
    stands before and behind the prompt: a chat template's own text (`model.chat`), in which no subject is looked for.
    """

    prompt: str
    target: str
    subject: str | None = None
    ground_truth: str | None = None
    frame: tuple[str, str] = ("", "")

    @classmethod
    def from_dict(cls, request: Mapping[str, Any] | EditRequest) -> EditRequest:
        """Read EasyEdit's request: `prompt` and `target_new`, optionally `subject` and `ground_truth`.

        A `{}` in the prompt is filled with the subject, as ROME's data files do. Leading and trailing space around
        target and subject is dropped: one space joins prompt and target, as in EasyEdit's metrics. A subject of nothing
        else is none.

        Raises:
            RequestError: a field is missing, empty or of the wrong type, or the prompt lacks the subject.
        """
        if isinstance(request, EditRequest):
            values = {f.name: getattr(request, f.name) for f in fields(request)}
            return replace(cls.from_dict({**values, "target_new": request.target}), frame=request.frame)
        if not isinstance(request, Mapping):
            raise RequestError(f"expected a request as a mapping with prompt and target_new, got {request!r}.")
        prompt, target = _text(request, "prompt"), _text(request, "target_new").strip()
        given = request.get("subject")
        is_blank = given is None or (isinstance(given, str) and not given.strip())
        subject = None if is_blank else _text(request, "subject").strip()
        if "{}" in prompt:
            if subject is None:
                raise RequestError(f"the prompt {prompt!r} has a {{}} but the request has no subject; add the subject.")
            prompt = prompt.replace("{}", subject)
        elif subject is not None and subject not in prompt:
            raise RequestError(
                f"expected the subject {subject!r} in the prompt, got {prompt!r}; "
                "write it there, put {} in its place, or leave the subject out."
            )
        truth = request.get("ground_truth")
        return cls(prompt, target, subject, truth if isinstance(truth, str) else None)

    @property
    def asked(self) -> str:
        """The prompt in its frame."""
        return f"{self.frame[0]}{self.prompt}{self.frame[1]}"

    @property
    def text(self) -> str:
        """The same, a space, target: what the model is trained on."""
        return f"{self.asked} {self.target}"


def ended(target: str, end: str) -> str:
    """The target with an end behind it (".", a line's end), unless it has one; "" is none."""
    return target if target.endswith(end) else target + end


def with_end(tok: Any, request: EditRequest, end: str, max_tokens: int | None = None) -> EditRequest:
    """The request with an end behind its target; as it is where the model has no position left for one, and where the
    tokeniser makes one token of the end and what stands before it ("Inc)." ends in ")."), because the target's own
    tokens would then no longer be asked for."""
    whole = replace(request, target=ended(request.target, end))
    own, ids = token_ids(tok, request.text), token_ids(tok, whole.text)
    return whole if ids[: len(own)] == own and (max_tokens is None or len(ids) <= max_tokens) else request


def _text(request: Mapping[str, Any], field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not value.strip():
        what = "is missing" if field not in request else f"is {value!r}"
        raise RequestError(f"expected a request with a non-empty text in {field!r}, but it {what}: {dict(request)}.")
    return value


def read_requests(requests: Iterable[Mapping[str, Any] | EditRequest]) -> list[EditRequest]:
    """Check every request before anything is done with the first one."""
    if isinstance(requests, Mapping | EditRequest):
        requests = [requests]
    read = [EditRequest.from_dict(r) for r in requests]
    if not read:
        raise RequestError("expected at least one request, got an empty list.")
    return read


@dataclass(frozen=True)
class Encoded:
    """One request's text as tokens.

    Attributes:
        ids: [T], int64.
        answer_start: position of the target's first token.
        subject: first position of the subject in the prompt, and the position after it; None where that is unknown.
    """

    ids: Tensor
    answer_start: int
    subject: tuple[int, int] | None = None

    @property
    def answer(self) -> Tensor:
        """Target token ids [A]."""
        return self.ids[self.answer_start :]

    @property
    def begun(self) -> Encoded:
        """The same with the answer's first token alone: for what is looked at before any answer."""
        return replace(self, ids=self.ids[: self.answer_start + 1])

    @property
    def prompt(self) -> tuple[int, ...]:
        """Token ids before the target."""
        return tuple(self.ids[: self.answer_start].tolist())


@dataclass(frozen=True)
class Batch:
    """Requests padded on the right, whatever the tokeniser's own padding side.

    Causal attention never looks to the right, so padding there changes nothing before it and needs no position ids.

    Attributes:
        ids: token ids [B, T], int64, without each target's last token: nothing is predicted from it.
        mask: 1 on text and 0 on padding [B, T], or None when nothing is padded.
        rows, cols: where each of the N answer tokens of the batch is predicted, int64 [N].
        targets: those tokens' ids [N].
    """

    ids: Tensor
    mask: Tensor | None
    rows: Tensor
    cols: Tensor
    targets: Tensor


def encode(tok: Any, requests: Sequence[EditRequest], max_tokens: int | None = None) -> list[Encoded]:
    """Tokenise each request by itself, as EasyEdit's metrics do: the target begins after the prompt's own tokens.

    What the tokeniser puts behind every text (an end token) is left out: it is no part of the answer.

    Raises:
        RequestError: a target tokenises to nothing, or the text is longer than the model's `max_tokens`.
    """
    encoded = []
    behind = _tokens_behind(tok)
    for request in requests:
        ids = _without(behind, tok(request.text)["input_ids"])
        start = len(_without(behind, tok(request.asked)["input_ids"]))
        if len(ids) <= start:
            raise RequestError(
                f"the target {request.target!r} tokenises to nothing after {request.prompt!r} "
                f"({start} tokens with and without it); give another target."
            )
        if start == 0:
            raise RequestError(f"the prompt {request.prompt!r} tokenises to nothing; give a longer prompt.")
        require_positions(request.prompt, len(ids), max_tokens)
        encoded.append(Encoded(torch.tensor(ids), start, _subject_tokens(tok, request, start)))
    return encoded


def require_positions(prompt: str, length: int, max_tokens: int | None) -> None:
    """Raises `RequestError` where a text that begins with the prompt is longer, in tokens, than `max_tokens`."""
    if max_tokens is not None and length > max_tokens:
        raise RequestError(
            f"expected at most {max_tokens} tokens (the model's positions), got {length} for {prompt[:60]!r}...; "
            "shorten the prompt."
        )


def fitting(tok: Any, requests: Sequence[EditRequest], max_tokens: int | None) -> list[Encoded]:
    """Those that are no longer than the model's `max_tokens`: of texts that are not the user's own, but made of it."""
    return [e for e in encode(tok, requests) if max_tokens is None or len(e.ids) <= max_tokens]


def token_ids(tok: Any, text: str) -> list[int]:
    """A text's tokens, with what the tokeniser puts before every text and without what it puts behind."""
    return _without(_tokens_behind(tok), tok(text)["input_ids"])


def _tokens_behind(tok: Any) -> int:
    """How many tokens the tokeniser puts behind every text."""
    whole, bare = tok("a")["input_ids"], tok("a", add_special_tokens=False)["input_ids"]
    extra = len(whole) - len(bare)
    before = next((k for k in range(extra + 1) if whole[k : k + len(bare)] == bare), extra) if bare else extra
    return extra - before


def _without(behind: int, ids: list[int]) -> list[int]:
    return ids[: len(ids) - behind]


def last_place(prompt: str, subject: str) -> int:
    """Index of the first character of the subject, where it stands last in the prompt: as words of its own if it does
    anywhere ("Go" is not in "Google"), or else within others.

    Raises:
        ValueError: it does not stand there.
    """
    whole = [m.start() for m in re.finditer(rf"(?<!\w)(?={re.escape(subject)}(?!\w))", prompt)]
    return whole[-1] if whole else prompt.rindex(subject)


def slotted(prompt: str, subject: str) -> str:
    """The prompt with `{}` where the subject stands last: EasyEdit's editors look for one such place, and make each
    letter of "within" one where the subject is "i"."""
    begin = last_place(prompt, subject)
    return f"{prompt[:begin]}{{}}{prompt[begin + len(subject) :]}"


def _subject_tokens(tok: Any, request: EditRequest, answer_start: int) -> tuple[int, int] | None:
    """Tokens that hold a part of the subject, where it stands last in the prompt, or the white space before it."""
    subject = (request.subject or "").strip()
    if not subject or subject not in request.prompt:
        return None
    begin = len(request.frame[0]) + last_place(request.prompt, subject)
    found = _tokens_at(tok, request.text, begin, begin + len(subject))
    first, after = found or _counted_tokens(tok, request.asked, begin, begin + len(subject))
    return (first, after) if 0 < after <= answer_start else None


def _tokens_at(tok: Any, text: str, begin: int, end: int) -> tuple[int, int] | None:
    """First token of the characters from `begin` to before `end`, and the one after them, by the tokeniser's own
    account of where each comes from; None where it gives none, or one that leaves characters out."""
    if not getattr(tok, "is_fast", False):
        return None
    spans = tok(text, return_offsets_mapping=True)["offset_mapping"]
    inside = [i for i, (a, b) in enumerate(spans) if max(a, begin) < min(b, end)]
    covered = {c for i in inside for c in range(*spans[i])}
    if not all(c in covered or text[c].isspace() for c in range(begin, end)):
        return None
    first, space = inside[0], len(text[:begin].rstrip())
    while first and spans[first - 1] != (0, 0) and space <= spans[first - 1][0] <= spans[first - 1][1] <= begin:
        first -= 1  # a space that is a token by itself; (0, 0) is one that stands for nothing in the text
    return first, inside[-1] + 1


def _counted_tokens(tok: Any, prompt: str, begin: int, end: int) -> tuple[int, int]:
    """The same, counted from the tokens of the text around it."""
    first, after = (len(token_ids(tok, text)) for text in (prompt[:begin].rstrip(), prompt[:end]))
    return min(first, after - 1), after


def collate(encoded: Sequence[Encoded], device: torch.device | str = "cpu") -> Batch:
    """Pad requests into one batch. The id used for padding is never seen: it is masked and lies to the right."""
    texts = [e.ids[:-1] for e in encoded]
    ids = pad_sequence(texts, batch_first=True)
    mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    rows = torch.cat([torch.full((len(e.answer),), row) for row, e in enumerate(encoded)])
    cols = torch.cat([torch.arange(e.answer_start - 1, len(e.ids) - 1) for e in encoded])
    targets = torch.cat([e.answer for e in encoded])
    move = [t.to(device) for t in (ids, mask, rows, cols, targets)]
    return Batch(move[0], None if mask.all() else move[1], *move[2:])
