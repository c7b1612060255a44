"""What PaCKE+ knows belongs to the model, and follows it."""

import torch

from easyedit_packe import PaCKEPlusHyperParams, apply_packe_plus_to_model, compute_patch
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.plus.demands import leads
from easyedit_packe.plus.state import EditMemory, checksums
from easyedit_packe.requests import collate, encode, read_requests

from ..conftest import REQUESTS, make_model, make_tokenizer
from ..test_editor import easyedit_restore
from .common import ALL, plus, same_patch


def test_the_sum_over_earlier_edits_does_not_depend_on_when_it_is_asked_for():
    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "memory_size": 3})
    ffn, index = FFNMap.of(model), torch.tensor([1, 4, 5])
    now, late = EditMemory(), EditMemory()
    for step in range(5):
        apply_packe_plus_to_model(model, tok, REQUESTS[step % 3 : step % 3 + 1], hp)
        for memory in (now, late):
            memory.edits = list(EditMemory.of(model).edits)
        for m in ffn.modules[:2] if step < 4 else ffn.modules:
            now.moment(m, index, now.edits)
    assert len(now.edits) == 3
    for m in ffn.modules:
        if m.name not in now.edits[0].inputs.counts:
            continue
        for edits in (now.edits, now.edits[1:], []):
            expected = sum((e.inputs.of_nodes(m, index) for e in edits), torch.zeros(()))
            found = now.moment(m, index, edits)
            assert torch.equal(found, late.moment(m, index, edits))
            # what is taken off leaves its last bits
            rounding = 1e-6 * now.moment(m, index, now.edits).abs().max().item()
            torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-5, atol=rounding)


def test_earlier_requests_of_the_same_subject_stay():
    """Under their own prompts, that is: a request with the very same prompt takes over."""
    tok, first = make_tokenizer(), REQUESTS[0]
    second = {**first, "prompt": "People say that {} is", "target_new": REQUESTS[1]["target_new"]}
    again = {**first, "target_new": second["target_new"]}
    for request, replay, holds in ((second, 2, True), (again, 2, False)):
        model = make_model("llama")
        hp = PaCKEPlusHyperParams(**{**ALL, "write_at": "all", "num_steps": 30, "margin": 0.0, "replay": replay})
        apply_packe_plus_to_model(model, tok, [first], hp)
        apply_packe_plus_to_model(model, tok, [request], hp)
        [row] = encode(tok, read_requests([first]))
        batch = collate([row])
        lead = leads(answer_logits(model, batch), batch.targets)
        assert bool((lead >= 0).all()) == holds
        assert ("replay_lead" in compute_patch(model, tok, [request], hp).info["terms"]) == holds


def test_an_edit_of_the_same_subject_does_not_stand_in_the_way():
    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "write_at": "all"})
    apply_packe_plus_to_model(model, tok, REQUESTS[:1], hp)
    same, other = (plus(model, tok, hp, [r]) for r in REQUESTS[:2])
    assert len(EditMemory.of(model).edits) == 1
    assert (same.others, same.replay) == ([], [])  # asked anew, word for word
    assert (len(other.others), len(other.replay)) == (1, 0)


def test_memory_keeps_consecutive_edits_and_forgets_those_rolled_back(architecture):
    model, tok = make_model(architecture), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "write_at": "all"})
    originals = []
    for request in REQUESTS:
        originals.append(apply_packe_plus_to_model(model, tok, [request], hp, return_orig_weights=True)[1])
    assert len(EditMemory.of(model).edits) == 3
    easyedit_restore(model, originals[2])
    assert len(EditMemory.of(model).edits) == 2
    easyedit_restore(model, originals[1])
    easyedit_restore(model, originals[0])
    assert EditMemory.of(model).edits == []


def test_single_edits_do_not_depend_on_those_before_them():
    model, tok, hp = make_model("llama"), make_tokenizer(), PaCKEPlusHyperParams(**ALL)
    alone = compute_patch(model, tok, REQUESTS[1:2], PaCKEPlusHyperParams(**ALL))
    _, original = apply_packe_plus_to_model(model, tok, REQUESTS[:1], hp, return_orig_weights=True)
    easyedit_restore(model, original)
    assert same_patch(compute_patch(model, tok, REQUESTS[1:2], hp), alone)


def test_a_computed_patch_that_is_not_applied_is_forgotten():
    model, tok, hp = make_model("llama"), make_tokenizer(), PaCKEPlusHyperParams(**ALL)
    compute_patch(model, tok, REQUESTS[:1], hp)
    assert EditMemory.of(model).edits == []


def test_memory_survives_being_saved(tmp_path):
    from safetensors.torch import load_file, save_file

    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "write_at": "all"})
    for request in REQUESTS[:2]:
        apply_packe_plus_to_model(model, tok, [request], hp)
    save_file({k: t.contiguous() for k, t in EditMemory.of(model).tensors().items()}, tmp_path / "memory.safetensors")
    other = make_model("llama")
    other.load_state_dict(model.state_dict())
    EditMemory.restore(other, load_file(tmp_path / "memory.safetensors"))
    mine, its = (EditMemory.of(m).edits for m in (model, other))
    assert [(e.name, e.subjects) for e in mine] == [(e.name, e.subjects) for e in its]
    assert [e.subjects for e in mine] != [frozenset()] * 2
    assert same_patch(*(compute_patch(m, tok, REQUESTS[2:], hp) for m in (model, other)))


def test_memory_is_bounded_and_belongs_to_one_model():
    tok, hp = make_tokenizer(), PaCKEPlusHyperParams(**{**ALL, "memory_size": 2, "replay": 1})
    model = make_model("llama")
    for request in REQUESTS:
        apply_packe_plus_to_model(model, tok, [request], hp)
    assert [len(e.requests) for e in EditMemory.of(model).edits] == [1, 1]
    other = make_model("llama", seed=1)
    assert EditMemory.of(other).edits == []


def test_request_by_request_remembers_within_the_call():
    tok = make_tokenizer()
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**ALL, "trace": "request", "replay": 0})
    patch = compute_patch(model, tok, REQUESTS, hp)
    assert EditMemory.of(model).edits == []
    patch.apply(model)
    assert len(EditMemory.of(model).edits) == 3
    patch.revert(model)
    assert EditMemory.of(model).edits == []


def test_checksums_tell_nodes_apart():
    a = torch.randn(3, 8)
    b = a.clone()
    b[1, 3] = torch.nextafter(b[1, 3], torch.tensor(10.0))
    assert (checksums(a) == checksums(b)).tolist() == [True, False, True]
    assert checksums(torch.tensor([[0.0, 1.0]])) != checksums(torch.tensor([[-0.0, 1.0]]))
    assert checksums(a[:, [1, 0, *range(2, 8)]]).ne(checksums(a)).all()
