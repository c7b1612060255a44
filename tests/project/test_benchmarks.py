"""The benchmark compares like with like, and its counted figures hold wherever the tests run."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.model import fetch as models
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.hooks import frozen
from easyedit_packe.packe.rectify import rectify
from easyedit_packe.requests import encode, read_requests

from ..conftest import REQUESTS, ROOT, make_model, make_tokenizer

sys.path.insert(0, str(ROOT / "benchmarks"))
import ablation
import speed
from dense import DenseEditor


def test_the_dense_scheme_is_the_authors(tmp_path):
    """Same final weights as our reproduction of their program, so its time is the time of the same work."""
    model = make_model("llama", torch.float64)
    hp = PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=4).authors_program()
    hp.shuffle = False
    encoded = encode(make_tokenizer(), read_requests(REQUESTS[:2]))
    twin = copy.deepcopy(model)
    DenseEditor(twin, encoded, hp).run()
    rectify(model, FFNMap.of(model), encoded, hp).patch.apply(model)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        # transformers computes the dense program's loss in float32.
        torch.testing.assert_close(p.data, q.data, rtol=0, atol=1e-5, msg=name)


def test_a_step_counts_hardly_more_operations_than_the_floor():
    model, tok = models.load("smollm2-135m")
    requests = encode(tok, read_requests([speed.REQUEST]))
    hp = PaCKEHyperParams()
    with frozen(model):
        packe, floor = speed.PaCKE(model, requests, hp), speed.Floor(model, requests, hp)
        packe.trace()
        assert 1.0 <= speed.flops(packe.step) / speed.flops(floor.step) <= 1.10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_script_on_a_random_shape(tmp_path, dtype):
    out = tmp_path / "f.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--model", "tiny-llama", "--dtype", dtype]
    subprocess.run([*command, "--rounds", "1", "--steps", "2", "--json", str(out)], check=True, capture_output=True)
    figures = json.loads(out.read_text())
    for key in ("speedup_over_dense", "step_over_floor", "flops_over_floor", "memory_over_dense", "edit_seconds",
                "trace_seconds", "model_bytes", "peak_extra_bytes"):  # fmt: skip
        assert figures[key] > 0, key


def test_the_figures_in_the_repository_hold_the_bars():
    figures = json.loads((ROOT / "benchmarks" / "results" / "speed" / "smollm2-135m-cpu.json").read_text())
    assert figures["speedup_over_dense"] >= 4
    assert figures["step_over_floor"] <= 1.25
    assert figures["flops_over_floor"] <= 1.10
    assert figures["memory_over_dense"] <= 0.1
    assert figures["peak_extra_over_model"] <= 0.1


@pytest.mark.parametrize("options", [ablation.SINGLY, ablation.IN_A_ROW, ablation.WEAR])
def test_an_ablation_switches_single_options(options):
    full = PaCKEHyperParams.from_hparams(ablation.PLUS).to_dict()
    found = {label: PaCKEHyperParams(**{**full, **fields}).to_dict() for label, fields in ablation.variants(options)}
    assert found.pop("") == full
    assert len({json.dumps(h) for h in [full, *found.values()]}) == 2 + 2 * len(options)
    for option in options:
        changed = {field for field in full if found[f"without-{option}"][field] != full[field]}
        assert changed == set(ablation.OFF[option])
        added = {field for field in full if found[f"only-{option}"][field] != found["none"][field]}
        assert changed <= added | {"replay"}
