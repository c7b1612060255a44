"""One benchmark run: edit by a protocol, measure, roll back or go on; resumable at every row."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

from ..baselines import shared_targets
from ..easyedit import bridged
from ..easyedit.state import carried, carry, forget, fresh_state, sample_prefixes
from ..easyedit.statistics import compute_stats, missing_stats, stats_files
from ..model.bits import weights_digest
from ..model.device import check_device
from ..model.fetch import SOURCES
from ..model.load import load
from ..plus.state import EditMemory
from ..registry import OWN, apply_function, register
from . import metrics
from .data import Record, read_records
from .environment import describe
from .peak_memory import peak_memory
from .settings import Settings
from .store import Rows, StoreError, only_one, write_json
from .stored_targets import StoredTargets
from .through_easyedit import plain, quiet
from .weights import Weights

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A protocol as data: the requests of each call, whether calls are rolled back, and after which to measure."""

    calls: list[list[Record]]
    rollback: bool
    measure_after: frozenset[int]


def plan(protocol: str, records: Sequence[Record], batch_size: int = 100, curve: Sequence[int] = ()) -> Plan:
    """single, batch, consecutive or epochs; see `Settings.protocol`."""
    records = list(records)
    size = {"single": 1, "consecutive": 1, "batch": batch_size, "epochs": len(records)}[protocol]
    calls = [records[i : i + size] for i in range(0, len(records), size)]
    if protocol == "consecutive":
        return Plan(calls, False, frozenset({*curve, len(calls)}))
    return Plan(calls, True, frozenset(range(1, len(calls) + 1)))


def run(settings: Settings) -> Path:
    """Do what of a run is not done yet.

    Returns:
        The run's folder: `run.json` (what was run, where, with which versions), `edits.jsonl` (one row a call: seconds,
        peak bytes, weights changed, perplexity) and `cases.jsonl` (one row a measured record).

    Raises:
        StoreError: the folder holds another run, or another process is at work in it.
    """
    with only_one(settings.folder):
        return _Run(settings).go()


