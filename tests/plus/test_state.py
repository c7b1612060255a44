"""What PaCKE+ knows belongs to the model, and follows it."""

import copy
import dataclasses
import re

import pytest
import torch

from easyedit_packe import EditStack, PaCKEPlusHyperParams, WeightPatch, apply_packe_plus_to_model, compute_patch
from easyedit_packe.model.bits import same_bits
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.patch.slice import Slice
from easyedit_packe.plus import moments, state
from easyedit_packe.plus.demands import leads
from easyedit_packe.plus.edits import checksums
from easyedit_packe.plus.moments import InputMoments
from easyedit_packe.plus.state import EditMemory
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
    assert len(now.edits) == 4  # one of the five changes nothing
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
        hp = PaCKEPlusHyperParams(
            **{**ALL, "write_at": "all", "num_steps": 30, "margin": 0.0, "subject_contexts": 0, "replay": replay}
        )
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
    hp = PaCKEPlusHyperParams(**DEMANDING)
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


@pytest.mark.parametrize("size", [4, 1])
def test_memory_survives_being_saved(tmp_path, size):
    from safetensors.torch import load_file, save_file

    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**DEMANDING, "memory_size": size, "replay": 1})
    for request in MANY[:4]:
        apply_packe_plus_to_model(model, tok, [request], hp)
    save_file({k: t.contiguous() for k, t in EditMemory.of(model).tensors().items()}, tmp_path / "memory.safetensors")
    other = make_model("llama")
    other.load_state_dict(model.state_dict())
    EditMemory.restore(other, load_file(tmp_path / "memory.safetensors"))
    mine, its = (EditMemory.of(m).edits for m in (model, other))
    assert [(e.name, e.subjects) for e in mine] == [(e.name, e.subjects) for e in its]
    assert set() not in [e.subjects for e in mine]
    pasts = [[(f.subject, f.edit, f.text.prompt) for f in EditMemory.of(m).past.facts] for m in (model, other)]
    assert pasts[0] == pasts[1]
    assert bool(pasts[0]) == (size == 1)
    assert same_patch(*(compute_patch(m, tok, REQUESTS[2:], hp) for m in (model, other)))


def test_memory_belongs_to_one_model():
    model = make_model("llama")
    apply_packe_plus_to_model(model, make_tokenizer(), REQUESTS[:1], PaCKEPlusHyperParams(**ALL))
    assert len(EditMemory.of(model).edits) == 1
    assert EditMemory.of(make_model("llama", seed=1)).edits == []


# What is past

MANY = [{**r, "target_new": t["target_new"]} for t in REQUESTS for r in REQUESTS]
"""Nine edits of three subjects."""


def moments_of(memory, modules, index):
    return [memory.moment(m, index, memory.edits) for m in modules]


def test_what_was_written_is_never_forgotten_and_takes_no_more_room():
    """With room for one or two edits, what nine of them want left alone is what they want that are all told apart."""
    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**DEMANDING, "memory_size": 1, "replay": 1})
    ffn, index, all_apart, sizes = FFNMap.of(model), torch.tensor([1, 4, 5]), EditMemory(), []
    for request in MANY:
        apply_packe_plus_to_model(model, tok, [request], hp)
        memory = EditMemory.of(model)
        all_apart.edits.append(memory.edits[-1])
        sizes.append(
            sum(t.nbytes for name, t in memory.tensors().items() if not re.search(r"\|(ids|places|about)\|", name))
        )
    assert len({e.name for e in all_apart.edits}) == len(MANY) == len(memory.edits) + len(memory.past.facts)
    assert len(memory.edits) <= 3
    for found, expected in zip(
        moments_of(memory, ffn.modules[:4], index), moments_of(all_apart, ffn.modules[:4], index), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())
    assert sizes[-1] < 1.1 * max(sizes[:4])
    assert {e.prompt for e in memory.also_about({REQUESTS[0]["subject"]}, [])} == {
        e.prompt for e in encode(tok, read_requests(REQUESTS[:1]))
    }


