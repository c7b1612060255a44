"""An edit beside weights that are never read: of a quantised model, as a LoRA adapter."""

from dataclasses import replace

import pytest
import torch

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, compute_adapter, compute_patch
from easyedit_packe.errors import HyperParamsError, ModelError
from easyedit_packe.model.ffn import FFNMap, norm
from easyedit_packe.packe.rectify import rectify as rectify_packe
from easyedit_packe.plus import rectify
from easyedit_packe.plus.state import EditMemory
from easyedit_packe.requests import encode, read_requests

from .conftest import REQUESTS, make_model, make_tokenizer
from .families import make_family
from .test_editor import state_of_the_world

HP = PaCKEHyperParams(num_critical_paths=4, num_negative_paths=1, lr=3e-2, num_steps=12)
PLUS = PaCKEPlusHyperParams(  # no full stop in the tiny vocabulary
    num_critical_paths=4, num_steps=5, answer_end="", layers=[0, 2], value_nodes=12
)
SIZES = {"hidden_size": 64, "intermediate_size": 128}  # of which bitsandbytes has whole blocks


def quantised(model, bits, packed=False):
    """The same with bitsandbytes' linear modules in the decoder, as transformers loads it; if the CPU can do it,
    packed for inference."""
    bnb = pytest.importorskip("bitsandbytes")
    for parent in list(model.model.layers.modules()):
        for name, old in list(parent.named_children()):
            if type(old) is torch.nn.Linear:
                shape = old.in_features, old.out_features
                new = (
                    bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=torch.float32, quant_type="nf4")
                    if bits == 4
                    else bnb.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False)
                )
                new.support_avx512bf16_for_cpu = packed and bnb.functional.has_avx512bf16()
                new.load_state_dict(old.state_dict(), strict=False)
                setattr(parent, name, new.to("cpu"))
    with torch.no_grad():
        model.eval()(torch.tensor([[2, 3]]))  # bitsandbytes lays weights out for the CPU when they are first used
    return model


class Rounded(torch.nn.Linear):
    """Holds whole numbers, as a quantised module does, and computes exactly what they stand for."""

    def __init__(self, of):
        super().__init__(of.in_features, of.out_features, bias=False)
        self.weight = torch.nn.Parameter((of.weight.detach() * 64).round().to(torch.int8), requires_grad=False)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight.to(x.dtype) / 64)


class Forwards(Rounded):
    def forward(self, x):
        return super().forward(x.detach())


def said(model, request):
    (e,) = encode(make_tokenizer(), read_requests([request]))
    with torch.no_grad():
        return model(e.ids[None]).logits[0, e.answer_start - 1 : -1].argmax(-1).tolist() == e.answer.tolist()


def updates(adapter):
    """What each module's weight and bias change by."""
    found = {}
    for name, t in adapter.tensors.items():
        module, _, kind = name.partition(".lora_")
        if kind == "A.weight":
            found[module] = adapter.tensors[f"{module}.lora_B.weight"] @ t
        elif kind == "B.bias":
            found[f"{module}.bias"] = t
    return found


