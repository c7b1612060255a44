"""What is read and written: nothing of the user's is lost, and what cannot be used is said before the work is done."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from easyedit_packe import PaCKEError, WeightPatch
from easyedit_packe.cli import loading

from ..conftest import make_model
from .common import packe
from .test_edit import FACT, PROMPT, TARGET, checkpoint, edited

__all__ = ["checkpoint"]


@pytest.fixture
def patch(checkpoint, tmp_path):
    edited(checkpoint, tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


def test_only_an_older_patch_is_written_over(checkpoint, patch, tmp_path):
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([{"prompt": PROMPT, "target_new": TARGET}]))
    for out in (facts, checkpoint / "model.safetensors"):
        before = out.read_bytes()
        with pytest.raises(PaCKEError, match="is there and is no patch"):
            packe("edit", "--requests", facts, "--model", checkpoint, "--out", out)
        assert out.read_bytes() == before
    with pytest.raises(PaCKEError, match="is one of the files that are read"):
        packe("merge", patch, "--out", patch)
    edited(checkpoint, patch)


def test_an_adapter_has_a_folder_of_its_own(checkpoint, patch, tmp_path):
    """Beside a model transformers loads it unasked: the model would be edited without a word."""
    with pytest.raises(PaCKEError, match="holds something else"):
        packe("export", "lora", patch, checkpoint)
    assert not (checkpoint / "adapter_config.json").exists()
    for _ in range(2):
        packe("export", "lora", patch, tmp_path / "adapter")


def test_a_gguf_file_is_written_over_and_nothing_else(patch, tmp_path):
    with pytest.raises(PaCKEError, match="is no GGUF file"):
        packe("export", "gguf", patch, patch)
    WeightPatch.load(patch)
    for _ in range(2):
        packe("export", "gguf", patch, tmp_path / "a.gguf")


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_keeps_what_its_models_class_does_not_load(checkpoint, patch):
    """As parts of a checkpoint that see, or that predict several tokens."""
    weights = checkpoint / "model.safetensors"
    save_file({**load_file(weights), "vision_tower.weight": torch.ones(2)}, weights, {"format": "pt"})
    before = files(checkpoint)
    for more in ([], ["--out", checkpoint]):
        with pytest.raises(PaCKEError, match=r"holds 1 tensors that .* as vision_tower\.weight.*--out"):
            packe("apply", patch, "--model", checkpoint, *more)
    assert files(checkpoint) == before


def test_in_place_only_the_weights_change(checkpoint, patch):
    config = checkpoint / "tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "pad_token"}))
    before = files(checkpoint)
    packe("apply", patch, "--model", checkpoint)
    changed = {name for name, data in files(checkpoint).items() if before.get(name) != data}
    assert "model.safetensors" in changed <= {"model.safetensors", "config.json", "generation_config.json"}
    packe("revert", patch, "--model", checkpoint)
    after = files(checkpoint)
    assert after["model.safetensors"] == before["model.safetensors"]
    assert sorted(after) == sorted(before)


def test_a_model_in_several_files_may_come_back_in_one(checkpoint, patch, tmp_path):
    make_model("llama", torch.bfloat16).save_pretrained(tmp_path / "several", max_shard_size="2KB")
    for name in ("model.safetensors", "config.json"):
        (checkpoint / name).unlink()
    shutil.copytree(tmp_path / "several", checkpoint, dirs_exist_ok=True)
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    packe("apply", patch, "--model", checkpoint)
    assert [file.name for file in checkpoint.glob("model*")] == ["model.safetensors"]


LONG = " ".join(["Omar plays"] * 40)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--rephrase", LONG], r"expected at most 64 tokens \(the model's positions\), got"),
        (["--rephrase", ""], "tokenises to nothing"),
        (["--prompt", LONG, "--subject", "Omar"], r"expected at most 64 tokens \(the model's positions\), got"),
    ],
)
def test_what_the_model_cannot_read_is_said_before_the_edit(checkpoint, tmp_path, more, why, monkeypatch):
    make_model("gpt2", n_positions=64).save_pretrained(checkpoint)
    monkeypatch.setattr("easyedit_packe.editor.compute_patch", None)
    with pytest.raises(PaCKEError, match=why):
        edited(checkpoint, tmp_path / "p.safetensors", *more)
    with pytest.raises(PaCKEError, match="shorten the prompt"):
        packe("ask", "--model", checkpoint, LONG)
    near_the_end = " ".join(["Omar"] * 60)
    assert len(packe("ask", "--model", checkpoint, near_the_end, "--tokens", 30).split()) <= 5


def test_a_path_is_no_markup(checkpoint, patch, tmp_path):
    (tmp_path / "o[").mkdir()
    packe("apply", patch, "--model", checkpoint, "--out", tmp_path / "o[" / "b]x")
    assert (tmp_path / "o[" / "b]x" / "model.safetensors").is_file()
    with loading.spinner("loading o[/b]x") as shown:
        assert str(shown.status) == "loading o[/b]x"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model.safetensors", b"\x10"),
        ("config.json", b'{"model_type": "llama", "hidden_size": 8}'),
        ("config.json", b"{}"),
    ],
)
def test_a_damaged_model_is_one_line(checkpoint, patch, file, text):
    (checkpoint / file).write_bytes(text)
    for command in (["ask", "--model", checkpoint, "hello"], ["apply", patch, "--model", checkpoint]):
        with pytest.raises(PaCKEError, match=r"model .*tiny.* cannot be loaded: ."):
            packe(*command)


@pytest.mark.parametrize(("file", "text"), [("adapter_model.safetensors", b"\x10"), ("adapter_config.json", b"{}")])
def test_a_damaged_adapter_is_one_line(checkpoint, patch, tmp_path, file, text):
    packe("export", "lora", patch, tmp_path / "adapter")
    (tmp_path / "adapter" / file).write_bytes(text)
    with pytest.raises(PaCKEError, match=r"the adapter is damaged, or does not fit the model: ."):
        packe("ask", "--model", checkpoint, "--adapter", tmp_path / "adapter", "hello")


def test_a_model_that_is_not_there_is_named_before_its_settings():
    with pytest.raises(PaCKEError, match="no model 'nope'"):
        packe("edit", *FACT, "--model", "nope", "--out", "x")


def test_a_folder_is_no_name_of_the_hub(checkpoint, tmp_path, monkeypatch):
    """From elsewhere "models/secret" would be published as an owner's model of that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    checkpoint.rename(tmp_path / "models" / "secret")
    packe("edit", *FACT, "--model", "models/secret", "--hparams", "PaCKE.yaml", "--out", "p.safetensors")
    assert WeightPatch.load("p.safetensors").info["base_model"] == "./models/secret"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    packe("push", "../p.safetensors", "--to", "card")
    for file in ("README.md", "adapter_config.json"):
        assert "models/secret" not in (tmp_path / "elsewhere" / "card" / file).read_text()
