"""One editor at work on one model: calls, refusals, rolling back, and what is saved to go on elsewhere."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from ..baselines import shared_targets
from ..cache import written_whole
from ..easyedit import bridged, routed
from ..easyedit.state import carried, carry, forget, fresh_state, sample_prefixes
from ..easyedit.statistics import compute_stats, missing_stats, stats_files
from ..errors import RequestError, first_line
from ..model.bits import weights_digest
from ..model.chat import framed
from ..model.device import check_device
from ..model.fetch import SOURCES
from ..model.load import load
from ..plus.state import EditMemory
from ..registry import OWN, apply_function
from ..requests import EditRequest
from .data import Record
from .editors import BenchError, Editor
from .peak_memory import peak_memory
from .simie import SimIE
from .store import StoreError
from .stored_targets import StoredTargets
from .through_easyedit import quiet
from .weights import Weights

LOG = logging.getLogger(__name__)


class Session:
    """A model and an editor.

    Attributes:
        hparams: the editor's; `device` and `model_name` are set here.
        weights: the unedited model's.
        digest: of the unedited model's weights.
    """

    def __init__(self, editor: Editor, model: str, hparams: Any, device: str | None, dtype: str = "auto") -> None:
        self.editor, self.name, self.hparams, self.dtype = editor, model, hparams, dtype
        hparams.device = device if device is not None else str(check_device(None))
        hparams.model_name = model
        self._load()
        self.weights = Weights(self.model)
        self.digest = weights_digest(self.model)
        self.apply: Any = None if editor.told else apply_function(editor.alg_name)
        self.simie = SimIE(self.weights, hparams.lamHyper) if editor.simie else None

    def _load(self) -> None:
        transformers_logging.disable_progress_bar()
        self.model, self.tok = load(self.name, dtype=self.dtype)
        self.model.eval().to(check_device(self.hparams.device))
        self.tok.padding_side = "left"  # what EasyEdit gives a decoder model
        self.use_cache = self.model.config.use_cache

    @contextlib.contextmanager
    def restored(self, seed: int) -> Iterator[None]:
        """No state of an editor goes in or comes out; nor does randomness, nor an edit."""
        gc.freeze()  # so that what is there now is not looked through anew before each edit
        try:
            with seeded(seed), fresh_state(seed):
                self._ready_statistics()
                with bridged(self.hparams), quiet():
                    sample_prefixes(self.model, self.tok, self.hparams)
                yield
        finally:
            gc.unfreeze()
            self.weights.restore(self.model)

    def _ready_statistics(self) -> None:
        """Second moments for those editors that need them; of a model that `packe model fetch` knows, made here."""
        h = self.hparams
        if not getattr(h, "mom2_adjustment", False):
            return
        names = {layer: h.rewrite_module_tmp.format(layer) for layer in h.layers}
        missing = [
            layer
            for layer, name in names.items()
            for f in stats_files(self.model, name, h.stats_dir, h.mom2_n_samples, h.mom2_dtype, h.mom2_dataset)
            if not f.is_file()
        ]
        if missing and self.name in SOURCES:
            LOG.warning("measuring second moments of layers %s, once; this takes minutes", sorted(set(missing)))
            compute_stats(self.model, self.tok, "self", missing)
        elif missing:
            raise missing_stats(h)

    # --- editing ------------------------------------------------------------------------------------------------

    def edit(self, records: Sequence[Record], seed: int, share: bool) -> dict[str, Any]:
        """One call of the editor.

        A record that it declares it cannot take stays unedited, and is listed.

        Args:
            share: take target vectors of the unedited model from the cache, and count the time they once took.

        Returns:
            `refused` (case to reason), `seconds`, `memory_bytes` (beyond what was in use; None where the system does
            not tell, or vectors may come from the cache), `weights_changed` and `norm_growth` (against the unedited
            model).

        Raises:
            BenchError: the editor fails in a way that it does not declare; its weights and state are put back.
        """
        refused = {r.case_id: "the prompt lacks its subject" for r in records if not self.editor.takes(r)}
        if self.editor.alg_name in OWN:  # of several in a call, one that cannot be read would have all refused
            refused |= {r.case_id: why for r in records if (why := _unreadable(r))}
        able = [r for r in records if r.case_id not in refused]
        targets = StoredTargets(self.digest) if share else None
        sees = self.editor.alg_name == "PaCKE+" and self.simie is None  # by itself, which edits are left
        before = {n: p.clone() for n, p in self.weights.changed().items()}, None if sees else self.state()
        with peak_memory(self.model.device) as peak, seeded(seed):
            start = time.perf_counter()
            try:
                if able:
                    self._call([r.request for r in able], targets)
            except self.editor.refuses as e:
                self._take_back(*before)
                refused.update({r.case_id: _reason(e) for r in able})
                LOG.warning("%s refuses %d record(s): %s", self.editor.name, len(able), e)
            except Exception as e:
                self._take_back(*before)
                cases = ", ".join(str(r.case_id) for r in able[:5])
                raise BenchError(
                    f"{self.editor.name} failed on record(s) {cases}: {type(e).__name__}: {e}. The rows so far are "
                    "kept; mend the cause, and the same command goes on from there."
                ) from e
            saved = targets.saved_seconds if targets is not None else 0.0
            seconds = time.perf_counter() - start + saved
        return {
            "refused": refused,
            "seconds": seconds,
            "memory_bytes": None if targets is not None and targets.asked else peak.bytes,
            "weights_changed": self.weights.count_changed(),
            "norm_growth": self.weights.growth(),
        }

    def _call(self, requests: list[dict[str, Any]], targets: StoredTargets | None) -> None:
        if self.editor.told:
            return
        if self.simie is None:
            self._apply(requests, targets)
            return
        for request in requests:
            forget(self.editor.alg_name)  # each is made of the unedited model
            apply = functools.partial(self._apply, [request], targets)
            read = EditRequest.from_dict(request)
            # Editors of this package make the user's turn themselves; the others are given it.
            read = framed(self.tok, read) if getattr(self.hparams, "use_chat_template", False) else read
            self.simie.edit(self.model, self.tok, read, apply)

    def _apply(self, requests: list[dict[str, Any]], targets: StoredTargets | None) -> None:
        with contextlib.ExitStack() as stack:
            if targets is not None:
                stack.enter_context(shared_targets(targets))
            stack.enter_context(quiet())
            if self.editor.alg_name not in OWN:  # which need no bridge to a CPU, and would only be slowed by it
                stack.enter_context(bridged(self.hparams))
            model, _ = self.apply(
                self.model, self.tok, requests, self.hparams,
                copy=False, return_orig_weights=True, keep_original_weight=True,
            )  # fmt: skip
        # LoRA comes back as an adapter around the model, whose weights are the edit, and leaves checkpointing on.
        model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
        self.model = routed.unwrapped(model)
        if any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules()):
            self.model.gradient_checkpointing_disable()
            self.model.disable_input_require_grads()
        self.model.config.use_cache = self.use_cache
        self.model.eval()

    def _take_back(self, changed: dict[str, Tensor], state: dict[str, Tensor] | None) -> None:
        """After an exception: the weights and the editor's state from before the call, unless it sees that itself."""
        vars(self.model).pop("peft_config", None)  # or LoRA would take the next edit for a further one
        self.weights.load(self.model, changed)
        if state is not None:
            self.go_on_from(state)

    def roll_back(self) -> None:
        """The unedited model, and an editor that knows of no edit."""
        self.weights.restore(self.model)
        forget(self.editor.alg_name)
        if self.simie is not None:
            self.simie.sums.clear()

    # --- what goes on elsewhere -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """What the editor knows from earlier edits."""
        if self.simie is not None:
            return self.simie.tensors()
        if self.editor.alg_name == "PaCKE+":
            return EditMemory.of(self.model).tensors()
        return carried(self.editor.alg_name) | routed.state(self.model)

    def go_on_from(self, state: dict[str, Tensor]) -> None:
        """What `state` gave, for a model that holds the edits."""
        if self.simie is not None:
            self.simie.load(state)
        elif self.editor.alg_name == "PaCKE+":
            EditMemory.restore(self.model, state)
        else:
            carry(self.editor.alg_name, routed.put_back(self.model, self.hparams, state))

    def save(self, file: Path, done: int) -> None:
        """The weights that differ from the unedited model, and the editor's state."""
        tensors = {f"weight:{n}": p.cpu().contiguous() for n, p in self.weights.changed().items()}
        tensors |= {f"state:{n}": t.cpu().contiguous() for n, t in self.state().items()}
        with written_whole(file) as part:
            save_file(tensors, part, metadata={"done": str(done)})

    def load(self, file: Path) -> int:
        """Go on from what `save` wrote; how many calls are behind it."""
        try:
            with safe_open(file, "pt") as f:
                tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
                done = int(f.metadata()["done"])
        except SafetensorError as e:
            raise StoreError(f"{file} is damaged ({e}); remove its folder, and run it again.") from e
        self.weights.load(self.model, _under(tensors, "weight:"))
        self.go_on_from(_under(tensors, "state:"))
        return done


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _unreadable(record: Record) -> str:
    """Why an editor of this package cannot take the record; empty where it can."""
    try:
        EditRequest.from_dict(record.request)
    except RequestError as e:
        return _reason(e)
    return ""


def _reason(error: Exception) -> str:
    return first_line(error)[:300]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All random generators start from `seed` inside, and go on as before afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(list(range(torch.cuda.device_count()))):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
