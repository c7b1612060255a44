"""One model in memory for several visitors: each has edits of their own, and none sees another's.

What a visitor has is data: patches, and what PaCKE+ remembers of them. The model is lent to one at a time, holds that
one's edits for as long, and is given back as it was, bit for bit.
"""

from __future__ import annotations

import itertools
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..config import HyperParams, PaCKEPlusHyperParams
from ..editor import compute_patch
from ..errors import HyperParamsError, PatchError, RequestError, one_of
from ..model.config import max_tokens
from ..model.ffn import FFNMap
from ..model.generation import greedy_all
from ..model.hooks import frozen
from ..patch import EditStack, OriginalWeights, WeightPatch
from ..patch.watchers import watchers
from ..plus.background import Background
from ..plus.layers import in_layers
from ..plus.state import EditMemory
from ..requests import EditRequest, token_ids
from ..trace.trace import Trace, trace_requests

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 12
"""Most tokens of an answer, where its target is not longer."""

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Edit:
    """An edit that a visitor has made.

    Attributes:
        number: tells it from every other edit.
        seconds: that computing it took, without PaCKE+'s background text.
    """

    number: int
    editor: str
    request: EditRequest
    patch: WeightPatch
    seconds: float


@dataclass(frozen=True)
class Answer:
    """How a prompt goes on, by the unedited model and under a visitor's edits; each in one line."""

    prompt: str
    before: str
    now: str


class SharedModel:
    """A model that is lent to one session at a time.

    Args:
        model, tok: unedited; they stay so for everybody who looks between two loans.
        settings: by editor's name, its hyper-parameters.
        name: of the model, as patches keep it.
    """

    def __init__(self, model: PreTrainedModel, tok: Any, settings: Mapping[str, HyperParams], name: str = "") -> None:
        self.model, self.tok, self.settings, self.name = model, tok, dict(settings), name
        self.num_weights = sum(p.numel() for p in model.parameters())
        self.positions = max_tokens(model) or math.inf
        self._background = Background()
        self._lock = Lock()

    @contextmanager
    def lent(self, session: Session | None = None) -> Iterator[PreTrainedModel]:
        """The model under a session's edits, or unedited; others wait.

        Afterwards it holds the very bits that it held before, and is watched by whoever watched it before, also after
        an exception.
        """
        with self._lock:
            held = session.held if session else WeightPatch({})
            held.apply(self.model)
            known = watchers(self.model)
            others = known[:]
            known[:] = [session.memory] if session else []
            try:
                yield self.model
            finally:
                known[:] = others
                OriginalWeights(self.model, held).restore()

    def settings_of(self, editor: str) -> HyperParams:
        """Raises HyperParamsError where the model has none for this editor."""
        if editor not in self.settings:
            raise HyperParamsError(f"no editor {editor!r} for this model; {one_of(editor, list(self.settings))}.")
        return self.settings[editor]

    def new_memory(self) -> EditMemory:
        """What PaCKE+ knows for a new session: no edits, and the background, which is the same for all."""
        memory = EditMemory()
        memory.background = self._background
        return memory

    def read_background(self, hparams: HyperParams) -> None:
        """Let PaCKE+ see what is usual for the model while it is unedited: some visitor's edits are not.

        Takes long once; afterwards it does nothing.
        """
        if isinstance(hparams, PaCKEPlusHyperParams):
            with self.lent() as model, frozen(model):
                self._background.prepare(model, self.tok, in_layers(FFNMap.of(model), hparams), hparams)