def test_the_past_is_forgotten_once_it_is_rolled_back_and_known_again_when_it_comes_back():
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**DEMANDING, "memory_size": 1, "replay": 1})
    base = copy.deepcopy(model.state_dict())
    in_a_row(model, MANY[:5], hp)
    edited, known = copy.deepcopy(model.state_dict()), len(EditMemory.of(model).past.facts)
    assert known >= 2
    model.load_state_dict(base)
    memory = EditMemory.of(model)
    assert (memory.edits, memory.past.facts) == ([], ())
    model.load_state_dict(edited)
    memory = EditMemory.of(model)
    assert len(memory.past.facts) == known
    assert len(memory.edits) == 5 - known


def test_an_old_edit_taken_out_of_a_stack_leaves_the_past_in_force():
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**DEMANDING, "memory_size": 1, "replay": 1})
    stack = EditStack(model)
    for patch in in_a_row(model, MANY[:5], hp):
        stack.push(patch)
    known = EditMemory.of(model).past.facts
    stack.revert(stack.edits[0])
    memory = EditMemory.of(model)
    assert memory.past.facts == known[1:]
    asked = [e.ids.tolist() for e in memory.also_about({MANY[0]["subject"]}, [])]
    assert asked == [memory.edits[-2].facts[0].text.ids.tolist()]  # the later fact of that subject, the fourth


def test_no_memory_at_all():
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**DEMANDING, "memory_size": 0, "replay": 0})
    in_a_row(model, MANY[:3], hp)
    memory = EditMemory.of(model)
    assert (memory.edits, memory.past.facts) == ([], ())


def test_request_by_request_remembers_within_the_call():
    tok = make_tokenizer()
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**ALL, "trace": "request", "replay": 0, "num_steps": 10})
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


# Which edits are in force

DEMANDING = {
    **ALL,
    "write_at": "all",
    "num_steps": 20,
    "subject_contexts": 1,
    "prefix_contexts": 0,
    "margin": 3.0,
    "context_margin": 3.0,
}
"""So that every tiny model is changed by every request: an edit that changes nothing is not remembered."""


def names(model):
    return [e.name for e in EditMemory.of(model).edits]


def in_a_row(model, requests, hp):
    """The patches of one edit after another."""
    patches = []
    for request in requests:
        patches.append(compute_patch(model, make_tokenizer(), [request], hp))
        patches[-1].apply(model)
    return patches


def test_the_state_moves_with_a_copy(architecture):
    """`copy=True` twice: the second copy holds both edits and knows of both; the first models know of theirs."""
    hp, tok = PaCKEPlusHyperParams(**DEMANDING), make_tokenizer()
    model = make_model(architecture)
    once, _ = apply_packe_plus_to_model(model, tok, REQUESTS[:1], hp, copy=True)
    twice, _ = apply_packe_plus_to_model(once, tok, REQUESTS[1:2], hp, copy=True)
    assert [len(names(m)) for m in (model, once, twice)] == [0, 1, 2]
    assert names(twice)[:1] == names(once)
    assert EditMemory.of(twice).background is EditMemory.of(model).background  # nothing is measured again
    in_place = make_model(architecture)
    in_a_row(in_place, REQUESTS[:2], hp)
    assert names(in_place) == names(twice)


@pytest.mark.parametrize("out", [0, 1, 2])
def test_an_edit_taken_out_of_a_stack_is_forgotten_and_the_others_are_not(architecture, out):
    model, hp = make_model(architecture), PaCKEPlusHyperParams(**{**DEMANDING, "write_at": "all"})
    stack = EditStack(model)
    for patch in in_a_row(model, REQUESTS, hp):
        stack.push(patch)
    patches, before = list(stack.edits), names(model)
    assert before == [p.info["edits"][0] for p in patches]
    shared = [n for n, s in patches[0].slices.items() if torch.isin(s.index, patches[1].slices[n].index).any()]
    assert shared
    stack.revert(patches[out])
    left = [i for i in range(3) if i != out]
    assert names(model) == [before[i] for i in left]
    stack.revert(patches[left[0]])
    assert names(model) == [before[left[1]]]
    stack.revert(patches[left[1]])
    assert names(model) == []


