"""PaCKE is an editor like EasyEdit's own, in whichever release was found."""

import copy
import dataclasses
import importlib
import subprocess
import sys

import pytest
import torch

import easyedit_packe
from easyedit_packe import (
    OriginalWeights,
    PaCKEHyperParams,
    PaCKEPlusHyperParams,
    apply_packe_plus_to_model,
    apply_packe_to_model,
)
from easyedit_packe.easyedit import locate
from easyedit_packe.errors import EasyEditError, HyperParamsError, ModelError, RequestError
from easyedit_packe.model.bits import same_bits
from easyedit_packe.plus.state import EditMemory
from easyedit_packe.registry import hparams_class

from ..conftest import REQUESTS, ROOT, assert_same_bits, make_model, make_tokenizer, snapshot
from ..plus.common import ALL

ONE = REQUESTS[2]


def edit_arguments(requests):
    return {
        "prompts": [r["prompt"] for r in requests],
        "target_new": [r["target_new"] for r in requests],
        "ground_truth": [r.get("ground_truth", "Oslo") for r in requests],
        "subject": [r["subject"] for r in requests],
        "rephrase_prompts": [f"Who wrote {r['subject']}" for r in requests],
        "locality_inputs": {
            "neighborhood": {"prompt": ["Omar plays the"] * len(requests), "ground_truth": ["violin"] * len(requests)}
        },
    }


def direct(hparams, requests, architecture="llama"):
    model = make_model(architecture)
    return snapshot(apply_packe_to_model(model, make_tokenizer(), requests, hparams)[0])


def test_registration_is_idempotent(found):
    from easyeditor import BaseEditor
    from easyeditor.editors import editor as module
    from easyeditor.editors.batch_editor import BatchEditor

    methods = {n: getattr(BaseEditor, n) for n in dir(BaseEditor) if not n.startswith("__") or n == "__init__"}
    assert easyedit_packe.register() == found
    assert module.ALG_DICT["PaCKE"] is apply_packe_to_model
    assert module.ALG_DICT["PaCKE+"] is apply_packe_plus_to_model
    assert {n: getattr(BaseEditor, n) for n in methods} == methods
    assert BatchEditor.is_batchable_method("PaCKE")
    assert BatchEditor.is_batchable_method("PaCKE+")
    assert BatchEditor.is_batchable_method("MEMIT")
    assert not BatchEditor.is_batchable_method("ROME")


def test_says_which_one_was_found(found):
    assert found.root == locate().root
    assert found.version in str(found)
    assert found.version == "0.0.1.dev0" or found.how != "pypi"


@pytest.mark.parametrize("architecture", ["llama", "gptj", "gpt2"])
def test_same_weights_by_edit_by_batch_edit_and_by_direct_call(editor_of, hparams, architecture):
    expected = direct(hparams, [ONE], architecture)

    editor = editor_of(hparams, architecture)
    before = snapshot(editor.model)
    metrics, model, originals = editor.edit(**edit_arguments([ONE]), verbose=False)
    assert_same_bits(editor.model, before)
    originals.patch.apply(model)
    assert_same_bits(model, expected)

    editor = editor_of(hparams, architecture)
    arguments = {k: v for k, v in edit_arguments([ONE]).items() if k != "locality_inputs"}
    _, model, originals = editor.batch_edit(**arguments, verbose=False)
    assert_same_bits(editor.model, before)
    originals.patch.apply(model)
    assert_same_bits(model, expected)

    assert metrics[0]["post"].keys() >= {"rewrite_acc", "rephrase_acc", "locality"}
    assert "neighborhood_acc" in metrics[0]["post"]["locality"]


@pytest.fixture
def plus():
    return PaCKEPlusHyperParams(**{**ALL, "write_at": "all", "num_steps": 20, "margin": 3.0, "device": "cpu"})


def test_packe_plus_is_an_editor_of_its_own(editor_of, plus):
    """By `edit`, which rolls back, by `batch_edit` and by a direct call: the same weights; and no edit is remembered
    that EasyEdit has rolled back."""
    model = make_model("llama")
    expected = snapshot(apply_packe_plus_to_model(model, make_tokenizer(), [ONE], plus)[0])
    for method in ("edit", "batch_edit"):
        editor = editor_of(plus)
        before = snapshot(editor.model)
        arguments = {k: v for k, v in edit_arguments([ONE]).items() if method == "edit" or k != "locality_inputs"}
        _, edited, originals = getattr(editor, method)(**arguments, verbose=False)
        assert_same_bits(editor.model, before)
        assert EditMemory.of(edited).edits == []
        originals.patch.apply(edited)
        assert_same_bits(edited, expected)
        assert [e.name for e in EditMemory.of(edited).edits] == originals.patch.info["edits"]


