"""A tiny model in a folder, a data file of eight records, and hyper-parameters of any editor for it."""

import dataclasses
import json

import yaml

from easyedit_packe.bench.editors import EDITORS

from ..baselines.test_baselines import settings as tiny_settings
from ..conftest import make_model, make_tokenizer

SUBJECTS = ["Omar", "Anna Berg", "Grey Tides", "Ivo Marsh"]
TARGETS = ["the piano", "Bergen", "Ivo Marsh", "violin"]
PACKE = {"alg_name": "PaCKE", "num_critical_paths": 3, "lr": 1e-2, "num_steps": 4}
PLUS = {
    "alg_name": "PaCKE+", "write_at": "subject", "num_critical_paths": 3, "num_steps": 3, "prefix_contexts": 1,
    "subject_contexts": 2, "null_space": 1, "memory_size": 4, "memory_weight": 1.0, "replay": 2,
}  # fmt: skip


def make_world(folder):
    """The model as `tiny`, its records as `zsre_mend_eval.json`."""
    make_model("llama").save_pretrained(folder / "tiny")
    make_tokenizer().save_pretrained(folder / "tiny")
    records = [
        {
            "subject": SUBJECTS[i % 4], "src": f"Who wrote {SUBJECTS[i % 4]}", "alt": TARGETS[(i + i // 4) % 4],
            "rephrase": f"{SUBJECTS[i % 4]} is wrote", "answers": ["Oslo"], "loc": "nq question: Who plays",
            "loc_ans": "violin", "cond": "",
        }
        for i in range(8)
    ]  # fmt: skip
    (folder / "zsre_mend_eval.json").write_text(json.dumps(records))
    return folder


def hparams_file(folder, editor):
    """A YAML file of that editor's hyper-parameters."""
    own = {"PaCKE": PACKE, "PaCKE+": PLUS}
    values = own.get(editor) or {}
    if not values and not EDITORS[editor].told:
        values = dataclasses.asdict(tiny_settings(EDITORS[editor].alg_name))
    path = folder / f"{editor}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def settings_of(folder, editor, **changes):
    base = {
        "model": str(folder / "tiny"), "data_dir": str(folder), "hparams_file": str(hparams_file(folder, editor)),
        "n": 4, "editor": editor, "device": "cpu",
    }  # fmt: skip
    return base | changes
