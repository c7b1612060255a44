"""Patches: exact round trips, refusals with a reason, and a loader that no file can fool."""

import json
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, safe_open, save_file
from torch import nn

from easyedit_packe import EditStack, PaCKEHyperParams, WeightPatch, apply_packe_to_model, compute_patch, record_patches
from easyedit_packe.errors import PaCKEError, PatchError
from easyedit_packe.model.bits import same_bits
from easyedit_packe.patch.file import _digest, fingerprint
from easyedit_packe.patch.slice import Slice

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot

HP = PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=4)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def edit(model, request, hp=HP):
    return compute_patch(model, make_tokenizer(), [request], hp)


@pytest.mark.parametrize("dtype", DTYPES)
def test_save_load_apply_revert(architecture, dtype, tmp_path):
    model = make_model(architecture, dtype)
    before = snapshot(model)
    patch = edit(model, REQUESTS[0])
    patch.apply(model)
    edited = snapshot(model)
    loaded = WeightPatch.load(patch.save(tmp_path / "p.safetensors"))
    assert loaded.info == json.loads(json.dumps(patch.info))
    loaded.revert(model)
    assert_same_bits(model, before)
    loaded.apply(model)
    assert_same_bits(model, edited)
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_what_the_file_says(tmp_path):
    model = make_model("llama")
    edit(model, REQUESTS[0]).save(tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", framework="pt") as f:
        metadata = f.metadata()
    assert (metadata["format"], metadata["version"]) == ("packe-weight-patch", "1")
    info = json.loads(metadata["info"])
    assert info["requests"][0]["target_new"] == "Bergen"
    assert info["hparams"]["lr"] == HP.lr
    assert info["model_type"] == "llama"
    assert len(metadata["fingerprint"]) == 64


def test_refusals_name_the_reason(tmp_path):
    model = make_model("llama")
    first = edit(model, REQUESTS[0])
    with pytest.raises(PatchError, match="the patch is not applied"):
        first.revert(model)
    first.apply(model)
    with pytest.raises(PatchError, match="already applied"):
        first.apply(model)
    second = edit(model, REQUESTS[0])  # the same nodes, or some of them
    second.apply(model)
    before = snapshot(model)
    with pytest.raises(PatchError, match="a later edit changed the same nodes"):
        first.revert(model)
    third = edit(model, REQUESTS[0])
    third.apply(model)
    later = edit(model, REQUESTS[0])
    third.revert(model)
    with pytest.raises(PatchError, match="apply that one first"):
        later.apply(model)
    assert_same_bits(model, before)
    with pytest.raises(PatchError, match="another model"):
        first.apply(make_model("llama", seed=5))
    with pytest.raises(PatchError, match="no parameter"):
        first.apply(make_model("gptj"))
    with pytest.raises(PatchError, match="load the model in the patch's dtype"):
        first.apply(make_model("llama", torch.float16))
    with pytest.raises(PatchError, match=r"nothere\.safetensors: cannot be read"):
        WeightPatch.load(tmp_path / "nothere.safetensors")


def test_merging_equals_applying_in_order(architecture):
    model = make_model(architecture)
    before, patches = snapshot(model), []
    for request in [*REQUESTS, REQUESTS[0]]:
        patches.append(edit(model, request))
        patches[-1].apply(model)
    after = snapshot(model)
    merged = WeightPatch.merge(patches)
    merged.revert(model)
    assert_same_bits(model, before)
    merged.apply(model)
    assert_same_bits(model, after)
    assert len(merged.info["requests"]) == 4
    with pytest.raises(PatchError, match="merge in the order"):
        WeightPatch.merge(patches[::-1])
    with pytest.raises(PatchError, match="at least one"):
        WeightPatch.merge([])


def test_patches_of_a_whole_run():
    model, tok = make_model("llama"), make_tokenizer()
    before = snapshot(model)
    with record_patches() as patches:
        for request in REQUESTS:
            apply_packe_to_model(model, tok, [request], HP)
    apply_packe_to_model(make_model("llama"), tok, REQUESTS, HP)  # outside: not recorded
    assert [p.info["requests"][0]["prompt"] for p in patches] == [r["prompt"] for r in REQUESTS]
    WeightPatch.merge(patches).revert(model)
    assert_same_bits(model, before)


def test_difference_of_two_models(architecture):
    model = make_model(architecture)
    edited, _ = apply_packe_to_model(model, make_tokenizer(), REQUESTS, HP, copy=True)
    patch = WeightPatch.between(model, edited)
    assert patch.info["dense"] == []
    before, after = snapshot(model), snapshot(edited)
    patch.apply(model)
    assert_same_bits(model, after)
    patch.revert(model)
    assert_same_bits(model, before)
    edited.get_input_embeddings().weight.data.add_(1)
    assert len(WeightPatch.between(model, edited).info["dense"]) >= 1
    assert WeightPatch.between(model, model).slices == {}
    with pytest.raises(PatchError, match="models of one kind"):
        WeightPatch.between(
            model, make_model(architecture, hidden_size=32) if architecture == "llama" else make_model("llama")
        )


# Stacks: any edit can go, the others stay.


def test_any_edit_of_a_stack_can_be_taken_back(architecture):
    """Without common nodes the others stay bit for bit; reverting all gives the base bit for bit, in any order."""
    model = make_model(architecture)
    base = snapshot(model)
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        stack = EditStack(model)
        for request in REQUESTS:
            stack.apply(edit(model, request))
        edits = list(stack.edits)
        for k, i in enumerate(order):
            stack.revert(edits[i])
            assert len(stack.edits) == 2 - k
        assert_same_bits(model, base)
    with pytest.raises(PatchError, match="not among those in force"):
        stack.revert(edits[0])


def patch_of(parameter, index, old, new, axis=0):
    return WeightPatch({"weight": Slice(axis, torch.tensor(index), old, new, parameter.shape[axis])})


def test_what_reverting_means_where_edits_overlap():
    """Base 0; edit A adds 1 to nodes 0 and 1, B adds 10 to 1 and 2, on top. Reverting A leaves B's change alone."""
    layer = torch.nn.Linear(2, 4, bias=False)
    layer.weight.data.zero_()
    stack = EditStack(layer)
    row = torch.ones(2, 2)
    a = patch_of(layer.weight, [0, 1], 0 * row, 1 * row)
    b = patch_of(layer.weight, [1, 2], torch.tensor([[1.0, 1], [0, 0]]), torch.tensor([[11.0, 11], [10, 10]]))
    stack.apply(a)
    stack.apply(b)
    merged = stack.merged()
    assert merged.slices["weight"].new[:, 0].tolist() == [1, 11, 10]
    stack.revert(a)
    assert layer.weight[:, 0].tolist() == [0, 10, 10, 0]
    left = stack.merged().slices["weight"]
    assert (left.index.tolist(), left.old[:, 0].tolist(), left.new[:, 0].tolist()) == ([1, 2], [0, 0], [10, 10])
    stack.revert(b)
    assert layer.weight.abs().sum() == 0


def test_what_the_stack_does_not_know_is_not_written_over():
    layer = torch.nn.Linear(2, 4, bias=False)
    layer.weight.data.zero_()
    stack, row = EditStack(layer), torch.ones(2, 2)
    known = patch_of(layer.weight, [0, 1], 0 * row, 1 * row)
    stack.apply(known)
    other = patch_of(layer.weight, [1, 2], torch.tensor([[1.0, 1], [0, 0]]), 10 * row)
    other.apply(layer)  # past the stack
    before = layer.weight.detach().clone()
    with pytest.raises(PatchError, match="something else has changed this model"):
        stack.revert(known)
    assert torch.equal(layer.weight, before)
    assert stack.edits == [known]
    other.revert(layer)
    stack.revert(known)
    assert not layer.weight.any()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_stacks_of_random_edits(data):
    """Random nodes, changes and dtypes: the newest goes exactly, and all going in any order gives the base exactly."""
    dtype = data.draw(st.sampled_from(DTYPES))
    seed = data.draw(st.integers(0, 2**30))
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(3, 6, bias=False, dtype=dtype)
    layer.weight.data.copy_(torch.randn(6, 3, generator=generator))
    base = layer.weight.detach().clone()
    stack, states = EditStack(layer), []
    for _ in range(data.draw(st.integers(1, 5))):
        states.append(layer.weight.detach().clone())
        axis = data.draw(st.sampled_from([0, 1]))
        if stack.edits:
            axis = stack.edits[0].slices["weight"].axis
        nodes = data.draw(st.lists(st.integers(0, layer.weight.shape[axis] - 1), min_size=1, unique=True))
        old = layer.weight.detach().index_select(axis, torch.tensor(nodes)).movedim(axis, 0)
        new = (old + torch.randn(old.shape, generator=generator).to(dtype)).to(dtype)
        stack.apply(patch_of(layer.weight, nodes, old, new, axis))
    newest = stack.edits[-1]
    stack.revert(newest)
    assert same_bits(layer.weight.data, states[-1])
    for p in data.draw(st.permutations(stack.edits)):
        stack.revert(p)
    assert same_bits(layer.weight.data, base)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_patches_survive_their_file(data, tmp_path):
    dtype = data.draw(st.sampled_from([*DTYPES, torch.float64]))
    rows, cols = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    axis = data.draw(st.sampled_from([0, 1]))
    size = (rows, cols)[axis]
    nodes = data.draw(st.lists(st.integers(0, size - 1), unique=True))
    layer = torch.nn.Linear(cols, rows, bias=False, dtype=dtype)
    old = layer.weight.detach().index_select(axis, torch.tensor(nodes, dtype=torch.long)).movedim(axis, 0)
    new = (old * data.draw(st.floats(-3, 3)) - 0.0).to(dtype)
    patch = WeightPatch({"weight": Slice(axis, torch.tensor(nodes, dtype=torch.long), old, new, size)}, {"note": "ü"})
    before = layer.weight.detach().clone()
    loaded = WeightPatch.load(patch.save(tmp_path / "p.safetensors"))
    assert loaded.info == patch.info
    if not same_bits(old, new):
        loaded.apply(layer)
        loaded.revert(layer)
    assert same_bits(layer.weight.data, before)


# Hostile and damaged files.


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("patch") / "good.safetensors"
    model = make_model("gpt2")
    edit(model, REQUESTS[0]).save(path)
    return path


def signed(path, tensors, **metadata):
    """A file whose checksum is right although its contents are not what an edit makes."""
    metadata = {"format": "packe-weight-patch", "version": "1", "base_model": "", "info": "{}", **metadata}
    metadata["fingerprint"] = fingerprint(tensors)
    metadata["digest"] = _digest(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


def one_slice(index=(0, 1), old=None, new=None):
    rows = torch.zeros(2, 3)
    return {
        "weight|index": torch.tensor(index),
        "weight|old": rows.clone() if old is None else old,
        "weight|new": rows + 1 if new is None else new,
    }


@pytest.mark.parametrize(
    ("tensors", "axes", "message"),
    [
        (one_slice((0, 9)), {"weight": [0, 4]}, "out of range"),
        (one_slice((0, -1)), {"weight": [0, 4]}, "out of range"),
        (one_slice((1, 1)), {"weight": [0, 4]}, "comes twice"),
        (one_slice((0, 1, 2)), {"weight": [0, 4]}, "differ in length"),
        (one_slice(new=torch.ones(2, 4)), {"weight": [0, 4]}, "differ in length"),
        (one_slice(new=torch.ones(2, 3).half()), {"weight": [0, 4]}, "one float dtype"),
        (one_slice(new=torch.full((2, 3), float("nan"))), {"weight": [0, 4]}, "not finite"),
        (one_slice((0.0, 1.0)), {"weight": [0, 4]}, "int64"),
        (one_slice(), {"weight": [7, 4]}, "axis 7"),
        (one_slice(), {"weight": [0, True]}, "expected"),
        (one_slice(), {"weight": "0"}, "expected"),
        (one_slice(), {}, "unexpected tensor"),
        (one_slice(), {"weight": [0, 4], "other": [0, 4]}, "missing"),
        (one_slice(), [1], "expected a JSON object"),
    ],
)
def test_hostile_contents_with_a_right_checksum(tmp_path, tensors, axes, message):
    with pytest.raises(PatchError, match=message):
        WeightPatch.load(signed(tmp_path / "p.safetensors", tensors, axes=json.dumps(axes)))


def test_the_hostile_files_differ_from_a_good_one(tmp_path):
    path = signed(tmp_path / "p.safetensors", one_slice(), axes=json.dumps({"weight": [0, 4]}))
    assert WeightPatch.load(path).num_weights == 6
    deep = signed(tmp_path / "d.safetensors", one_slice(), axes="[" * 100_000 + "]" * 100_000)
    with pytest.raises(PatchError, match="JSON"):
        WeightPatch.load(deep)
    newer = signed(tmp_path / "n.safetensors", one_slice(), axes="{}", version="2")
    with pytest.raises(PatchError, match="update easyedit-packe"):
        WeightPatch.load(newer)
    save_file(load_file(path), tmp_path / "o.safetensors")
    with pytest.raises(PatchError, match="something else"):
        WeightPatch.load(tmp_path / "o.safetensors")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The file cut, lengthened, with a flipped bit, overwritten in a range, or with another header length."""
    kind = rng.randrange(6)
    header = int.from_bytes(data[:8], "little")
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        return data + bytes(rng.randrange(1, 64))
    if kind in (2, 3):
        at = rng.randrange(8 + header if kind == 2 else len(data))
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 4:
        start, length = rng.randrange(len(data)), rng.randrange(1, 40)
        return data[:start] + rng.randbytes(min(length, len(data) - start)) + data[start + length :]
    length = rng.choice([0, 1, header - 1, header + 1, len(data), 2**32, 2**63 - 1, 2**64 - 1])
    return length.to_bytes(8, "little") + data[8:]


def test_two_thousand_damaged_files_are_refused(good, tmp_path):
    rng, data, model = random.Random(0), good.read_bytes(), make_model("gpt2")
    before = snapshot(model)
    path, tried = tmp_path / "p.safetensors", 0
    while tried < 2000:
        bad = damaged(data, rng)
        if bad == data:
            continue
        tried += 1
        path.write_bytes(bad)
        with pytest.raises(PaCKEError):
            WeightPatch.load(path).apply(model)
    assert_same_bits(model, before)
    WeightPatch.load(good).apply(model)


def test_info_that_json_cannot_hold(tmp_path):
    with pytest.raises(PatchError, match="plain values"):
        WeightPatch({}, {"x": object()}).save(tmp_path / "p.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_stack_forgets_what_none_of_its_edits_touches():
    """Later edits are judged by what the model holds then, also where another edit was put on outside the stack."""
    model = make_model("llama")
    stack = EditStack(model)
    first = edit(model, REQUESTS[0])
    stack.apply(first)
    stack.revert(first)
    outside = edit(model, REQUESTS[0])
    outside.apply(model)
    before = snapshot(model)
    second = edit(model, REQUESTS[0])
    stack.apply(second)
    merged = stack.merged()
    assert all(same_bits(s.old, second.slices[n].old) for n, s in merged.slices.items())
    stack.revert(second)
    assert_same_bits(model, before)


def test_a_stack_refuses_rows_and_columns_of_one_matrix():
    model = nn.Linear(4, 4, bias=False)
    model.weight.data.zero_()
    row, column = (Slice(axis, torch.tensor([1]), torch.zeros(1, 4), torch.ones(1, 4), 4) for axis in (0, 1))
    stack = EditStack(model)
    stack.apply(WeightPatch({"weight": row}))
    with pytest.raises(PatchError, match=r"weight: one patch holds it in rows of .* another in columns"):
        stack.apply(WeightPatch({"weight": column}))
    assert model.weight.sum() == 4


def test_parameters_that_no_patch_can_hold():
    models = []
    for value in (0.0, 1.0):
        models.append(nn.Module())
        models[-1].scale = nn.Parameter(torch.tensor(value))
    with pytest.raises(PatchError, match="scale: a patch holds rows or columns"):
        WeightPatch.between(*models)
    assert not WeightPatch.between(models[0], models[0]).slices
    whole = WeightPatch({"weight": Slice(0, torch.tensor([1]), torch.zeros(1, 4), torch.ones(1, 4), 4)})
    with pytest.raises(PatchError, match="expected weight in memory, but it is offloaded"):
        whole.apply(nn.Linear(4, 4, bias=False, device="meta"))


@pytest.mark.parametrize("change", [{"ffn": 3}, {"ffn": {}}, {"requests": [{"a": 1}]}, {"requests": {}}])
def test_info_that_no_edit_writes(change, tmp_path):
    path = signed(tmp_path / "p.safetensors", one_slice(), axes='{"weight": [0, 4]}', info=json.dumps(change))
    for attempt in (lambda: WeightPatch.load(path), lambda: WeightPatch({}, change).save(path)):
        with pytest.raises(PatchError, match=f"info: {next(iter(change))} is not what an edit says"):
            attempt()


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    for new in (torch.full((1, 4), torch.nan), torch.ones(1, 4).to(torch.float8_e4m3fn)):
        s = Slice(0, torch.tensor([1]), torch.zeros_like(new), new, 4)
        with pytest.raises(PatchError, match=r"not finite|expected one float dtype"):
            WeightPatch({"weight": s}).save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())
