"""One benchmark run: edit by a protocol, measure, roll back or go on; resumable at every row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..config import PaCKEHyperParams
from ..model.chat import in_turn
from ..registry import OWN, register
from ..requests import ended
from .data import FORMATS, Record
from .editors import BenchError
from .environment import describe
from .folder import RunFolder
from .measure import Measure, progress, together
from .metrics.judge import Judge
from .metrics.text import perplexities
from .plan import Plan, plan
from .session import Session
from .settings import Settings
from .store import only_one
from .through_easyedit import plain
from .unedited import OF, unedited

LOCAL = ("device", "model_name", "stats_dir", "P_loc")
"""Hyper-parameters that say where things are on this machine, and do not make another run."""

CHAT = "use_chat_template"
"""A hyper-parameter of some editors; here it is the benchmark's, and the same for all."""


def run(settings: Settings) -> Path:
    """Do what of a run is not done yet.

    Returns:
        The run's folder; see `RunFolder`.

    Raises:
        StoreError: the folder holds another run, or another process is at work in it.
        BenchError: the editor failed; what is done stays.
    """
    with only_one(settings.folder):
        return _Run(settings).go()


class _Run:
    def __init__(self, settings: Settings) -> None:
        self.settings, editor = settings, settings.found_editor
        self.environment = describe(f"EasyEdit {register().version}")
        self.records = settings.records()
        self.plan = plan(settings.protocol, self.records, settings.batch_size, settings.curve)
        hparams = fitted(editor.load_hparams(settings.model, settings.hparams_file, settings.hparams), settings)
        self.session = Session(editor, settings.model, hparams, settings.device, settings.dtype)
        self.turn = partial(in_turn, self.session.tok) if settings.use_chat_template else None
        template = self.turn("{}") if self.turn is not None else ""
        chosen = {k: v for k, v in plain(hparams).items() if k not in (*LOCAL, CHAT)}
        identity = settings.identity(chosen, self.session.digest, template)
        self.asked_of = {key: identity.get(key, "") for key in OF}
        judge = Judge(settings.judge, settings.judge_url) if settings.judge else None
        self.measured = Measure(FORMATS[settings.data].compares, settings.generation, judge, self.turn)
        self.measured.require_readable(self.session.model, self.session.tok, self.records)
        about = {"num_records": len(self.records)}
        self.folder = RunFolder(settings.folder, identity, self.plan, about, self.environment)
        self.checkpoint = settings.folder / "state.safetensors"
        self.name = f"{editor.name} {settings.data} {settings.protocol}"

    def go(self) -> Path:
        with self.session.restored(self.settings.seed):
            self.before = self.unedited()
            if self.plan.rollback:
                self.one_by_one()
            else:
                self.in_a_row()
        return self.folder.path

    def one_by_one(self) -> None:
        """Each call is rolled back after its records have been measured."""
        missing = [i for i in range(len(self.plan.calls)) if not self.folder.is_done(i)]
        for i in progress(missing, self.name, len(missing), "call"):
            self.edit(i)
            self.measure(self.plan.calls[i], i, after=0)
            self.session.roll_back()

    def in_a_row(self) -> None:
        """No call is rolled back. A point of the curve is measured before the next call is made, also when the run
        was killed while it was measured; so the last point is complete only after all others."""
        last = len(self.plan.calls)
        if self.unmeasured(self.records, last):
            done = self.session.load(self.checkpoint) if self.checkpoint.is_file() else 0
            if done in self.plan.measure_after:
                self.measure(self.records[:done], done - 1, after=done)
            for i in progress(range(done, last), self.name, last - done, "edit"):
                self.edit(i)
                if i + 1 in self.plan.measure_after or (i + 1) % self.settings.checkpoint_every == 0:
                    self.session.save(self.checkpoint, i + 1)
                if i + 1 in self.plan.measure_after:
                    self.measure(self.records[: i + 1], i, after=i + 1)
        self.checkpoint.unlink(missing_ok=True)

    def edit(self, call: int) -> None:
        of_unedited = self.plan.rollback or self.session.simie is not None
        records, share = self.plan.calls[call], self.settings.share and of_unedited
        made = self.session.edit([self.given(r) for r in records], self.settings.seed + call, share)
        if call + 1 in self.plan.measure_after:
            # Where each edit is measured by itself, the whole text would take longer than most edits.
            part = "short" if self.settings.protocol == "single" else "whole"
            found = perplexities(self.session.model, self.session.tok, part)
            made |= {"held_out": part, "perplexities": found}
        self.folder.add_edit({"call": call, "case_ids": [r.case_id for r in records], **made})

    def given(self, record: Record) -> Record:
        """What the editor sees. This package's own make the user's turn themselves, and know the subject in it."""
        editor = self.settings.found_editor
        record = dataclasses.replace(record, target_new=ended(record.target_new, self.settings.answer_end))
        if self.turn is None or editor.alg_name in OWN or not editor.takes(record):
            return record
        return dataclasses.replace(record, prompt=self.turn(record.prompt))

    # --- measuring ----------------------------------------------------------------------------------------------

    def unedited(self) -> dict[int, dict[str, Any]]:
        folder = self.settings.unedited_folder
        return unedited(folder, self.session, self.records, self.measured, self.environment, self.asked_of)

    def unmeasured(self, records: Sequence[Record], after: int) -> list[Record]:
        missing = set(self.folder.unmeasured([r.case_id for r in records], after))
        return [r for r in records if r.case_id in missing]

    def measure(self, records: Sequence[Record], call: int, after: int) -> None:
        """Those records that have no row yet, after a call."""
        missing = {r.case_id for r in self.unmeasured(records, after)}
        records = together(records, missing)
        measured = dataclasses.replace(self.measured, told=self.settings.found_editor.told, judged=missing)
        rows = measured.edited(self.session.model, self.session.tok, records, self.before)
        if after:
            rows = progress(rows, f"measuring after {after} edits", len(records))
        for record, row in zip(records, rows, strict=True):
            if record.case_id in missing:
                self.folder.add_case(call, {"after": after, "case_id": record.case_id, **row})