def test_packe_plus_remembers_what_stays(editor_of, plus):
    model = make_model("llama")
    for request in REQUESTS:
        apply_packe_plus_to_model(model, make_tokenizer(), [request], plus)
    editor = editor_of(plus)
    _, edited, _ = editor.edit(**edit_arguments(REQUESTS), sequential_edit=True, verbose=False)
    assert_same_bits(edited, snapshot(model))
    assert len(EditMemory.of(edited).edits) == 3


def test_edit_succeeds_by_easyedits_own_metrics(editor_of, hparams):
    hparams.num_steps = 60
    metrics, _, _ = editor_of(hparams).edit(**edit_arguments(REQUESTS), verbose=False)
    assert [float(torch.tensor(m["post"]["rewrite_acc"]).float().mean()) for m in metrics] == [1.0] * 3
    assert sum(float(torch.tensor(m["pre"]["rewrite_acc"]).float().mean()) for m in metrics) < 1.5


def test_sequential_edits_stay_and_the_last_can_be_taken_back(editor_of, hparams):
    model = make_model("llama")
    states = []
    for request in REQUESTS:
        apply_packe_to_model(model, make_tokenizer(), [request], hparams)
        states.append(snapshot(model))
    editor = editor_of(hparams)
    metrics, edited, originals = editor.edit(**edit_arguments(REQUESTS), sequential_edit=True, verbose=False)
    assert len(metrics) == 3
    assert_same_bits(edited, states[-1])
    assert isinstance(originals, OriginalWeights)
    originals.restore()
    assert_same_bits(editor.model, states[-2])


def test_batch_edit_of_several_requests(editor_of, hparams):
    hparams.batch_size = 3
    editor = editor_of(hparams)
    arguments = {k: v for k, v in edit_arguments(REQUESTS).items() if k != "locality_inputs"}
    _, model, originals = editor.batch_edit(**arguments, verbose=False)
    originals.patch.apply(model)
    assert_same_bits(model, direct(hparams, REQUESTS))


def test_edit_requests_where_the_release_has_it(editor_of, hparams):
    editor = editor_of(hparams)
    if not hasattr(editor, "edit_requests"):
        pytest.skip("this EasyEdit has no edit_requests")
    requests = [{**copy.deepcopy(ONE), "ground_truth": "Oslo", "portability": {}, "locality": {}}]
    metrics, model, originals = editor.edit_requests(requests, verbose=False)
    originals.patch.apply(model)
    assert_same_bits(model, direct(hparams, [ONE]))
    assert "rewrite_acc" in metrics[0]["post"]


def test_normal_edit_where_the_release_has_it(editor_of, hparams):
    editor = editor_of(hparams)
    if not hasattr(editor, "normal_edit"):
        pytest.skip("this EasyEdit has no normal_edit")
    arguments = edit_arguments(REQUESTS)
    if "epoch" in importlib.import_module("inspect").signature(editor.normal_edit).parameters:
        _, _, originals = editor.normal_edit(arguments["prompts"], arguments["target_new"], epoch=1)
    else:
        _, _, originals = editor.normal_edit(arguments["prompts"], arguments["target_new"])
    assert originals.patch.num_weights > 0


def test_generate_edit_where_the_release_has_it(editor_of, hparams):
    editor = editor_of(hparams)
    if not hasattr(editor, "generate_edit"):
        pytest.skip("this EasyEdit has no generate_edit")
    editor.tok.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    editor.model.generation_config.max_length = 64
    editor.model.config.max_position_embeddings = 1024
    results, _, _ = editor.generate_edit(
        prompts=[ONE["prompt"]], target_new=[ONE["target_new"]], ground_truth=["Oslo"],
        rephrase_prompts=["Who wrote Grey Tides"],
        portability_inputs={"por_hop": {"prompt": [["Omar plays"]], "ground_truth": [["violin"]]}},
        verbose=False,
    )  # fmt: skip
    assert isinstance(results[0]["post"]["rewrite_ans"], str)


def test_a_model_is_loaded_by_any_path(found, hparams, tmp_path):
    from easyeditor import BaseEditor

    make_model("llama").save_pretrained(tmp_path / "my-own-model")  # for Qwen 2 transformers takes its own tokeniser
    make_tokenizer().save_pretrained(tmp_path / "my-own-model")
    hparams.model_name = str(tmp_path / "my-own-model")
    editor = BaseEditor.from_hparams(hparams)
    metrics, _, _ = editor.edit(**edit_arguments([ONE]), verbose=False)
    assert "rewrite_acc" in metrics[0]["post"]
    assert hparams.model_name == str(tmp_path / "my-own-model")