class _Run:
    def __init__(self, settings: Settings) -> None:
        self.settings, self.editor = settings, settings.found_editor
        self.environment = {"easyedit": f"EasyEdit {register().version}", **describe()}
        records = read_records(settings.data_file, settings.data_type)
        self.records = records[settings.start : settings.start + settings.n]
        self.plan = plan(settings.protocol, self.records, settings.batch_size, settings.curve)
        self.hparams = self.editor.load_hparams(settings.model, settings.hparams_file, settings.hparams)
        self.hparams.device = settings.device if settings.device is not None else str(check_device(None))
        self.fit_protocol()
        self.load_model()
        self.apply = apply_function(self.editor.alg_name)
        folder = settings.folder
        self.edits = Rows(folder / "edits.jsonl", ("call",))
        self.cases = Rows(folder / "cases.jsonl", ("after", "case_id"))
        self.checkpoint = folder / "state.safetensors"
        self.claim_folder()

    def fit_protocol(self) -> None:
        """Shipped YAMLs have a batch size of their own; here the protocol decides how many requests a call takes."""
        counts_requests = self.editor.name != "KN"  # whose batch_size counts steps of its integral
        if counts_requests and hasattr(self.hparams, "batch_size") and self.settings.protocol != "epochs":
            self.hparams.batch_size = max(len(call) for call in self.plan.calls)
        if self.editor.alg_name == "PaCKE" and self.settings.protocol == "epochs":
            self.hparams = dataclasses.replace(
                self.hparams.authors_program(), num_steps=12, edit_batch_size=2, loss_threshold=None
            )

    def load_model(self) -> None:
        transformers_logging.disable_progress_bar()
        self.model, self.tok = load(self.settings.model)
        self.model.eval().to(check_device(self.hparams.device))
        self.tok.padding_side = "left"  # what EasyEdit gives a decoder model
        self.hparams.model_name = self.settings.model
        self.use_cache = self.model.config.use_cache
        self.weights = Weights(self.model)
        self.digest = weights_digest(self.model)

    def claim_folder(self) -> None:
        """Write `run.json`, or make sure that the one there describes the same run."""
        identity = self.settings.identity(_chosen(self.hparams), model_sha256=self.digest)
        path = self.settings.folder / "run.json"
        if path.is_file():
            was = _read(path)["identity"]
            now = _read_back(identity)
            differs = sorted(k for k in {*was, *now} if was.get(k) != now.get(k))
            if differs:
                detail = "; ".join(f"{k}: {was.get(k)!r} there, {now.get(k)!r} now" for k in differs)
                raise StoreError(
                    f"{self.settings.folder} holds another run ({detail}). Add label=NAME, take another out=, or "
                    "remove that folder."
                )
        size = {"data_type": self.settings.data_type, "num_records": len(self.records)}
        write_json(path, {"identity": identity, **size, **self.environment})

    def go(self) -> Path:
        with self.everything_restored():
            before = self.unedited()
            start = self.resume()
            for i, call in enumerate(self.progress(self.plan.calls)):
                done = i + 1
                if i < start or (self.plan.rollback and self.is_done(i)):
                    continue
                self.edit(i, call)
                if not self.plan.rollback and (
                    done % self.settings.checkpoint_every == 0 or done in self.plan.measure_after
                ):
                    self.save_checkpoint(done)
                if done in self.plan.measure_after:
                    self.measure(call if self.plan.rollback else self.records[:done], done, before)
                if self.plan.rollback:
                    self.roll_back()
            if not self.plan.rollback and start == len(self.plan.calls):
                self.measure(self.records, start, before)  # killed while measuring after the last edit
            self.checkpoint.unlink(missing_ok=True)
        return self.settings.folder

    def progress(self, calls: Sequence[Any]) -> Any:
        from tqdm import tqdm

        what = f"{self.editor.name} {self.settings.data} {self.settings.protocol}"
        return tqdm(calls, desc=what, unit="edit" if len(calls) == len(self.records) else "call")

    @contextlib.contextmanager
    def everything_restored(self) -> Iterator[None]:
        """No state of an editor goes into a run or comes out of it; nor does randomness."""
        try:
            with seeded(self.settings.seed), fresh_state(self.settings.seed):
                self.ready_statistics()
                with bridged(self.hparams), quiet():
                    sample_prefixes(self.model, self.tok, self.hparams)
                yield
        finally:
            if self.weights.fits(self.model):
                self.weights.restore(self.model)

    def ready_statistics(self) -> None:
        """Second moments for those editors that need them; of a model that `packe model fetch` knows, made here."""
        if not getattr(self.hparams, "mom2_adjustment", False):
            return
        names = {layer: self.hparams.rewrite_module_tmp.format(layer) for layer in self.hparams.layers}
        missing = [n for n, name in names.items() if not self.has_statistics(name)]
        if missing and self.settings.model in SOURCES:
            LOG.warning("measuring second moments of layers %s, once; this takes minutes", missing)
            compute_stats(self.model, self.tok, "self", missing)
        elif missing:
            raise missing_stats(self.hparams)

    def has_statistics(self, module_name: str) -> bool:
        h = self.hparams
        files = stats_files(self.model, module_name, h.stats_dir, h.mom2_n_samples, h.mom2_dtype, h.mom2_dataset)
        return all(file.is_file() for file in files)

    # --- the unedited model -------------------------------------------------------------------------------------

    def unedited(self) -> dict[int, dict[str, Any]]:
        """Measurements of the unedited model by case, made once for a model and data file and kept beside the runs."""
        folder = self.settings.model_folder / "unedited"
        with only_one(folder, wait=True):
            rows = Rows(folder / "cases.jsonl", ("case_id",))
            about = folder / "run.json"
            model = self.digest
            if about.is_file() and _read(about)["model_sha256"] != model:
                raise StoreError(f"{folder} was measured on another model of that name; take another out=.")
            text = _read(about)["perplexity"] if about.is_file() else metrics.perplexity(self.model, self.tok)
            write_json(about, {"model_sha256": model, "perplexity": text, **self.environment})
            for record in self.records:
                if (record.case_id,) not in rows:
                    rows.append({"case_id": record.case_id, **self.measured(record)})
        return {row["case_id"]: row for row in rows}

    # --- editing ------------------------------------------------------------------------------------------------

    def edit(self, index: int, call: list[Record]) -> None:
        """One call of the editor. A record that it cannot take stays unedited, and is listed, counted and measured."""
        refused = {r.case_id: "the prompt lacks its subject" for r in call if not self.takes(r)}
        able = [r for r in call if r.case_id not in refused]
        kept = None if self.plan.rollback else {n: p.clone() for n, p in self.weights.changed(self.model).items()}
        if self.plan.rollback:
            forget(self.editor.alg_name)
        state = carried(self.editor.alg_name)
        with peak_memory(self.model.device) as peak, seeded(self.settings.seed + index):
            targets = self.targets()
            start = time.perf_counter()
            try:
                if able:
                    self.call_editor([_request(r) for r in able], targets)
            except (torch.OutOfMemoryError, MemoryError, ImportError):
                raise
            except Exception as e:
                LOG.warning("%s refuses %d record(s): %s: %s", self.editor.name, len(able), type(e).__name__, e)
                refused.update({r.case_id: f"{type(e).__name__}: {e}".split("\n")[0][:300] for r in able})
                self.take_back(kept, state)
            saved = targets.saved_seconds if targets is not None else 0.0
            seconds = time.perf_counter() - start + saved
        self.edits.append(
            {
                "call": index,
                "case_ids": [r.case_id for r in call],
                "refused": refused,
                "seconds": seconds,
                "memory_bytes": None if saved else peak.bytes,  # what was taken from the store needed none here
                "weights_changed": self.weights.count_changed(self.model),
                "perplexity": metrics.perplexity(self.model, self.tok)
                if index + 1 in self.plan.measure_after
                else None,
            }
        )

    def takes(self, record: Record) -> bool:
        return not self.editor.needs_subject or bool(record.subject and record.subject in record.prompt)

    def targets(self) -> StoredTargets | None:
        """Target vectors that were computed before on the same, unedited model."""
        if not (self.settings.share and self.plan.rollback):
            return None
        return StoredTargets(self.digest)

    def call_editor(self, requests: list[dict[str, Any]], targets: StoredTargets | None) -> None:
        with contextlib.ExitStack() as stack:
            if targets is not None:
                stack.enter_context(shared_targets(targets))
            stack.enter_context(quiet())
            if self.editor.alg_name not in OWN:  # which needs no bridge to a CPU, and would only be slowed by it
                stack.enter_context(bridged(self.hparams))
            model, _ = self.apply(
                self.model, self.tok, requests, self.hparams,
                copy=False, return_orig_weights=True, keep_original_weight=True,
            )  # fmt: skip
        # LoRA comes back as an adapter around the model, whose weights are the edit, and leaves checkpointing on.
        self.model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
        if self.model.is_gradient_checkpointing:
            self.model.gradient_checkpointing_disable()
            self.model.disable_input_require_grads()
        self.model.config.use_cache = self.use_cache
        self.model.eval()

    def take_back(self, kept: dict[str, torch.Tensor] | None, state: dict[str, torch.Tensor]) -> None:
        """After an exception: the weights and the editor's state from before the call."""
        if not self.weights.fits(self.model):
            weights = self.weights
            self.load_model()
            self.weights = weights
        self.weights.load(self.model, kept or {})
        carry(self.editor.alg_name, state)

    def roll_back(self) -> None:
        self.weights.restore(self.model)
        gc.collect()

    # --- measuring ----------------------------------------------------------------------------------------------

    def measure(self, records: Sequence[Record], done: int, before: dict[int, dict[str, Any]]) -> None:
        after = 0 if self.plan.rollback else done
        for record in records:
            if (after, record.case_id) in self.cases:
                continue
            row = self.measured(record)
            now, then = row["easyedit"], before[record.case_id]["easyedit"]
            now["locality"] = metrics.agreement(now.pop("locality_output"), then["locality_output"])
            self.cases.append({"after": after, "case_id": record.case_id, **row})

    def measured(self, record: Record) -> dict[str, Any]:
        with bridged(self.hparams):
            row = {"easyedit": metrics.easyedit_quality(self.model, self.tok, record, self.hparams)}
        row["rome"] = metrics.rome_family(self.model, self.tok, record, self.settings.data_type)
        if self.settings.generation:
            row["generation"] = metrics.generation_family(self.model, self.tok, record)
        return row

    def is_done(self, index: int) -> bool:
        return (index,) in self.edits and all((0, r.case_id) in self.cases for r in self.plan.calls[index])

    # --- resuming a consecutive run -----------------------------------------------------------------------------

    def save_checkpoint(self, done: int) -> None:
        """The weights that differ from the unedited model, and what the editor carries from edit to edit."""
        tensors = {f"weight:{n}": p.cpu().contiguous() for n, p in self.weights.changed(self.model).items()}
        tensors |= {f"state:{n}": t.cpu().contiguous() for n, t in self.carried().items()}
        beside = self.checkpoint.with_name(f".state.{os.getpid()}")
        save_file(tensors, beside, metadata={"done": str(done)})
        beside.replace(self.checkpoint)

    def carried(self) -> dict[str, torch.Tensor]:
        """What the editor knows from earlier edits."""
        if self.editor.alg_name == "PaCKE+":
            return EditMemory.of(self.model).tensors()
        return carried(self.editor.alg_name)

    def resume(self) -> int:
        """Load the checkpoint, if there is one; how many calls are behind it."""
        if self.plan.rollback or not self.checkpoint.is_file():
            return len(self.plan.calls) if self.is_complete() else 0
        with safe_open(self.checkpoint, "pt") as f:
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
            done = int(f.metadata()["done"])
        self.weights.load(self.model, {k[7:]: t for k, t in tensors.items() if k.startswith("weight:")})
        state = {k[6:]: t for k, t in tensors.items() if k.startswith("state:")}
        if self.editor.alg_name == "PaCKE+":
            EditMemory.restore(self.model, state)
        else:
            carry(self.editor.alg_name, state)
        return done

    def is_complete(self) -> bool:
        return not self.plan.rollback and all((len(self.plan.calls), r.case_id) in self.cases for r in self.records)


def _chosen(hparams: Any) -> dict[str, Any]:
    """Hyper-parameters that differ from their defaults, so that an option added later does not end an old run."""
    defaults = {f.name: f.default for f in dataclasses.fields(hparams)}
    local = ("device", "model_name", "stats_dir", "P_loc")
    return {k: v for k, v in plain(hparams).items() if k not in local and (k == "alg_name" or v != defaults.get(k))}


def _request(record: Record) -> dict[str, Any]:
    """What an editor may see: the paraphrase and the unrelated question are not in it."""
    request = {
        "case_id": record.case_id,
        "prompt": record.prompt,
        "target_new": record.target_new,
        "ground_truth": record.ground_truth,
    }
    if record.subject and record.subject in record.prompt:
        request["subject"] = record.subject
    return request


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


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_back(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
