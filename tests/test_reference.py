"""The authors' own program, run on tiny models: nodes, losses and weights (../shared/reference)."""

import json

import pytest
import torch

from easyedit_packe.config.packe import PaCKEHyperParams
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.packe.rectify import rectify
from easyedit_packe.requests import encode, read_requests

from .conftest import SHARED, needs_shared


@needs_shared
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gptj"])
def test_the_authors_program_is_reproduced(name):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = SHARED / "reference" / name
    expected = json.loads((folder / "expected.json").read_text())
    weights = load_file(folder / "expected.safetensors")
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    run = expected["config"]
    hp = PaCKEHyperParams(
        num_critical_paths=run["topk"],
        num_negative_paths=run["bottomk"],
        contrast_weight=run["lamb"],
        lr=run["lr"],
        num_steps=run["epochs"],
        edit_batch_size=run["batch_size"],
    ).authors_program()
    hp.retrace_every, hp.shuffle = run["eta"], run["shuffle"]
    result = rectify(model, FFNMap.of(model), encode(tok, read_requests(expected["requests"])), hp)

    assert len(result.nodes) == len(expected["nodes"]) == 2
    for ours, theirs in zip(result.nodes, expected["nodes"], strict=True):
        for weight, sets in theirs.items():
            module = weight.removesuffix(".weight")
            assert sorted(ours.critical[module].tolist()) == sets["positive"], weight
            assert ours.negative[module].tolist() == sets["negative"], weight
    assert result.losses == pytest.approx(expected["losses"], abs=1e-4)

    most = run["topk"] + run["bottomk"]
    for module in result.nodes[0].critical:
        touched = result.patch.slices[f"{module}.weight"].index
        assert len(touched) <= 2 * most, "state is kept for nodes ever chosen, and for no others"
    result.patch.apply(model)
    for weight, value in weights.items():
        torch.testing.assert_close(model.get_parameter(weight).data, value, rtol=0, atol=1e-5)
