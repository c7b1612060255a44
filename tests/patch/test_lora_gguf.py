"""The GGUF adapter is the edit, by llama.cpp's own rule: B A times alpha / rank of each module."""

import pytest
import torch
import transformers
from gguf import MODEL_ARCH_NAMES, GGUFReader

from easyedit_packe import WeightPatch
from easyedit_packe.errors import MissingPackageError, PatchError
from easyedit_packe.model.blocks import FORMS, find_blocks
from easyedit_packe.patch.lora_gguf import ARCHITECTURES
from easyedit_packe.patch.slice import Slice

from ..families import FAMILIES

RANKS = {"key": 3, "value": 1, "gate": 5}
"""How many nodes are changed of each kind of module, so that no two modules of a block share a rank."""


def edit_of(family):
    """A patch of a tiny model that changes rows of every linear module of its second block, and the block."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, FAMILIES[family].model)(FAMILIES[family].config())
    block = find_blocks(model)[1]
    form, slices = FORMS[block.form], {}
    for part, rank in RANKS.items():
        if (module := getattr(form, part)) is not None:
            weight = block[module].weight.detach()
            axis = 0 if (part == "value") == block.transposed else 1
            index = torch.randperm(weight.shape[axis])[:rank]
            old = weight.index_select(axis, index).movedim(axis, 0)
            slices[f"{block.name}.{module}.weight"] = Slice(
                axis, index, old, old + torch.randn_like(old), weight.shape[axis]
            )
    info = {
        "model_type": family,
        "ffn": {"linear": [f"{block.path}.{n}" for n in form.linear], "transposed": block.transposed},
    }
    return WeightPatch(slices, info), block


def read(file):
    """(fields, tensors) as numpy lays them out: the last axis is GGUF's first."""
    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}


@pytest.mark.parametrize("family", sorted(ARCHITECTURES))
def test_each_module_changes_by_what_the_patch_changes(family, tmp_path):
    patch, block = edit_of(family)
    fields, tensors = read(patch.to_lora().save_gguf(tmp_path / "a.gguf"))
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert fields["general.architecture"] == ARCHITECTURES[family]
    form = FORMS[block.form]
    names = {form.key: "blk.1.ffn_up", form.value: "blk.1.ffn_down", form.gate: "blk.1.ffn_gate"}
    assert len(tensors) == 2 * len(form.linear)
    ranks = set()
    for module in form.linear:
        s = patch.slices[f"{block.name}.{module}.weight"]
        a, b = (tensors[f"{names[module]}.weight.lora_{x}"] for x in "ab")
        assert a.shape[0] == b.shape[1] == len(s.index)  # its own rank
        ranks.add(len(a))
        change = torch.zeros(s.shape)
        s.write(change, s.change)
        if block.transposed:
            change = change.T  # llama.cpp holds [out, in]
        torch.testing.assert_close(b @ a * (fields["adapter.lora.alpha"] / len(a)), change, rtol=3e-7, atol=0)
    assert len(ranks) == len(form.linear)  # so that a scale of one rank for all would be wrong


def test_llama_cpps_architectures_are_those_of_the_library():
    assert set(ARCHITECTURES.values()) <= set(MODEL_ARCH_NAMES.values())


def test_what_llama_cpp_cannot_hold_is_refused(tmp_path, monkeypatch):
    patch, block = edit_of("gpt2")
    unknown = WeightPatch(patch.slices, {**patch.info, "model_type": "gptj"})
    with pytest.raises(PatchError, match=r"got 'gptj'.*packe export model.*convert_hf_to_gguf"):
        unknown.to_lora().save_gguf(tmp_path / "a.gguf")
    bias = Slice(0, torch.tensor([0]), torch.zeros(1), torch.ones(1), 16)
    biased = WeightPatch({**patch.slices, f"{block.name}.c_proj.bias": bias}, patch.info)
    with pytest.raises(PatchError, match="value_bias: frozen"):
        biased.to_lora().save_gguf(tmp_path / "a.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"easyedit-packe\[models\]"):
        patch.to_lora().save_gguf(tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())
