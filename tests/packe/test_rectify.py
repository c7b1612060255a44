"""Slices give what the dense masked method gives: same nodes, same losses, same weights."""

import copy
import itertools

import pytest
import torch

from easyedit_packe import WeightPatch, compute_patch
from easyedit_packe.config.packe import PaCKEHyperParams
from easyedit_packe.errors import ModelError
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.packe.rectify import rectify
from easyedit_packe.requests import encode, read_requests

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from ..dense import DenseEditor

SMALL = {"num_critical_paths": 4, "num_negative_paths": 2, "lr": 1e-2, "num_steps": 5, "edit_batch_size": 2}


def both(architecture, requests=REQUESTS, layers=3, **settings):
    hp = PaCKEHyperParams(**{**SMALL, **settings})
    model = make_model(architecture, torch.float64, layers=layers)
    encoded = encode(make_tokenizer(), read_requests(requests))
    before = snapshot(model)
    result = rectify(model, FFNMap.of(model), encoded, hp)
    assert_same_bits(model, before)
    dense = DenseEditor(copy.deepcopy(model), encoded, hp).run()
    result.patch.apply(model)
    return model, result, dense


def assert_same(model, result, dense):
    assert len(result.nodes) == len(dense.nodes)
    for ours, (critical, negative) in zip(result.nodes, dense.nodes, strict=True):
        for name in critical:
            assert ours.critical[name].tolist() == critical[name].tolist(), name
            assert ours.negative[name].tolist() == negative[name].tolist(), name
    torch.testing.assert_close(torch.tensor(result.losses), torch.tensor(dense.losses), rtol=1e-6, atol=1e-7)
    for (name, p), q in zip(model.named_parameters(), dense.model.parameters(), strict=True):
        # GPT-J computes attention in float32 whatever the model's dtype, and padding changes its rounding.
        atol = 1e-6 if model.config.model_type == "gptj" else 1e-10
        torch.testing.assert_close(p.data, q.data, rtol=0, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("score", ["zscore", "gradient_sum", "gradient_norm"])
def test_paper_side_equals_dense(architecture, score):
    if score == "gradient_sum" and architecture.startswith("gpt"):
        pytest.skip("the signed sum of a value node is zero under LayerNorm, see test_tracing.py")
    assert_same(*both(architecture, score=score))


@pytest.mark.parametrize(
    ("step", "state", "bias"),
    itertools.product(["joint", "separate"], ["fresh", "carried"], ["frozen", "trained"]),
)
def test_both_sides_with_retracing_equal_dense(architecture, step, state, bias):
    assert_same(*both(architecture, contrast_step=step, optimizer_state=state, value_bias=bias, retrace_every=2))


@pytest.mark.parametrize(
    "settings",
    [
        {"contrast_weight": 0},
        {"contrast_weight": 0, "num_negative_paths": 0},
        {"weight_decay": 0.1, "optimizer_state": "carried"},
        {"micro_batch_size": 1},
        {"micro_batch_size": 1, "trace_matrices": 4, "retrace_every": 3},
        {"edit_batch_size": 0},
        {"edit_batch_size": 1},
        {"batch_terms": False},
        {"edit_batch_size": 0, "reuse_trace": False},
        {"edit_batch_size": 0, "retrace_every": 2, "optimizer_state": "carried"},
        {"edit_batch_size": 0, "retrace_every": 1, "contrast_step": "separate", "value_bias": "trained"},
    ],
    ids=str,
)
def test_options_equal_dense(architecture, settings):
    assert_same(*both(architecture, **settings))


def test_one_request_equals_dense(architecture):
    assert_same(*both(architecture, requests=REQUESTS[2:]))


def test_untouched_weights_never_move(architecture):
    model = make_model(architecture)
    before = snapshot(model)
    encoded = encode(make_tokenizer(), read_requests(REQUESTS))
    patch = rectify(model, FFNMap.of(model), encoded, PaCKEHyperParams(**SMALL)).patch
    patch.apply(model)
    for name, after in model.state_dict().items():
        if name not in patch.slices:
            assert torch.equal(after, before[name]), name
            continue
        s = patch.slices[name]
        others = torch.ones(after.shape[s.axis], dtype=torch.bool)
        others[s.index] = False
        keep = others.nonzero().squeeze(1)
        assert torch.equal(after.index_select(s.axis, keep), before[name].index_select(s.axis, keep)), name
        assert not torch.equal(after, before[name]), name


def test_the_first_term_falls(architecture):
    model = make_model(architecture)
    encoded = encode(make_tokenizer(), read_requests(REQUESTS[:1]))
    hp = PaCKEHyperParams(**{**SMALL, "num_steps": 30})
    losses = rectify(model, FFNMap.of(model), encoded, hp).losses
    assert losses[-1] < 0.2 * losses[0]


def test_threshold_stops_early():
    model = make_model("llama")
    encoded = encode(make_tokenizer(), read_requests(REQUESTS[:1]))
    ffn = FFNMap.of(model)
    full = rectify(model, ffn, encoded, PaCKEHyperParams(**{**SMALL, "num_steps": 30})).losses
    threshold = full[10] * 1.0001
    stopped = rectify(model, ffn, encoded, PaCKEHyperParams(**{**SMALL, "num_steps": 30, "loss_threshold": threshold}))
    assert len(stopped.losses) == next(i for i, x in enumerate(full) if x < threshold) + 1
    stopped.patch.apply(model)  # the last step was not taken: the edit has the loss that ended it
    again = rectify(model, ffn, encoded, PaCKEHyperParams(**{**SMALL, "num_steps": 1}))
    assert again.losses[0] == pytest.approx(stopped.losses[-1], rel=1e-4)


def test_shuffle_depends_on_the_seed_alone():
    model = make_model("llama")
    encoded = encode(make_tokenizer(), read_requests(REQUESTS))
    ffn = FFNMap.of(model)

    def weights(seed, noise):
        torch.manual_seed(noise)
        hp = PaCKEHyperParams(**{**SMALL, "shuffle": True, "seed": seed, "edit_batch_size": 1})
        return rectify(model, ffn, encoded, hp).patch.slices["model.layers.0.mlp.up_proj.weight"].new

    assert torch.equal(weights(1, 0), weights(1, 5))
    assert not torch.equal(weights(1, 0), weights(2, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_trained_in_float32(architecture, dtype):
    """The edit of a half-precision model is the float32 edit up to the rounding of its forward pass."""
    half, full = make_model(architecture, dtype), make_model(architecture)
    encoded = encode(make_tokenizer(), read_requests(REQUESTS[:1]))
    hp = PaCKEHyperParams(**{**SMALL, "num_steps": 20, "lr": 1e-2})
    ours = rectify(half, FFNMap.of(half), encoded, hp)
    reference = rectify(full, FFNMap.of(full), encoded, hp)
    assert all(s.new.dtype == dtype for s in ours.patch.slices.values())
    assert ours.losses[0] == pytest.approx(reference.losses[0], rel=0.05)
    assert ours.losses[-1] < 0.3 * ours.losses[0]


def test_more_nodes_than_the_model_has():
    model = make_model("llama")
    encoded = encode(make_tokenizer(), read_requests(REQUESTS[:1]))
    with pytest.raises(ModelError, match="at most the model's 24 nodes"):
        rectify(model, FFNMap.of(model), encoded, PaCKEHyperParams(num_critical_paths=23, num_negative_paths=2))
    with pytest.raises(ModelError, match="at most the model's 24 nodes"):
        rectify(model, FFNMap.of(model), encoded, PaCKEHyperParams(num_critical_paths=25))


@pytest.mark.parametrize("size", [0, 2], ids=["traced with the first step", "traced apart"])
def test_all_nodes_are_the_feed_forward_blocks_whole(size):
    """What T+ leaves nothing for is not trained: the same as the dense method on all nodes without a second term."""
    whole = {"num_critical_paths": 24, "edit_batch_size": size}
    alone = both("llama", **whole, contrast_weight=0, num_negative_paths=0)
    assert_same(*alone)
    model = make_model("llama", torch.float64)
    encoded = encode(make_tokenizer(), read_requests(REQUESTS))
    patch = rectify(model, FFNMap.of(model), encoded, PaCKEHyperParams(**{**SMALL, **whole})).patch
    patch.apply(model)
    assert_same_bits(model, snapshot(alone[0]))
    assert all(len(s.index) == 24 for s in patch.slices.values())


def test_no_node_leaves_the_model_as_it_is(tmp_path):
    """|T+| = 0: T- alone would still move, towards what the model says anyway."""
    model = make_model("llama")
    before = snapshot(model)
    patch = compute_patch(model, make_tokenizer(), REQUESTS, PaCKEHyperParams(num_critical_paths=0, lr=1.0))
    WeightPatch.load(patch.save(tmp_path / "p.safetensors")).apply(model)
    assert_same_bits(model, before)


def test_nan_weights_are_refused():
    model = make_model("llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    encoded = encode(make_tokenizer(), read_requests(REQUESTS[:1]))
    before = snapshot(model)
    with pytest.raises(ModelError, match="NaN"):
        rectify(model, FFNMap.of(model), encoded, PaCKEHyperParams(**SMALL))
    assert_same_bits(model, before)