def test_what_is_left_of_a_stack_is_kept_by_the_next_edit():
    """The next edit's damping counts the edit that is left, and not the one that is gone."""
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**DEMANDING, "write_at": "all"})
    stack = EditStack(model)
    for patch in in_a_row(model, REQUESTS[:2], hp):
        stack.push(patch)
    stack.revert(stack.edits[0])
    run = plus(model, make_tokenizer(), hp, REQUESTS[2:])
    (left,) = run.others
    run.choose(run.look())
    for m in run.ffn.modules:
        expected = run.usual.of_nodes(m, run.critical[m.name]) + left.inputs.of_nodes(m, run.critical[m.name])
        factor = run.damping[m.name]
        total = torch.eye(len(factor)) + 3.0 * expected / run.usual.scale(m)
        torch.testing.assert_close(factor @ factor.T, total, rtol=1e-5, atol=1e-6 * total.max().item())


def test_a_merged_patch_takes_all_its_edits_out():
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**DEMANDING, "write_at": "all"})
    first, second, third = in_a_row(model, REQUESTS, hp)
    stack = EditStack(model)
    merged = WeightPatch.merge([first, second])
    for patch in (merged, third):
        stack.push(patch)
    stack.revert(merged)
    assert names(model) == third.info["edits"]


def test_a_patch_that_is_put_on_again_is_remembered_again(tmp_path):
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**DEMANDING)
    first, second = in_a_row(model, REQUESTS[:2], hp)
    second.revert(model)
    assert names(model) == first.info["edits"]
    WeightPatch.load(second.save(tmp_path / "second.safetensors")).apply(model)
    assert names(model) == first.info["edits"] + second.info["edits"]


def test_alternating_models_keep_what_each_knows():
    hp, models = PaCKEPlusHyperParams(**DEMANDING), [make_model("llama", seed=s) for s in (0, 1)]
    alone = make_model("llama")
    in_a_row(alone, REQUESTS, hp)
    for request in REQUESTS:
        for model in models:
            in_a_row(model, [request], hp)
    assert names(models[0]) == names(alone)
    assert [len(names(m)) for m in models] == [3, 3]
    assert all(same_bits(p, q) for p, q in zip(models[0].parameters(), alone.parameters(), strict=True))


def test_settings_hold_no_state():
    hp = PaCKEPlusHyperParams(**DEMANDING)
    before = vars(hp).copy()
    in_a_row(make_model("llama"), REQUESTS[:2], hp)
    assert vars(hp) == before
    first = in_a_row(make_model("llama"), REQUESTS[:2], hp)
    other = in_a_row(make_model("llama"), REQUESTS[:2], dataclasses.replace(hp))
    assert all(map(same_patch, first, other))


def test_the_state_is_no_part_of_a_saved_model(tmp_path):
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**DEMANDING)
    keys = set(model.state_dict())
    in_a_row(model, REQUESTS[:1], hp)
    assert set(model.state_dict()) == keys
    model.save_pretrained(tmp_path)
    assert names(type(model).from_pretrained(tmp_path)) == []


# What a session can do to it


def test_what_is_asked_of_one_subject_of_a_call_is_not_asked_of_the_others():
    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(**{**ALL, "write_at": "all", "replay": 1})
    apply_packe_plus_to_model(model, tok, REQUESTS, hp)
    [fact] = EditMemory.of(model).also_about({"Omar"}, [])
    assert tok.decode(fact.ids).endswith("Omar plays the piano")


def test_the_newest_of_those_that_are_away_stay_known(monkeypatch):
    monkeypatch.setattr(state, "AWAY", 2)
    model, tok, hp = make_model("llama"), make_tokenizer(), PaCKEPlusHyperParams(**DEMANDING)
    for request in MANY[:4]:
        patch = compute_patch(model, tok, [request], hp)
        patch.apply(model)
        assert len(EditMemory.of(model).edits) == 1
        patch.revert(model)
        assert EditMemory.of(model).edits == []
    patch.apply(model)
    assert [e.name for e in EditMemory.of(model).edits] == patch.info["edits"]


@pytest.mark.parametrize("size", [0, 1])
def test_a_patch_that_is_not_applied_changes_nothing_of_what_is_known(size):
    model, tok = make_model("llama"), make_tokenizer()
    in_a_row(model, MANY[:2], PaCKEPlusHyperParams(**DEMANDING))
    known = [e.name for e in EditMemory.of(model).edits]
    compute_patch(model, tok, MANY[2:3], PaCKEPlusHyperParams(**{**DEMANDING, "memory_size": size, "replay": 0}))
    memory = EditMemory.of(model)
    assert len(known) == 2
    assert ([e.name for e in memory.edits], memory.past.facts) == (known, ())


