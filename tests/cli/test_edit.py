"""Facts in, a patch out, and what is done with it: on tiny checkpoints, and on the real model by a shell."""

import json
import re
import shutil

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from easyedit_packe import PaCKEError, PaCKEHyperParams, PaCKEPlusHyperParams, WeightPatch
from easyedit_packe.cli.facts import settings_for

from ..conftest import CHAT, REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from .common import packe, shell

PROMPT, TARGET = REQUESTS[0]["prompt"], REQUESTS[0]["target_new"]
FACT = ["--prompt", PROMPT, "--target", TARGET, "--subject", "Anna Berg"]


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny Llama's folder, stored in bfloat16, and hyper-parameters that edit it."""
    folder = tmp_path / "tiny"
    make_model("llama", torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    # So many nodes that an edit certainly moves a weight by less than bfloat16 can say.
    for hparams in (
        PaCKEHyperParams(num_critical_paths=20, lr=1e-3, num_steps=20),
        PaCKEPlusHyperParams(num_critical_paths=8, answer_end=""),  # no full stop in the tiny vocabulary
    ):
        OmegaConf.save(OmegaConf.create({**hparams.to_dict(), "model_name": "tiny"}), tmp_path / f"{hparams.ALG}.yaml")
    return folder


def edited(checkpoint, out, *more, editor="PaCKE"):
    hparams = checkpoint.parent / f"{editor}.yaml"
    options = ["--model", checkpoint, "--hparams", hparams, "--editor", editor, "--out", out, "--json"]
    return json.loads(packe("edit", *FACT, *options, *more))


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_the_patch_has_the_precision_that_was_asked_for(checkpoint, tmp_path, dtype):
    out = tmp_path / "p.safetensors"
    edited(checkpoint, out, "--dtype", dtype)
    found = {s.new.dtype for s in WeightPatch.load(out).slices.values()}
    assert found == {torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)}


def test_float32_keeps_what_bfloat16_rounds_away(checkpoint, tmp_path):
    """The edit is trained in float32 either way; only in bfloat16 do weights stay that it means to move."""
    said = {d: edited(checkpoint, tmp_path / d, "--dtype", d) for d in ("float32", "bfloat16")}
    assert said["float32"]["rounding"] is None
    lost = said["bfloat16"]["rounding"]
    assert lost == WeightPatch.load(tmp_path / "bfloat16").info["rounding"]
    changes = [s.change != 0 for s in WeightPatch.load(tmp_path / "bfloat16").slices.values()]
    stay = 1 - sum(int(c.sum()) for c in changes) / sum(c.numel() for c in changes)
    assert lost["unmoved"] == pytest.approx(stay)  # every weight of a chosen node was to move
    assert stay > 0
    note = f"rounded to bfloat16: {lost['unmoved']:.0%} of the weights that the edit was to move stay as they were"
    assert note in packe("show", tmp_path / "bfloat16")
    assert "rounded" not in packe("show", tmp_path / "float32")


def test_a_target_that_rounding_takes_is_named(tmp_path):
    """By `packe edit`, and by `packe show` from the file; where it is said all the same, nothing is named."""
    folder, out = tmp_path / "tiny", tmp_path / "p.safetensors"
    make_model("llama", torch.bfloat16, hidden_size=128, intermediate_size=512).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    for rounding in ("nearest", "stochastic"):
        hparams = PaCKEHyperParams(num_critical_paths=512, lr=4e-5, num_steps=10, rounding=rounding).to_dict()
        OmegaConf.save(OmegaConf.create({**hparams, "model_name": "tiny"}), tmp_path / "h.yaml")
        options = ["--prompt", PROMPT, "--target", "Grey", "--model", folder, "--hparams", tmp_path / "h.yaml"]
        printed = packe("edit", *options, "--out", out)
        (row,) = WeightPatch.load(out).info["rounded"]["requests"]
        said = json.loads(packe("show", out, "--json"))
        assert said["rounded"] == {"dtype": "bfloat16", "requests": [row]}
        note = (
            f"{PROMPT}: the target is not what the model says (loss {row['loss']:.3f}), and was what the model says "
            f"(loss {row['trained']['loss']:.3f}) before rounding"
        )
        assert (note in printed) == (note in packe("show", out)) == (rounding == "nearest")
        assert f"and {said['rounding']['kept']:.0%} of it is kept" in printed


