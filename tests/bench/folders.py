"""Run folders made by hand, as `packe bench` leaves them."""

import json
from pathlib import Path

ENVIRONMENT = {
    "easyedit": "EasyEdit 0", "versions": {"torch": "2"}, "commit": "abc",
    "hardware": {"gpu": None, "cpus": 2, "threads": 1, "python": "3.11"},
}  # fmt: skip


def write_run(
    out: Path, editor, efficacies, *, model="m", data="zsre", protocol="single", n=None, refused=None, file=None,
    environment=None, edited=None, first=0, **identity,
) -> Path:  # fmt: skip
    """A run whose records have these efficacies, generality 0.5 and locality 0.25 in both families.

    Args:
        n: records of the run; more than efficacies where it is unfinished.
        refused: by the first call.
        file: name of the data file.
        edited: calls made; as many as efficacies where not given.
        first: the first record's case id.
    """
    file = file or data
    n = len(efficacies) if n is None else n
    here = {**ENVIRONMENT, **(environment or {})}
    name = f"e-{here['commit']}"
    identity = {"model": model, "data": data, "protocol": protocol, "editor": editor, "seed": 1, "batch_size": 100,
                "data_sha256": file, "start": first} | identity  # fmt: skip
    if protocol in ("consecutive", "epochs"):
        identity["n"] = n
    parts = [editor, f"seed{identity['seed']}", identity.get("label", ""), f"n{n}", f"from{first}"]
    folder = out / model / file / protocol / "-".join(filter(None, parts))
    folder.mkdir(parents=True)
    about = {"identity": identity, "data_type": "ZsRE", "num_records": n, "environments": {name: here}}
    (folder / "run.json").write_text(json.dumps(about))
    after = n if protocol == "consecutive" else 0
    cases = []
    for i, efficacy in enumerate(efficacies):
        family = {"efficacy": efficacy, "generality": 0.5, "locality": 0.25}
        row = {"after": after, "case_id": first + i, "call": n - 1 if after else i, "environment": name}
        cases.append({**row, "easyedit": family, "rome": family})
    write_rows(folder / "cases.jsonl", cases)
    edits = []
    for call in range(len(efficacies) if edited is None else edited):
        row = {"call": call, "case_ids": [first + call], "refused": (refused or {}) if call == 0 else {}}
        measured = {"seconds": 2.0, "memory_bytes": 5_000_000, "weights_changed": 7, "perplexity": 30.0}
        edits.append({**row, **measured, "environment": name})
    write_rows(folder / "edits.jsonl", edits)
    write_unedited(folder.parents[1] / "unedited")
    return folder


def write_tracing(out: Path, rows, *, model="m", data="zsre", size=2) -> Path:
    """What `packe importance` leaves: a row a fact, with scores by kind and layer."""
    folder = out / model / data / "importance" / "PaCKE"
    folder.mkdir(parents=True)
    identity = {"model": model, "data": data, "start": 0, "label": "", "data_sha256": data, "model_sha256": model}
    identity["hparams"] = {"score": "zscore", "num_critical_paths": size}
    about = {"tracing": identity, "num_records": len(rows), "environments": {"e": ENVIRONMENT}}
    (folder / "run.json").write_text(json.dumps(about))
    write_rows(folder / "nodes.jsonl", [{"case_id": i, **row, "environment": "e"} for i, row in enumerate(rows)])
    return folder


def write_unedited(folder: Path, records=10) -> None:
    """Efficacy 0.1, generality 0.3, and ROME's locality 1."""
    folder.mkdir(exist_ok=True)
    about = {"perplexity": 20.0, "environments": {"u": ENVIRONMENT | {"commit": "unedited"}}}
    (folder / "run.json").write_text(json.dumps(about))
    known = {"efficacy": 0.1, "generality": 0.3}
    families = {"easyedit": known | {"locality_output": [[1]]}, "rome": known | {"locality": 1.0}}
    row = {"generation_measured": False, "environment": "u", **families}
    write_rows(folder / "cases.jsonl", [{"case_id": i, **row} for i in range(records)])


def read_rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_rows(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