def test_an_edit_that_a_later_one_hides_altogether_does_not_come_back_with_it():
    model = make_model("llama")
    hp = PaCKEPlusHyperParams(**{**DEMANDING, "num_critical_paths": 24, "value_nodes": None})  # all nodes
    first, second = in_a_row(model, MANY[:2], hp)
    second.revert(model)
    first.revert(model)
    assert EditMemory.of(model).edits == []
    for name, s in second.slices.items():  # as if it alone had been computed
        model.get_parameter(name).data.movedim(s.axis, 0)[s.index] = s.new
    assert [e.name for e in EditMemory.of(model).edits] == second.info["edits"]


def test_the_past_of_layers_that_a_later_call_leaves_out_stays():
    model = make_model("llama")
    for layer in (0, 0, 0, 1, 1, 1, 1):
        hp = PaCKEPlusHyperParams(**{**DEMANDING, "layers": [layer], "memory_size": 1, "replay": 0})
        in_a_row(model, [MANY[len(EditMemory.of(model).past.facts) + len(EditMemory.of(model).edits)]], hp)
    memory = EditMemory.of(model)
    layers = {name.split(".")[2] for name in memory.past.inputs.counts}
    assert layers == {name.split(".")[2] for name in memory.past.marks} == {"0", "1"}


def test_the_past_of_a_wide_module_is_kept_as_inputs_while_these_are_smaller(monkeypatch):
    monkeypatch.setattr(moments, "DENSE", 0)
    m, index = FFNMap.of(make_model("llama")).modules[1], torch.tensor([1, 4, 5])
    past, total = InputMoments(), torch.zeros(3, 3)
    for step in range(8):
        few = InputMoments(sparse=True)
        few.add(m, torch.randn(5, m.weight.shape[1], generator=torch.Generator().manual_seed(step)))
        past.accumulate(few)
        total += few.of_nodes(m, index)
        assert (m.name in past.rows) == (5 * (step + 1) < m.weight.shape[1])
        torch.testing.assert_close(past.of_nodes(m, index), total, rtol=2e-2, atol=2e-2)
    assert m.name in past.sums


@pytest.mark.parametrize("value_nodes", [None, 8])
def test_a_row_of_edits_is_the_same_after_it_was_rolled_back(value_nodes):
    """What was folded into the past is not taken for in force, only because later edits cover all of it."""
    changes = {"memory_size": 1, "replay": 0, "value_nodes": value_nodes}
    model, hp = make_model("llama"), PaCKEPlusHyperParams(**{**DEMANDING, **changes})
    requests = [{**r, "target_new": t} for t in ("Grey", "Bergen") for r in REQUESTS][:5]
    rows = []
    for _ in range(2):
        patches = in_a_row(model, requests, hp)
        rows.append([p.info.get("edits") for p in patches])
        for patch in reversed(patches):
            patch.revert(model)
    assert rows[0] == rows[1]
    assert all(rows[0])


def test_what_another_editor_writes_is_no_roll_back():
    """A few vectors, or a matrix of many; a roll back changes nearly all of them."""
    model, tok = make_model("llama"), make_tokenizer()
    patch = compute_patch(model, tok, REQUESTS[:1], PaCKEPlusHyperParams(**ALL))
    patch.apply(model)
    (edit,) = EditMemory.of(model).edits
    names = sorted(patch.slices)
    with torch.no_grad():
        model.get_parameter(names[0]).add_(1)
    assert EditMemory.of(model).edits == [edit]
    with torch.no_grad():
        for name in names:
            patch.slices[name].write(model.get_parameter(name), patch.slices[name].old)
    assert EditMemory.of(model).edits == []


def test_an_edit_that_rounding_takes_from_most_vectors_can_be_rolled_back():
    slices = {"w.weight": Slice(0, torch.arange(8), torch.zeros(8, 3), torch.zeros(8, 3), 8)}
    slices["w.weight"].new[2] = 1.0
    model = torch.nn.Module()
    model.w = torch.nn.Linear(3, 8, bias=False)
    model.w.weight.data.zero_()
    patch = WeightPatch(slices)
    EditMemory.of(model).add([], patch, InputMoments())
    patch.apply(model)
    assert len(EditMemory.of(model).edits) == 1
    patch.revert(model)
    assert EditMemory.of(model).edits == []