def test_every_command_loads_the_model_in_the_patchs_precision(checkpoint, tmp_path):
    """A patch made in float32 of a bfloat16 checkpoint: tried, applied, and taken out bit for bit."""
    patch, folder = tmp_path / "p.safetensors", tmp_path / "edited"
    (row,) = edited(checkpoint, patch, "--dtype", "float32")["edits"]
    ask = ["ask", "--tokens", 8, PROMPT]
    assert packe(*ask, "--model", checkpoint, "--patch", patch).strip() == row["after"]
    packe("apply", patch, "--model", checkpoint, "--out", folder)
    assert packe(*ask, "--model", folder).strip() == row["after"]
    packe("revert", patch, "--model", folder)
    original = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert_same_bits(AutoModelForCausalLM.from_pretrained(folder), snapshot(original))
    packe("export", "model", patch, tmp_path / "exported", "--model", checkpoint)
    assert packe(*ask, "--model", tmp_path / "exported").strip() == row["after"]


def test_the_editor_is_chosen_by_its_name(checkpoint, tmp_path):
    for editor in ("PaCKE", "PaCKE+"):
        out = tmp_path / f"{editor}.safetensors"
        (row,) = edited(checkpoint, out, "--dtype", "float32", editor=editor)["edits"]
        assert row["efficacy"] == 1.0
        assert row["after"].startswith(TARGET)
        assert WeightPatch.load(out).info["hparams"]["alg_name"] == editor
    with pytest.raises(PaCKEError, match="editor: did you mean 'PaCKE'"):
        packe("edit", *FACT, "--editor", "PACK", "--model", checkpoint, "--out", tmp_path / "x")


@pytest.mark.parametrize("by", ["option", "hyper-parameter"])
def test_a_chat_template_is_edited_and_asked_through(checkpoint, tmp_path, by):
    """What is measured, and said, is what follows the text that the template makes of the prompt."""
    tok = make_tokenizer()
    with pytest.raises(PaCKEError, match="expected a tokeniser with a chat template"):
        packe("ask", "--chat-template", PROMPT, "--model", checkpoint)
    tok.chat_template = CHAT
    tok.save_pretrained(checkpoint)
    file, option = checkpoint.parent / "PaCKE.yaml", ["--chat-template"] if by == "option" else []
    own = {"use_chat_template": by == "hyper-parameter", "lr": 1e-2}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | own))
    out, text = tmp_path / "p.safetensors", f"Omar wrote {PROMPT} <eos> Omar is"
    (row,) = edited(checkpoint, out, "--dtype", "float32", "--rephrase", PROMPT, *option)["edits"]
    assert row["prompt"] == PROMPT
    assert (row["efficacy"], row["generality"]) == (1.0, [1.0])
    assert row["after"].startswith(TARGET)
    ask = ["--model", checkpoint, "--patch", out, "--tokens", 8]
    assert packe("ask", "--chat-template", PROMPT, *ask).strip() == row["after"] == packe("ask", text, *ask).strip()
    assert WeightPatch.load(out).info["hparams"]["use_chat_template"] is True


def test_show_merge_and_export_lora(checkpoint, tmp_path):
    out = tmp_path / "p.safetensors"
    edited(checkpoint, out)
    shown = json.loads(packe("show", out, "--json"))
    assert [(r["prompt"], r["target_new"]) for r in shown["requests"]] == [(PROMPT, TARGET)]
    norms = WeightPatch.load(out).norms()
    by_hand = {str(i): sum(v**2 for k, v in norms.items() if f"layers.{i}." in k) ** 0.5 for i in range(3)}
    assert shown["norm_by_layer"] == pytest.approx(by_hand)
    bars = {int(i): len(bar) for i, bar in re.findall(r"layer +(\d+) (█+)", packe("show", out))}
    most = max(by_hand.values())
    assert bars == {i: round(40 * by_hand[str(i)] / most) for i in range(3)}
    packe("merge", out, "--out", tmp_path / "m.safetensors")
    assert WeightPatch.load(tmp_path / "m.safetensors").num_weights == WeightPatch.load(out).num_weights
    with pytest.raises(PaCKEError, match="not made on top"):
        packe("merge", out, out, "--out", tmp_path / "n.safetensors")
    assert "rank" in packe("export", "lora", out, tmp_path / "adapter")