def fitted(hparams: Any, settings: Settings) -> Any:
    """Hyper-parameters for a protocol: shipped YAMLs have a batch size of their own; here the protocol decides how
    many requests a call takes, the run's seed is the editor's, and the authors' epochs are their program's.

    Raises:
        BenchError: a chat template for the editor alone, and not for what is measured; a batch size of its own.
    """
    if hasattr(hparams, CHAT):
        if getattr(hparams, CHAT) and not settings.use_chat_template:
            raise BenchError(
                f"hparams.{CHAT}: expected the benchmark's own setting {CHAT}=true, by which every editor edits and "
                "every question is asked; set that instead."
            )
        setattr(hparams, CHAT, settings.use_chat_template and settings.found_editor.alg_name in OWN)
    if settings.found_editor.alg_name in OWN and "seed" not in settings.hparams:
        hparams.seed = settings.seed  # theirs have generators of their own
    if settings.protocol == "epochs":
        if isinstance(hparams, PaCKEHyperParams):
            program = hparams.authors_program()
            return dataclasses.replace(program, num_steps=12, edit_batch_size=2, loss_threshold=None)
        return hparams
    counts_requests = settings.found_editor.name != "KN"  # whose batch_size counts steps of its integral
    if counts_requests and "batch_size" in settings.hparams:
        raise BenchError(
            "hparams.batch_size: expected the benchmark's own setting batch_size, with protocol=batch, by which every "
            "editor gets as many requests in a call; set these instead."
        )
    if counts_requests and hasattr(hparams, "batch_size"):
        hparams.batch_size = settings.batch_size if settings.protocol == "batch" else 1
    return hparams


__all__ = ["Plan", "plan", "run"]
