"""`packe trace`: in words, as JSON whose keys are explained, and as a picture; and what it refuses."""

import json
import re

import pytest
import torch
from omegaconf import OmegaConf

from easyedit_packe import PaCKEError, PaCKEHyperParams, WeightPatch
from easyedit_packe.errors import MissingPackageError
from easyedit_packe.trace.document import KEYS

from ..conftest import REQUESTS, make_model, make_tokenizer
from .common import packe

FACT = ["--prompt", REQUESTS[0]["prompt"], "--target", REQUESTS[0]["target_new"]]


@pytest.fixture
def options(tmp_path):
    """A tiny Llama's folder, and hyper-parameters that trace it."""
    make_model("llama", torch.float32).save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    hparams = PaCKEHyperParams(num_critical_paths=4, num_steps=2).to_dict() | {"model_name": "tiny"}
    OmegaConf.save(OmegaConf.create(hparams), tmp_path / "h.yaml")
    return ["--model", tmp_path / "tiny", "--hparams", tmp_path / "h.yaml"]


@pytest.fixture(params=["json", "jsonl"])
def several(request, tmp_path):
    file = tmp_path / f"facts.{request.param}"
    text = json.dumps(REQUESTS) if request.param == "json" else "\n".join(map(json.dumps, REQUESTS)) + "\n"
    file.write_text(text)
    return ["--requests", file]


def nodes_of(traces):
    found = {}
    for trace in traces:
        for m in trace["modules"]:
            found.setdefault(m["name"], set()).update(n["index"] for n in m["critical"] + m["negative"])
    return found


def nodes_changed(file):
    slices = WeightPatch.load(file).slices
    return {name.removesuffix(".weight"): set(s.index.tolist()) for name, s in slices.items()}


def test_what_is_shown_of_one_fact_is_what_the_edit_changes(options, tmp_path):
    said = packe("trace", *FACT, *options, "--json", tmp_path / "t.json", "--png", tmp_path / "t.png")
    packe("edit", *FACT, *options, "--out", tmp_path / "p")
    found = json.loads((tmp_path / "t.json").read_text())
    assert nodes_of(found["traces"]) == nodes_changed(tmp_path / "p")
    assert found["overlap"] is None
    assert found["change"]["weights"] == WeightPatch.load(tmp_path / "p").num_weights
    (trace,) = found["traces"]
    assert trace["requests"] == [{"prompt": FACT[1], "target_new": FACT[3], "subject": None}]
    rows = re.findall(r"^ +\d+ +\d+ +[\d.]+ .*%$", said, re.MULTILINE)
    assert len(rows) == 3
    for layer, row in enumerate(rows):
        cells = [c for c in row.split() if "█" not in c and "%" not in c]
        best = [m["critical"][0] for m in trace["modules"] if m["layer"] == layer]
        expected = [str(layer), *(text for b in best for text in (str(b["index"]), f"{b['score']:#.3g}"))]
        assert cells == expected
    assert f"PaCKE would move 30 vectors with {found['change']['weights']:,} weights" in said
    assert "\x1b" not in said
    assert (tmp_path / "t.png").stat().st_size > 1000


def test_what_is_shown_of_several_facts_is_what_their_edit_changes(options, several, tmp_path):
    said = packe("trace", *several, *options, "--json", tmp_path / "t.json", "--png", tmp_path / "t.png")
    packe("edit", *several, *options, "--out", tmp_path / "p")
    found = json.loads((tmp_path / "t.json").read_text())
    *alone, together = found["traces"]
    assert nodes_of([together]) == nodes_changed(tmp_path / "p")
    assert [len(t["requests"]) for t in found["traces"]] == [1, 1, 1, 3]
    sets = [{(m["name"], n["index"]) for m in t["modules"] for n in m["critical"]} for t in alone]
    assert len(found["overlap"]) == 3
    for pair in found["overlap"]:
        a, b = (sets[i] for i in pair["facts"])
        assert (pair["shared"], pair["share"]) == (len(a & b), len(a & b) / len(a))
        assert pair["jaccard"] == pytest.approx(len(a & b) / len(a | b))
        assert sum(pair["by_layer"].values()) == pair["shared"]
    assert "As one edit, all facts traced together" in said
    assert "3  The author of Grey Tides is → Ivo Marsh the piano" in said


def test_facts_that_are_edited_in_turn_are_counted_in_turn(options, several, tmp_path):
    file = options[3]
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(file), {"trace": "request"}), file)
    said = packe("trace", *several, *options, "--json", tmp_path / "t.json")
    found = json.loads((tmp_path / "t.json").read_text())
    assert len(found["traces"]) == 3
    assert found["change"]["vectors"] == sum(map(len, nodes_of(found["traces"]).values()))
    assert "the facts in turn" in said


def test_every_key_of_the_document_is_explained(options, several, tmp_path):
    packe("trace", *several, *options, "--json", tmp_path / "t.json")

    def keys(value, before=""):
        if isinstance(value, list):
            value = value[0] if value and isinstance(value[0], dict) else {}
        for key, inner in value.items() if isinstance(value, dict) else ():
            yield before + key
            if key not in ("hparams", "change", "requests", "critical", "negative", "by_layer"):
                yield from keys(inner, f"{before}{key}.")

    leaves = {"name", "layer", "kind", "num_nodes"}  # named in their parent's line
    found = {k for k in keys(json.loads((tmp_path / "t.json").read_text())) if k.split(".")[-1] not in leaves}
    assert found == set(KEYS)


def test_it_fits_into_80_columns(options, several):
    for asked in (FACT, several):
        assert max(map(len, packe("trace", *asked, *options).splitlines())) <= 80


def test_what_it_refuses(options, tmp_path, monkeypatch):
    for arguments, message in [
        ([], "expected --prompt and --target"),
        ([*FACT, "--editor", "PaCKE+"], "PaCKE\\+ has no path to show before its edit"),
        ([*FACT, "--model", "nowhere", "--hparams", "smollm2-135m"], "no model 'nowhere'"),
    ]:
        with pytest.raises(PaCKEError, match=message):
            packe("trace", *arguments)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'pip install "easyedit-packe\[figures\]"$'):
        packe("trace", *FACT, "--png", tmp_path / "p.png")
