"""What one benchmark run is: the one place of its settings and defaults, checked before anything is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import one_of
from ..model.fetch import DEFAULT_MODEL, SOURCES
from .archive import unedited_folder
from .data import FORMATS, Record, digest, find_file, read_records
from .editors import BenchError, Editor, find_editor
from .metrics.judge import check as check_judge

LOG = logging.getLogger(__name__)

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class Settings:
    """`packe bench key=value ...`"""

    model: str = DEFAULT_MODEL
    """A fetched model's name, a model folder, or a hub name."""
    data: str = "zsre"
    """zsre, counterfact (EasyEdit's counterfact-edit.json), mcf (ROME's counterfact.json), neighbourhood, knowedit,
    qaedit, wikibigedit, hallueditbench; or demo, facts that are part of this package."""
    data_dir: str = "${oc.env:PACKE_DATA,data}"
    """A folder that holds the data file, or the file itself."""
    protocol: str = "single"
    """single: each edit is rolled back. batch: `batch_size` edits in one call, then rolled back. consecutive: one
    after another, never rolled back, measured after the last. epochs: all edits in one call, in many passes."""
    editor: str = "PaCKE"
    """A row of the tables; all; or SimIE- before another's name."""
    n: int = 20
    """Records, from `start` on."""
    start: int = 0
    """Index of the first record."""
    seed: int = 42
    """Everything random in edit i comes from seed + i."""
    batch_size: int = 100
    """Requests in one call of the protocol batch."""
    curve: list[int] = field(default_factory=list)
    """consecutive only: measure all records so far also after these numbers of edits."""
    checkpoint_every: int = 10
    """consecutive only: edits after which the state is saved for resuming."""
    generation: bool = True
    """Also measure what the model says freely."""
    judge: str = ""
    """A model that says whether a free answer is right; empty: none is asked. Its key is that of OPENAI_API_KEY."""
    judge_url: str | None = None
    """Its server, any that speaks OpenAI's chat completions (http://localhost:8080/v1); null takes OPENAI_BASE_URL, or
    else OpenAI's own."""
    use_chat_template: bool = False
    """Ask every question, of every editor and of the unedited model, as a user's turn by the tokeniser's own chat
    template; for instruct models."""
    answer_end: str = ""
    """Every editor writes this behind the target (`.`), so that a free answer ends there; measured is the target."""
    share: bool = True
    """Compute target vectors that several editors need of the unedited model once, and keep them in the cache."""
    hparams: dict[str, Any] = field(default_factory=dict)
    """Single hyper-parameters to change: `+hparams.lr=1e-3`."""
    hparams_file: str | None = None
    """A YAML file in place of the shipped `hparams/<editor>/<model>.yaml`."""
    device: str | None = None
    """"cpu", a CUDA index; null takes CUDA where it is there."""
    dtype: str = "auto"
    """In which precision the model is loaded: float32, bfloat16, float16; auto: what the checkpoint is stored in."""
    out: str = "runs"
    """Where the folders of the runs are."""
    label: str = ""
    """Added to the folder's name, to tell apart runs that differ in something that the name does not show."""

    def check(self) -> Settings:
        """This, when it can be run.

        Raises:
            BenchError: a value that does not fit. DataError: no such data file.
        """
        self.found_editor.check(self.protocol)
        if self.data not in FORMATS:
            raise BenchError(f"data: {one_of(self.data, list(FORMATS))}; got {self.data!r}.")
        for name, least in (("n", 1), ("batch_size", 1), ("checkpoint_every", 1), ("start", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise BenchError(f"{name}: expected at least {least}, got {getattr(self, name)}.")
        if any(c in self.label for c in "/\\") or self.label in (".", ".."):
            raise BenchError(f"label: expected a part of a folder's name, without slashes, got {self.label!r}.")
        if self.curve and self.protocol != "consecutive":
            raise BenchError(f"curve: only the protocol consecutive is measured on the way, not {self.protocol!r}.")
        if any(not 0 < k <= self.n for k in self.curve):
            raise BenchError(f"curve: expected numbers from 1 to n = {self.n}, got {self.curve}.")
        if self.model not in SOURCES and not Path(self.model).exists() and "/" not in self.model:
            raise BenchError(
                f"model: {self.model!r} is no folder and no hub name (owner/name); {one_of(self.model, list(SOURCES))}."
            )
        if self.dtype not in DTYPES:
            raise BenchError(f"dtype: {one_of(self.dtype, list(DTYPES))}; got {self.dtype!r}.")
        find_file(self.data_dir, self.data)
        if self.judge:
            if not self.generation:
                raise BenchError("judge: it judges free answers; expected generation=true, got generation=false.")
            check_judge(self.judge_url)
        elif self.judge_url is not None:
            raise BenchError(f"judge_url: {self.judge_url!r} is asked nothing without judge=, the model's name there.")
        return self

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Settings:
        """From plain values, checked.

        Raises:
            BenchError: an unknown key or a wrong value. DataError: no such data file.
        """
        known = [f.name for f in fields(cls)]
        for key in config:
            if key not in known:
                raise BenchError(f"unknown setting {key!r}; {one_of(key, known)}.")
        try:
            merged: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), dict(config)))
        except OmegaConfBaseException as e:
            raise BenchError(f"{e.full_key or 'settings'}: {(e.msg or str(e)).splitlines()[0]}; correct it.") from None
        if Path(merged.model).name in ("", ".."):  # "." has no name to find hyper-parameters by
            merged.model = str(Path(merged.model).resolve())
        return merged.check()

    @property
    def data_file(self) -> Path:
        return find_file(self.data_dir, self.data)

    def records(self) -> list[Record]:
        """Those that the run is about.

        Raises:
            BenchError: there are none, or less than a point of the curve needs.
        """
        found = read_records(self.data_file, self.data)
        if self.start >= len(found):
            raise BenchError(
                f"start: expected less than the {len(found)} records of {self.data_file}, got {self.start}."
            )
        left = len(found) - self.start
        if any(k > left for k in self.curve):
            raise BenchError(f"curve: {self.data_file} has {left} records from start on, got {self.curve}.")
        if self.n > left:
            LOG.warning("n: %s has %d records from start on, not %d; all are taken", self.data_file, left, self.n)
        return found[self.start : self.start + self.n]

    @property
    def found_editor(self) -> Editor:
        return find_editor(self.editor)

    @property
    def model_folder(self) -> Path:
        """Holds everything about one model and data file."""
        return Path(self.out).expanduser() / Path(self.model).name / self.data_file.stem

    @property
    def folder(self) -> Path:
        """This run's folder. A longer `single` or `batch` run goes on in the folder of the shorter."""
        name = f"{self.found_editor.name}-seed{self.seed}"
        if self.protocol in ("consecutive", "epochs"):
            name += f"-n{self.n}"
        if self.protocol == "batch":
            name += f"-by{self.batch_size}"
        if self.start:
            name += f"-from{self.start}"
        if self.use_chat_template:
            name += "-chat"
        return self.model_folder / self.protocol / (name + (f"-{self.label}" if self.label else ""))

    @property
    def unedited_folder(self) -> Path:
        """Holds what the unedited model says."""
        return self.model_folder / unedited_folder(self.use_chat_template)

    def identity(self, hparams: Mapping[str, Any], model_sha256: str, template: str = "") -> dict[str, Any]:
        """What must be equal for a run to be continued.

        Args:
            hparams: all hyper-parameters, defaults included: a default that changes later makes another run.
            model_sha256: of all weights (`model.bits.weights_digest`).
            template: the chat template's text around a prompt; some hold the day's date.
        """
        same = ("model", "data", "protocol", "seed", "start", "generation", "curve", "label")
        config = {k: getattr(self, k) for k in same}
        # Runs from before there were these have no such entries.
        if self.judge:
            config["judge"] = self.judge
        if template:
            config["chat_template"] = template
        if self.dtype != "auto":
            config["dtype"] = self.dtype
        if self.answer_end:
            config["answer_end"] = self.answer_end
        if self.protocol == "batch":
            config["batch_size"] = self.batch_size
        if self.protocol in ("consecutive", "epochs"):
            config["n"] = self.n
        return {
            **config,
            "editor": self.found_editor.name,
            "data_sha256": digest(self.data_file),
            "model_sha256": model_sha256,
            "hparams": dict(hparams),
        }
