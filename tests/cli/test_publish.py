"""`packe export` and `packe push`: an edit as others load it."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.main import get_command

from easyedit_packe import PaCKEError, PaCKEHyperParams, WeightPatch
from easyedit_packe.cli.app import app
from easyedit_packe.patch.slice import Slice

from .common import packe

METRICS = [{"efficacy": 1.0, "generality": [1.0, 0.5]}, {"efficacy": 0.25, "generality": []}]


def rows(k):
    return Slice(0, torch.arange(k), torch.zeros(k, 40), torch.randn(k, 40), 24)


@pytest.fixture
def save(tmp_path):
    """Writes a patch of two modules with ranks 2 and 9."""

    def save(**info):
        names = ("model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight")
        known = {
            "model_type": "llama", "base_model": "smollm2-135m", "metrics": METRICS,
            "hparams": {**PaCKEHyperParams().to_dict(), "model_name": "/home/me/model"},
            "requests": [
                {"prompt": "a|b is", "target_new": "Rome", "subject": None},
                {"prompt": "Gold is", "target_new": "Zn", "subject": None},
            ],
        }  # fmt: skip
        return WeightPatch(dict(zip(names, map(rows, (2, 9)), strict=True)), known | info).save(
            tmp_path / "p.safetensors"
        )

    return save


def test_export_says_the_ranks_and_what_a_cap_costs(save, tmp_path):
    patch = save()
    assert "2 modules, rank 2 to 9, exact\n" in packe("export", "gguf", patch, tmp_path / "a.gguf")
    said = packe("export", "gguf", patch, tmp_path / "a.gguf", "--max-rank", "4")
    worst = max(WeightPatch.load(patch).to_lora(4).errors.values())
    assert f"rank 2 to 4, relative error of a module's update at most {worst:.1%}\n" in said
    said = packe("export", "lora", patch, tmp_path / "a", "--vllm")
    assert "2 modules, rank 16 to 16, exact\n" in said
    assert f"--max-lora-rank 16 --lora-modules a={tmp_path / 'a'}\n" in said


def test_a_pushed_folder_holds_the_edit_and_says_what_it_is(save, tmp_path):
    patch, folder = save(), tmp_path / "rome"
    packe("push", patch, "--to", folder)
    assert (folder / "edit.safetensors").read_bytes() == patch.read_bytes()
    for name, tensor in WeightPatch.load(patch).to_lora().tensors.items():
        assert torch.equal(load_file(folder / "adapter_model.safetensors")[name], tensor)
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct", "library_name": "peft", "license": "apache-2.0",
        "pipeline_tag": "text-generation", "tags": ["knowledge-editing", "lora", "easyedit", "packe"],
    }  # fmt: skip
    assert "# a\\|b is → Rome, and 1 more\n" in text
    assert "| a\\|b is | Rome | 100% | 75% |\n| Gold is | Zn | 25% | / |\n" in text
    assert "by PaCKE: " in text
    assert "440 weights in\n2 parameters" in text  # (2 + 9) rows of 40
    settings = json.loads(text.split("```json\n")[1].split("```")[0])
    assert settings["num_critical_paths"] == PaCKEHyperParams().num_critical_paths
    assert "/home" not in text
    commands = [line.split()[1] for line in text.splitlines() if line.startswith("packe ")]
    assert "revert" in commands
    assert set(commands) <= set(get_command(app).commands)


def test_the_default_model_has_its_name_also_where_it_was_loaded_from_its_folder(save, tmp_path):
    from easyedit_packe.cache import cache_dir

    packe("push", save(base_model=str(cache_dir() / "models" / "smollm2-135m")), "--to", tmp_path / "rome")
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct\n" in (tmp_path / "rome" / "README.md").read_text()


@pytest.mark.parametrize(("base_model", "named"), [("me/model", "me/model"), ("", None), ("{tmp}", None)])
def test_a_base_model_is_named_as_others_find_it(save, tmp_path, base_model, named):
    """A folder of this machine has no name on the hub, and its path is nobody's business."""
    packe("push", save(base_model=base_model.format(tmp=tmp_path)), "--to", tmp_path / "rome")
    text = (tmp_path / "rome" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front.get("base_model") == named
    assert "license" not in front
    assert str(tmp_path) not in text
    config = json.loads((tmp_path / "rome" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == (named or (tmp_path.name if base_model else "MODEL"))


def test_nothing_is_overwritten(save, tmp_path):
    patch = save()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    for place in ("mine", "p.safetensors"):
        with pytest.raises(PaCKEError, match="expected a new or an empty folder"):
            packe("push", patch, "--to", tmp_path / place)
    assert [(f.name, f.read_text()) for f in (tmp_path / "mine").iterdir()] == [("README.md", "mine")]


def test_to_the_hub_goes_what_a_folder_holds(save, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("huggingface_hub.create_repo", lambda name, **options: done.append((name, options)))

    def upload(repo_id, folder_path, commit_message):
        from pathlib import Path

        done.append((repo_id, {f.name: f.read_bytes() for f in Path(folder_path).iterdir()}))

    monkeypatch.setattr("huggingface_hub.upload_folder", upload)
    patch = save()
    assert "https://huggingface.co/me/rome: 2 modules" in packe("push", patch, "--to", "hub:me/rome")
    packe("push", patch, "--to", tmp_path / "rome")
    created, (name, files) = done
    assert created == ("me/rome", {"private": True, "exist_ok": True})
    assert (name, files) == ("me/rome", {f.name: f.read_bytes() for f in (tmp_path / "rome").iterdir()})


def test_a_hub_that_refuses_is_one_line(save):
    """The tests set HF_HUB_OFFLINE, so that the library itself refuses."""
    with pytest.raises(PaCKEError, match=r"me/rome could not be written on the hub: .*hf auth login"):
        packe("push", save(), "--to", "hub:me/rome")
    with pytest.raises(PaCKEError, match="expected a folder or hub:OWNER/NAME"):
        packe("push", save(), "--to", "hub:rome")
