"""`packe importance`: how much each node of T+ counts in each layer, for the facts of a data set, before any edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..easyedit import locate
from ..errors import first_line, one_of
from ..model.bits import weights_digest
from ..model.device import check_device
from ..model.load import load
from ..requests import EditRequest
from ..trace.trace import Trace, trace_requests
from .editors import BenchError
from .environment import describe, short_name
from .measure import progress
from .runner import fitted
from .settings import Settings
from .store import Rows, StoreError, only_one, read_json, write_json
from .through_easyedit import plain

SETTINGS = ("model", "data", "data_dir", "n", "start", "hparams", "hparams_file", "device", "out", "label")
"""Those of `packe bench` that say something here."""
IDENTITY = ("model", "data", "start", "label", "data_sha256", "model_sha256")
TRACED_BY = ("score", "num_critical_paths")
"""The hyper-parameters that decide what a fact's T+ is; facts are traced one by one."""
DIGITS = 4
"""Of a score, in a row: ten times more than a picture can show."""


def settings_of(arguments: Sequence[str]) -> Settings:
    """From `key=value`, as `packe bench` takes them.

    Raises:
        BenchError: a setting that does not exist, or has no meaning here. DataError: no such data file.
    """
    try:
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist([a.lstrip("+") for a in arguments]))
    except OmegaConfBaseException as e:
        raise BenchError(f"expected settings as key=value: {first_line(e)}; correct it.") from None
    for key in values:
        if key not in SETTINGS:
            raise BenchError(f"unknown setting {key!r}; {one_of(key, list(SETTINGS))}.")
    return Settings.from_dict(values)


def importance(settings: Settings) -> Path:
    """Trace every fact that has no row yet; each row is on disk before the next is computed.

    Returns:
        OUT/MODEL/DATA/importance/NAME with `run.json` (what was traced, and where) and `nodes.jsonl`: for each fact
        `case_id`, and under `key` and `value` the scores of its T+ nodes, layer by layer, best first.

    Raises:
        BenchError: T+ has no nodes. StoreError: the folder holds the scores of something else, or is in use.
    """
    name = "PaCKE" + (f"-from{settings.start}" if settings.start else "")
    folder = settings.model_folder / "importance" / (name + (f"-{settings.label}" if settings.label else ""))
    hparams = fitted(
        settings.found_editor.load_hparams(settings.model, settings.hparams_file, settings.hparams), settings
    )
    if not hparams.num_critical_paths:
        raise BenchError("hparams.num_critical_paths: expected at least 1, got 0: such a T+ has no scores.")
    records = settings.records()
    model, tok = load(settings.model)
    model.eval().to(check_device(settings.device))
    whole = settings.identity(plain(hparams), weights_digest(model))
    traced_by = {k: v for k, v in whole["hparams"].items() if k in TRACED_BY}
    identity = {k: whole[k] for k in IDENTITY} | {"hparams": traced_by}
    environment = describe(f"EasyEdit {locate().version}")
    with only_one(folder):
        rows = _opened(folder, identity, len(records), environment)
        missing = [r for r in records if (r.case_id,) not in rows]
        for record in progress(missing, f"tracing {settings.data}", len(missing), "fact"):
            request = EditRequest.from_dict(record.request)
            (trace,) = trace_requests(model, tok, [request], hparams)
            rows.append({"case_id": record.case_id, **_scores(trace), "environment": short_name(environment)})
    return folder


def _opened(folder: Path, identity: dict[str, Any], n: int, environment: dict[str, Any]) -> Rows:
    file = folder / "run.json"
    there: dict[str, Any] = (
        read_json(file) if file.is_file() else {"tracing": identity, "num_records": 0, "environments": {}}
    )
    if there["tracing"] != identity:
        raise StoreError(
            f"{folder} holds the scores of something else ({there['tracing']} there, {identity} now). Add label=NAME, "
            "take another out=, or remove that folder."
        )
    environments = there["environments"] | {short_name(environment): environment}
    write_json(file, {"tracing": identity, "num_records": max(n, there["num_records"]), "environments": environments})
    return Rows(folder / "nodes.jsonl", ("case_id",))


def _scores(trace: Trace) -> dict[str, list[list[float]]]:
    """By kind and layer, the scores of the nodes that an edit of the request would choose."""
    found: dict[str, list[list[float]]] = {"key": [], "value": []}
    for m in trace.modules:
        scores = trace.scores[m.name][trace.nodes.critical[m.name]].tolist()
        found[m.kind].append([float(f"{score:.{DIGITS}g}") for score in scores])
    return found