def assert_same_adapter(ours, theirs, of_largest=0.0):
    assert ours.config == theirs.config
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, expected in updates(theirs).items():  # what is added; nodes may stand in another order
        atol = 1e-5 + of_largest * expected.abs().max().item()
        torch.testing.assert_close(updates(ours)[name], expected, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("trace", ["call", "request"])
def test_of_a_plain_model_it_is_the_adapter_of_the_patch(trace):
    model, tok, hp = make_model("gpt2"), make_tokenizer(), replace(HP, trace=trace, value_bias="trained")
    assert_same_adapter(
        compute_adapter(model, tok, REQUESTS[:2], hp), compute_patch(model, tok, REQUESTS[:2], hp).to_lora()
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_an_edit_beside_quantised_weights(hp, bits, tmp_path):
    from peft import PeftModel

    model, tok = quantised(make_model("llama", **SIZES), bits), make_tokenizer()
    # Not its state_dict: to write one, bitsandbytes quantises its scales anew.
    before, world = {n: p.detach().clone() for n, p in model.named_parameters()}, state_of_the_world(model, tok)
    wrong = [r for r in REQUESTS if not said(model, r)]
    assert wrong
    wrong = wrong if hp is HP else wrong[:1]  # so few nodes of a tiny model do not hold several that last
    adapter = compute_adapter(model, tok, wrong, replace(hp, trace="request"))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert state_of_the_world(model, tok) == world
    edited = PeftModel.from_pretrained(model, adapter.save(tmp_path)).eval()
    assert all(said(edited, r) for r in wrong)
    with edited.disable_adapter():
        assert not any(said(edited, r) for r in wrong)
    with pytest.raises(ModelError, match="to hold its own weight"):  # the model itself computes with it
        compute_adapter(model, tok, wrong, hp)


def test_edits_before_a_request_cost_one_pass(monkeypatch):
    """However many there are, they are held, and computed with, as one."""
    hooks = []

    def rectified(model, ffn, encoded, hparams):
        hooks.append(len(ffn.modules[0].module._forward_hooks))
        return rectify_packe(model, ffn, encoded, hparams)

    monkeypatch.setattr("easyedit_packe.editor.rectify", rectified)
    compute_adapter(make_model("llama"), make_tokenizer(), REQUESTS[:3], replace(HP, trace="request"))
    assert hooks == [1, 1, 1]


def test_of_plus_it_is_the_adapter_of_the_patch(monkeypatch):
    """Each request on top of those before it, which are remembered for as long as the call lasts."""
    monkeypatch.setattr(rectify, "REACH", 1e3)  # of weights that hold the earlier edits it would be another
    remembered = []
    add = EditMemory.add
    monkeypatch.setattr(EditMemory, "add", lambda self, *a: (add(self, *a), remembered.append(len(self.edits)))[0])
    model, tok = make_model("llama"), make_tokenizer()
    ours = compute_adapter(model, tok, REQUESTS[:3], PLUS)
    assert remembered == [1, 2, 3]
    assert not EditMemory.of(model).edits
    assert_same_adapter(ours, compute_patch(model, tok, REQUESTS[:3], PLUS).to_lora(), 1e-3)


@pytest.mark.parametrize("hp", [HP, PLUS], ids=["PaCKE", "PaCKE+"])
def test_it_is_the_edit_of_the_model_that_the_quantised_weights_stand_for(hp, monkeypatch):
    monkeypatch.setattr(rectify, "REACH", 1e3)  # with the estimated norm it would be nearly the same
    model, tok = make_model("llama"), make_tokenizer()
    for layer in model.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(layer.mlp, name, Rounded(getattr(layer.mlp, name)))
    plain = make_model("llama")
    for ours, theirs in zip(plain.model.layers, model.model.layers, strict=True):
        for name in ("gate_proj", "up_proj", "down_proj"):
            getattr(ours.mlp, name).weight.data = getattr(theirs.mlp, name).weight.float() / 64
    before = state_of_the_world(model, tok)
    ours = compute_adapter(model, tok, REQUESTS, hp)
    assert_same_adapter(ours, compute_patch(plain, tok, REQUESTS, hp).to_lora(), 5e-3 if hp is PLUS else 0.0)
    assert state_of_the_world(model, tok) == before


def test_the_norm_of_weights_that_cannot_be_read_is_estimated():
    (plain, *_), generator = FFNMap.of(make_model("llama")).modules, torch.Generator().manual_seed(1)
    linear = torch.nn.Linear(256, 512)
    linear.weight.data = 0.3 * torch.randn(512, 256, generator=generator)
    exact = norm(replace(plain, module=linear), torch.float32)
    assert exact == pytest.approx(linear.weight.norm().item())
    assert norm(replace(plain, module=Rounded(linear)), torch.float32) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_patch_of_quantised_weights_is_refused_with_the_way_out(bits):
    model = quantised(make_model("llama", **SIZES), bits)
    with pytest.raises(ModelError, match=r"up_proj, got a quantised one \(\w+\).*compute_adapter"):
        compute_patch(model, make_tokenizer(), REQUESTS[:1], HP)


def test_modules_that_only_compute_forwards_are_refused():
    """bitsandbytes' 4 bits on CPUs that have bfloat16, once they were used; and any module without a gradient."""
    tok = make_tokenizer()
    model = quantised(make_model("llama", **SIZES), 4, packed=True)
    if model.model.layers[0].mlp.up_proj.support_avx512bf16_for_cpu:
        with pytest.raises(ModelError, match=r"gradients to flow through .*Linear4bit.*8 bits"):
            compute_adapter(model, tok, REQUESTS[:1], HP)
    model = make_model("llama")
    for layer in model.model.layers:
        layer.mlp.down_proj = Forwards(layer.mlp.down_proj)
    with pytest.raises(ModelError, match=r"gradients to flow through model\.layers\.\d\.mlp\.down_proj"):
        compute_adapter(model, tok, REQUESTS[:1], HP)


def test_weights_of_torchao():
    quantization = pytest.importorskip("torchao.quantization")
    model = make_model("llama", **SIZES)
    quantization.quantize_(model.model.layers, quantization.Int8WeightOnlyConfig())
    with pytest.raises(ModelError, match="got a quantised one"):
        compute_patch(model, make_tokenizer(), REQUESTS[:1], HP)
    for hp, layers in ((HP, model.config.num_hidden_layers), (PLUS, len(PLUS.layers))):
        adapter = compute_adapter(model, make_tokenizer(), REQUESTS[:1], hp)
        assert len(adapter.errors) == 2 * layers


def test_what_cannot_be_an_adapter():
    with pytest.raises(HyperParamsError, match="expected PaCKEHyperParams or PaCKEPlusHyperParams, got dict"):
        compute_adapter(make_model("llama"), make_tokenizer(), REQUESTS[:1], {})
    with pytest.raises(ModelError, match="an adapter works on dense models"):
        compute_adapter(make_family("mixtral"), make_tokenizer(), REQUESTS[:1], HP)
