"""A model that PEFT has wrapped is refused, with what to do, and left as it is."""

import copy

import pytest

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, compute_patch
from easyedit_packe.errors import ModelError
from easyedit_packe.model.bits import same_bits

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from ..test_editor import state_of_the_world

BOTH = pytest.mark.parametrize(
    "hp",
    [
        PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=2),
        PaCKEPlusHyperParams(num_critical_paths=4, num_steps=2, null_space=0.0, prefix_contexts=0),
    ],
    ids=["PaCKE", "PaCKE+"],
)


def with_adapter(model, *targets):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False)).eval()


WRAPPED = {
    "attention": lambda model: with_adapter(model, "q_proj"),
    "feed-forward block": lambda model: with_adapter(model, "up_proj"),
    "inner model": lambda model: with_adapter(model, "q_proj").base_model,
    "modules of a plain model": lambda model: with_adapter(model, "up_proj", "down_proj").get_base_model(),
}


@BOTH
@pytest.mark.parametrize("kind", WRAPPED)
def test_adapters_must_be_merged_first(hp, kind):
    model, tok = WRAPPED[kind](make_model("llama")), make_tokenizer()
    before, world = snapshot(model), state_of_the_world(model, tok)
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    with pytest.raises(ModelError, match=r"merge_and_unload\(\).*base model"):
        compute_patch(model, tok, REQUESTS[:1], hp)
    assert_same_bits(model, before)
    assert state_of_the_world(model, tok) == world
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes


@BOTH
def test_a_merged_adapter_is_a_plain_model(hp):
    model, tok = with_adapter(make_model("llama"), "q_proj", "up_proj"), make_tokenizer()
    plain = make_model("llama")
    plain.load_state_dict(copy.deepcopy(model).merge_and_unload().state_dict())
    merged = model.merge_and_unload()
    ours, expected = (compute_patch(m, tok, REQUESTS[:1], hp) for m in (merged, plain))
    for name, s in expected.slices.items():
        assert same_bits(s.new, ours.slices[name].new)