def test_settings_are_not_overwritten(editor_of, hparams):
    hparams.batch_size = 3
    editor = editor_of(hparams)
    editor.edit(**edit_arguments([ONE]), verbose=False)
    assert (editor.hparams.batch_size, editor.hparams.device) == (3, "cpu")


def test_easyedits_own_editors_run_on_the_cpu(editor_of):
    settings = {
        "layers": [1], "num_steps": 25, "lr": 1e-2, "weight_decay": 0, "kl_factor": 0, "norm_constraint": False,
        "objective_optimization": "target_new", "rewrite_module_tmp": "model.layers.{}.mlp.down_proj.weight",
        "layer_module_tmp": "model.layers.{}", "mlp_module_tmp": "model.layers.{}.mlp",
        "attn_module_tmp": "model.layers.{}.self_attn", "ln_f_module": "model.norm", "lm_head_module": "lm_head",
        "device": "cpu", "alg_name": "FT", "model_name": "x", "max_length": 40, "batch_size": 1,
    }  # fmt: skip
    ft = hparams_class("FT")
    known = {f.name for f in dataclasses.fields(ft)}
    hparams = ft(**{k: v for k, v in settings.items() if k in known})
    editor = editor_of(hparams)
    before = snapshot(editor.model)
    metrics, _, _ = editor.edit(**edit_arguments([ONE]), verbose=False)
    assert metrics[0]["post"]["rewrite_acc"] != metrics[0]["pre"]["rewrite_acc"]
    assert_same_bits(editor.model, before)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"target_new": [""]}, RequestError),
        ({"prompts": [""], "subject": [""]}, RequestError),
        ({"subject": ["Nobody"]}, RequestError),
        ({"prompts": [], "target_new": [], "subject": []}, RequestError),
        ({"target_new": ["Oslo", "Rome"]}, RequestError),
    ],
)
def test_bad_requests_through_easyedit(editor_of, hparams, change, error):
    editor = editor_of(hparams)
    before = snapshot(editor.model)
    with pytest.raises(error):
        editor.edit(**{**edit_arguments([ONE]), **change}, verbose=False)
    assert_same_bits(editor.model, before)


def test_nan_weights_through_easyedit(editor_of, hparams):
    editor = editor_of(hparams)
    editor.model.lm_head.weight.data[3, 3] = float("nan")
    before = snapshot(editor.model)
    with pytest.raises(ModelError, match="NaN"):
        editor.edit(**edit_arguments([ONE]), verbose=False)
    assert_same_bits(editor.model, before)


def test_a_device_that_is_not_there(editor_of, hparams):
    hparams.device = 99
    with pytest.raises(HyperParamsError, match="device: expected one that is there"):
        editor_of(hparams)


def test_unknown_editor_names_the_nearest(found):
    assert hparams_class("PaCKE") is PaCKEHyperParams
    with pytest.raises(EasyEditError, match="did you mean 'ROME'"):
        hparams_class("ROMEE")


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_registering_keeps_random_state_and_root_logger():
    run_python("""
import logging, random, numpy, torch
import easyedit_packe
random.seed(3); numpy.random.seed(3); torch.manual_seed(3)
def world():
    return (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
            logging.getLogger().handlers[:], logging.getLogger().level)
before = world()
easyedit_packe.register()
assert world() == before
""")


@pytest.mark.slow
def test_missing_vision_packages_are_named_when_used():
    out = run_python("""
import sys
from easyedit_packe.easyedit.placeholders import placeholders, OPTIONAL
OPTIONAL["not_a_package"] = "not-a-package"
with placeholders():
    import not_a_package.transforms as t
    from not_a_package import Compose
    class Mine(Compose): pass
assert "not_a_package" not in sys.modules
for use in (lambda: Mine(3), lambda: t.Resize(4), lambda: Compose.default):
    try: use()
    except Exception as e: print(type(e).__name__, e)
import easyedit_packe; easyedit_packe.register()
import importlib.util
missing = [n for n in OPTIONAL if importlib.util.find_spec(n) is None]
assert not [n for n in sys.modules if n.split(".")[0] in missing]
""")
    assert out.count("EasyEditError") == 3
    assert out.count("'not-a-package'") == 3


def test_bits_of_tensors():
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