def test_a_place_that_is_not_the_users_is_not_written_to(checkpoint, tmp_path):
    out = tmp_path / "p.safetensors"
    edited(checkpoint, out)
    for model, why in (("smollm2-135m", "is shared by everything"), ("owner/name", "is not a folder")):
        with pytest.raises(PaCKEError, match=why):
            packe("apply", out, "--model", model)


def test_bad_input(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (["show", tmp_path / "bad.safetensors"], "expected a safetensors file"),
        (["show", tmp_path / "none.safetensors"], "cannot be read"),
        (["edit", "--prompt", "a", "--out", "x"], "expected --prompt and --target"),
        (["edit", "--prompt", "a", "--target", "b", "--requests", "c", "--out", "x"], "got both"),
        (["edit", "--prompt", "a", "--target", "", "--out", "x"], "non-empty text"),
        (["edit", "--requests", tmp_path / "bad.safetensors", "--out", "x"], "JSON"),
        (["ask", "--model", "nowhere", "hello"], "no model 'nowhere'"),
        (["ask", "--model", tmp_path / "empty", "hello"], "cannot be loaded"),
        (["edit", "--prompt", "a", "--target", "b", "--model", tmp_path, "--out", "x"], "name some with --hparams"),
    ]:
        with pytest.raises(PaCKEError, match=message):
            packe(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("editor", ["PaCKE", "PaCKE+"])
def test_the_shipped_settings_edit_the_default_model(tmp_path, editor):
    requests = [
        {"prompt": "{} is located in the city of", "subject": "The Eiffel Tower", "target_new": "Rome"},
        {"prompt": "The chemical symbol for gold is", "target_new": "Zn", "rephrase_prompt": "Gold is written as"},
    ]
    (tmp_path / "facts.json").write_text(json.dumps(requests))
    out = tmp_path / "p.safetensors"
    run = shell("edit", "--requests", str(tmp_path / "facts.json"), "--editor", editor, "--out", str(out), "--json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert [e["efficacy"] for e in result["edits"]] == [1.0, 1.0]
    assert result["edits"][0]["before"].startswith("Paris")
    assert result["edits"][0]["after"].startswith("Rome")
    assert len(result["edits"][1]["generality"]) == 1
    shown = json.loads(packe("show", out, "--json"))
    assert [r["target_new"] for r in shown["requests"]] == ["Rome", "Zn"]
    assert len(shown["norm_by_layer"]) == {"PaCKE": 30, "PaCKE+": 25}[editor]


# What would harm the user's files, or say something else than what was done


def test_a_model_is_written_only_where_it_harms_nothing(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "p.safetensors"
    edited(checkpoint, out)
    (tmp_path / "file").touch()
    full = tmp_path / "full"
    full.mkdir()
    (full / "generation_config.json").write_text("mine")
    monkeypatch.setenv("PACKE_CACHE", str(tmp_path / "cache"))
    shared = tmp_path / "cache" / "models" / "tiny"
    shutil.copytree(checkpoint, shared)
    for more, why in (
        (["--model", checkpoint, "--out", tmp_path / "file"], "is a file, expected a folder"),
        (["--model", checkpoint, "--out", full], "is not empty"),
        (["--model", shared], "is shared by everything"),
        (["--model", checkpoint, "--out", shared], "is shared by everything"),
    ):
        with pytest.raises(PaCKEError, match=why):
            packe("apply", out, *more)
    assert (full / "generation_config.json").read_text() == "mine"
    packe("apply", out, "--model", checkpoint, "--out", checkpoint)  # the user's own
    packe("revert", out, "--model", checkpoint)


def test_a_folder_in_another_precision_is_not_written_over(checkpoint, tmp_path):
    out = tmp_path / "p.safetensors"
    edited(checkpoint, out, "--dtype", "float32")
    before = snapshot(AutoModelForCausalLM.from_pretrained(checkpoint))
    with pytest.raises(PaCKEError, match=r"holds weights in bfloat16, and the edit was computed in float32.*--out"):
        packe("apply", out, "--model", checkpoint)
    assert_same_bits(AutoModelForCausalLM.from_pretrained(checkpoint), before)
    packe("apply", out, "--model", checkpoint, "--out", tmp_path / "other")


def test_another_editor_than_the_files_is_refused_and_a_stray_file_is_not_taken(checkpoint, tmp_path, monkeypatch):
    options = ["--model", checkpoint, "--hparams", tmp_path / "PaCKE+.yaml", "--out", tmp_path / "p.safetensors"]
    with pytest.raises(PaCKEError, match=r"--editor: expected PaCKE\+, as .*, got PaCKE"):
        packe("edit", *FACT, *options, "--editor", "PaCKE")
    packe("edit", *FACT, *options)
    assert WeightPatch.load(tmp_path / "p.safetensors").info["hparams"]["alg_name"] == "PaCKE+"
    with pytest.raises(PaCKEError, match=r"--editor: did you mean 'PaCKE'"):
        packe("edit", *FACT, *options, "--editor", "packe")
    monkeypatch.chdir(tmp_path)
    shutil.copy("PaCKE+.yaml", "smollm2-135m.yaml")
    assert settings_for(None, None, "smollm2-135m").alg_name == "PaCKE"


def test_a_paraphrase_names_the_subject_as_the_prompt_does(checkpoint, tmp_path):
    file = tmp_path / "facts.json"
    file.write_text(json.dumps([{**REQUESTS[0], "rephrase_prompt": "{} was"}]))
    options = ["--model", checkpoint, "--hparams", tmp_path / "PaCKE.yaml", "--out", tmp_path / "p.safetensors"]
    assert "Anna Berg was: " in packe("edit", "--requests", file, *options)
    file.write_text(json.dumps([{**REQUESTS[0], "rephrase_prompt": [1]}]))
    with pytest.raises(PaCKEError, match=r"rephrase_prompt: expected a text, or a list of texts, got \[1\]"):
        packe("edit", "--requests", file, *options)
    with pytest.raises(PaCKEError, match="got both"):
        packe("edit", "--requests", file, "--subject", "Omar", *options)
    with pytest.raises(PaCKEError, match="name of a file"):
        packe("edit", *FACT, *options[:-1], tmp_path)
    lines = tmp_path / "facts.jsonl"
    lines.write_text(json.dumps(REQUESTS[0]) + "\n\n{")
    with pytest.raises(PaCKEError, match=r"facts.jsonl, line 3, is not readable"):
        packe("edit", "--requests", lines, *options)


@pytest.fixture
def to_be_quantised(checkpoint, tmp_path):
    """The same, so wide that bitsandbytes has whole blocks of it."""
    pytest.importorskip("bitsandbytes")
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(checkpoint)
    hparams = PaCKEHyperParams(num_critical_paths=20, lr=3e-2, num_steps=12)
    OmegaConf.save(OmegaConf.create({**hparams.to_dict(), "model_name": "tiny"}), tmp_path / "PaCKE.yaml")
    return checkpoint


def test_beside_quantised_weights_the_edit_is_an_adapter(to_be_quantised, tmp_path):
    """It is in force where it is measured, and can be asked."""
    out, quantised = tmp_path / "adapter", ["--load-in", "8bit"]
    found = edited(to_be_quantised, out, *quantised, "--target", "Grey")
    assert {file.name for file in out.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert found["adapter"] == str(out)
    assert found["bytes"] == sum(file.stat().st_size for file in out.iterdir())
    assert found["edits"][0]["efficacy"] == 1
    ask = ["ask", "--model", to_be_quantised, *quantised, "--tokens", 1, PROMPT]
    before, after = packe(*ask), packe(*ask, "--adapter", out)
    assert before.strip() in found["edits"][0]["before"]
    assert after.strip() in found["edits"][0]["after"]
    assert after.strip() == "Grey" != before.strip()
    with pytest.raises(PaCKEError, match="holds something else"):
        edited(to_be_quantised, to_be_quantised, *quantised)
    plus = edited(to_be_quantised, tmp_path / "plus", *quantised, "--target", "Grey", editor="PaCKE+")
    assert plus["edits"][0]["efficacy"] == 1


def test_a_folder_without_an_adapter_is_named(checkpoint, tmp_path):
    with pytest.raises(PaCKEError, match=r"expected the folder of a PEFT adapter, with its adapter_config\.json"):
        packe("ask", "--model", checkpoint, "--adapter", tmp_path, PROMPT)


def test_quantising_without_its_package_says_what_to_install(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PaCKEError, match=r"pip install \"easyedit-packe\[quantised\]\""):
        edited(checkpoint, tmp_path / "adapter", "--load-in", "4bit")