class Session:
    """One visitor's edits of a shared model.

    Attributes:
        edits: in force, oldest first.
        held: all of them as one patch of the unedited model.
        memory: what PaCKE+ knows of them.
    """

    def __init__(self, shared: SharedModel) -> None:
        self.shared = shared
        self.edits: list[Edit] = []
        self.held = WeightPatch({})
        self.memory = shared.new_memory()
        self._stack = EditStack(shared.model)
        self._unedited: dict[tuple[str, int], str] = {}

    def path(self, prompt: str, target: str, subject: str = "") -> Trace:
        """What PaCKE would change for a fact, on top of the edits so far; nothing changes.

        Raises:
            PaCKEError: what `trace_requests` raises, or PaCKE has no settings for the model.
        """
        request, hparams = _request(prompt, target, subject), self.shared.settings_of("PaCKE")
        with self.shared.lent(self) as model:
            return trace_requests(model, self.shared.tok, [request], hparams)[0]

    def edit(self, editor: str, prompt: str, target: str, subject: str = "") -> Edit:
        """Write a fact on top of the edits so far.

        Raises:
            PaCKEError: what `compute_patch` raises, or no such editor; nothing has changed then.
        """
        request, hparams = _request(prompt, target, subject), self.shared.settings_of(editor)
        self.shared.read_background(hparams)
        with self.shared.lent(self) as model:
            start = time.perf_counter()
            patch = compute_patch(model, self.shared.tok, [request], hparams)
            seconds = time.perf_counter() - start
            patch.info["base_model"] = self.shared.name
            self.held = WeightPatch.merge([self.held, patch]) if self.edits else patch
            self._stack.push(patch)  # in force whenever the model is lent to this session
            edit = Edit(next(_NUMBERS), editor, request, patch, seconds)
            self.edits = [*self.edits, edit]
        return edit

    def revert(self, number: int) -> None:
        """Take one edit back, whichever; the others stay.

        Raises:
            PatchError: there is no such edit.
        """
        with self.shared.lent(self):
            edit = next((e for e in self.edits if e.number == number), None)
            if edit is None:
                raise PatchError("this edit is not in force any more; it was taken back before.")
            self._stack.revert(edit.patch)
            self.held = self._stack.merged()
            self.edits = [e for e in self.edits if e is not edit]

    def reset(self) -> None:
        """Take all edits back."""
        for edit in reversed(self.edits):
            self.revert(edit.number)

    def answers(self, prompts: Sequence[str], tokens: int = TOKENS) -> list[Answer]:
        """How each prompt goes on, greedily, before all edits and now.

        Raises:
            RequestError: a prompt without tokens, or one that leaves the model no room for an answer.
        """
        for prompt in prompts:
            if len(token_ids(self.shared.tok, prompt)) + tokens > self.shared.positions:
                raise RequestError(
                    f"expected at most {self.shared.positions - tokens} tokens, for the answer to have room, got "
                    f"{prompt[:60]!r}...; shorten it."
                )
        asked = list(dict.fromkeys(prompts))
        with self.shared.lent() as model:
            new = [p for p in asked if (p, tokens) not in self._unedited]
            said = self._said(model, new, tokens)
            self._unedited |= {(p, tokens): text for p, text in said.items()}
        before = {p: self._unedited[p, tokens] for p in asked}
        now = before
        if self.edits:
            with self.shared.lent(self) as model:
                now = self._said(model, asked, tokens)
        return [Answer(p, before[p], now[p]) for p in prompts]

    def _said(self, model: PreTrainedModel, prompts: Sequence[str], tokens: int) -> dict[str, str]:
        texts = greedy_all(model, self.shared.tok, prompts, tokens) if prompts else []
        return {p: " ".join(text.split()) for p, text in zip(prompts, texts, strict=True)}

    def save_patch(self, folder: Path) -> Path:
        """Write all edits as one safetensors file that `packe apply` puts into the model's folder.

        Raises:
            PatchError: there is no edit.
        """
        return self._whole().save(folder / "edits.safetensors")

    def save_adapter(self, folder: Path) -> Path:
        """Write all edits as a zip of a PEFT LoRA adapter.

        Raises:
            PatchError: there is no edit, or LoRA cannot hold it.
        """
        adapter = self._whole().to_lora().save(folder / "adapter")
        return Path(shutil.make_archive(str(folder / "adapter"), "zip", adapter))

    def _whole(self) -> WeightPatch:
        if not self.edits:
            raise PatchError("expected at least one edit to write, got none; make one first.")
        return self.held


def _request(prompt: str, target: str, subject: str) -> EditRequest:
    return EditRequest.from_dict({"prompt": prompt, "target_new": target, "subject": subject.strip() or None})
