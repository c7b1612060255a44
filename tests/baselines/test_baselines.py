"""The other editors: this package's against EasyEdit's own, their identities, and what they leave behind."""

import contextlib
import copy
import dataclasses
import importlib
import inspect
import io

import pytest
import torch
import yaml

from easyedit_packe.baselines import BASELINES, baseline, shared_targets
from easyedit_packe.baselines.memit_family import prepared
from easyedit_packe.bench.session import seeded
from easyedit_packe.cache import cache_dir
from easyedit_packe.config.files import build, shipped_dir
from easyedit_packe.easyedit import bridged
from easyedit_packe.easyedit.bridge import needs_cuda
from easyedit_packe.easyedit.null_space import null_space
from easyedit_packe.easyedit.state import forget, fresh_state
from easyedit_packe.easyedit.statistics import compute_stats
from easyedit_packe.errors import EasyEditError, HyperParamsError, RequestError
from easyedit_packe.model.load import load
from easyedit_packe.registry import hparams_class, load_hparams, missing_editor
from easyedit_packe.requests import EditRequest, encode

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot

NAMES = ["ROME", "R-ROME", "MEMIT", "EMMET", "AlphaEdit", "PMET", "KN", "FT", "LoRA", "PRUNE", "RECT"]
FAMILY = ["MEMIT", "EMMET", "AlphaEdit", "PMET", "PRUNE", "RECT"]
ALL = [{**r, "ground_truth": "Oslo"} for r in REQUESTS]
MODULES = {
    "gptj": ("transformer.h.{}", "mlp.fc_out", "attn.out_proj", "transformer.ln_f", "lm_head", ["q_proj", "v_proj"]),
    "gpt2": ("transformer.h.{}", "mlp.c_proj", "attn.c_proj", "transformer.ln_f", "transformer.wte", ["c_attn"]),
    "llama": ("model.layers.{}", "mlp.down_proj", "self_attn.o_proj", "model.norm", "lm_head", ["q_proj", "v_proj"]),
}


def tiny(architecture="llama"):
    model = make_model(architecture)
    model.config._name_or_path = f"some/where/tiny-{architecture}"
    return model


@pytest.fixture(scope="module", autouse=True)
def cache(found, tmp_path_factory):
    """A cache of its own, with statistics of the tiny models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for architecture in MODULES:
            compute_stats(tiny(architecture), make_tokenizer(), tokens=2000, length=20)
        yield


def settings(name, architecture="llama", **changes):
    """The shipped configuration, on a tiny model's modules."""
    folders = {"FT": "FT-C", "ULTRAEDIT": "UltraEdit"}
    hparams = load_hparams(folders.get(name, name), "smollm2-135m")
    layer, mlp, attention, norm, head, adapted = MODULES[architecture]
    whole = {m: f"{layer}.{m.split('.')[0]}" for m in (mlp, attention)}
    values = {
        "device": "cpu", "model_name": "tiny", "layers": [1] if "ROME" in name else [0, 1], "v_num_grad_steps": 6,
        "v_loss_layer": 2, "nullspace_threshold": 0.5, "num_steps": 5, "rewrite_module_tmp": f"{layer}.{mlp}",
        "rewrite_module_tmps": [f"{layer}.{mlp}"], "layer_module_tmp": layer, "ln_f_module": norm,
        "mlp_module_tmp": f"{layer}.{mlp}" if name == "PMET" else whole[mlp],
        "attn_module_tmp": f"{layer}.{attention}" if name == "PMET" else whole[attention],
        "lm_head_module": head, "target_modules": adapted, "mom2_update_weight": 1.0, "n_iter": 10, "lr": 1e-2,
        "inner_params": _inner(name, layer, mlp), **changes,
    }  # fmt: skip
    for field in dataclasses.fields(hparams):
        if field.name in values:
            setattr(hparams, field.name, values[field.name])
    return hparams


def _inner(name, layer, mlp):
    """Where the newer editors edit, as each of them writes it."""
    if name == "ULTRAEDIT":
        return [f"{layer.format(i)}.{mlp}" for i in (0, 1)]
    stem, _, index = layer.format(1).rpartition(".")
    return [f"{stem}[{index}].{mlp}.weight"]


def quietly(apply, model, requests, hparams, tok=None, **kwargs):
    out = io.StringIO()
    with bridged(hparams), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        return apply(
            model, tok or make_tokenizer(), copy.deepcopy(requests), hparams, return_orig_weights=True, **kwargs
        )


def by_name(name, model, requests, hparams, **kwargs):
    alg_dict = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
    return quietly(alg_dict[name], model, requests, hparams, **kwargs)


def edited(name, requests, hparams, architecture="llama"):
    return snapshot(by_name(name, tiny(architecture), requests, hparams)[0])


def largest_difference(a, b):
    return max(((a[n] - b[n]).abs().max() / a[n].abs().max()).item() for n in a)


@pytest.mark.parametrize("architecture", sorted(MODULES))
@pytest.mark.parametrize("name", NAMES)
def test_every_editor_edits_and_can_be_taken_back(name, architecture):
    model, tok = tiny(architecture), make_tokenizer("left")
    before, hooks = snapshot(model), sum(len(m._forward_hooks) for m in model.modules())
    model.get_input_embeddings().weight.grad = gradient = torch.ones_like(model.get_input_embeddings().weight)
    with fresh_state():
        changed, originals = by_name(
            name, model, ALL[:1], settings(name, architecture), tok=tok, keep_original_weight=needs_cuda()
        )  # without it the PyPI release gives no originals, as `register` knows
    assert tok.padding_side == "left"
    if name == "LoRA":
        changed.unload()
    elif name == "KN":
        assert any(not torch.equal(v, before[n]) for n, v in model.state_dict().items())
        with torch.no_grad():
            originals()
    else:
        assert {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])} == set(originals)
        assert originals
        for parameter, value in originals.items():
            model.get_parameter(parameter).data.copy_(value)
    assert_same_bits(model, before)
    assert all(p.requires_grad for p in model.parameters())
    assert [p.grad for p in model.parameters() if p.grad is not None] == [gradient]
    assert sum(len(m._forward_hooks) for m in model.modules()) == hooks


@pytest.mark.parametrize("name", ["AlphaEdit", "EMMET", "R-ROME", "PMET"])
def test_same_weights_as_easyedits_own(name):
    alg_dict = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
    if "easyedit_packe" in alg_dict[name].__module__:
        pytest.skip("this EasyEdit has no such editor")
    apply, cls = baseline(name)
    theirs, ours = settings(name), cls(**{f.name: getattr(settings(name), f.name) for f in dataclasses.fields(cls)
                                          if hasattr(settings(name), f.name)})  # fmt: skip
    results = []
    for function, hparams in ((alg_dict[name], theirs), (apply, ours)):
        model = tiny()
        with fresh_state():
            quietly(function, model, ALL[:1] if name == "R-ROME" else ALL[:2], hparams)
            first = snapshot(model)
            quietly(function, model, ALL[2:], hparams)
        results.append((first, snapshot(model)))
    (their_first, their_second), (our_first, our_second) = results
    assert largest_difference(their_first, snapshot(tiny())) > 1e-3
    assert largest_difference(their_first, our_first) < 1e-5
    assert largest_difference(their_second, our_second) < 1e-4


def test_lora_trains_what_easyedits_own_trains():
    theirs = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT["LoRA"]
    if "easyedit_packe" in theirs.__module__:
        pytest.skip("this EasyEdit has none that runs")
    tok = make_tokenizer("left")
    tok.add_special_tokens({"pad_token": "<pad>"})
    logits = []
    for apply in (theirs, baseline("LoRA")[0]):
        model = make_model("llama", vocab_size=len(tok))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            changed, _ = quietly(apply, model, ALL[:2], settings("LoRA", batch_size=2), tok=tok)
        logits.append(changed(torch.tensor([[3, 4, 5]])).logits)
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits[0], make_model("llama", vocab_size=len(tok))(torch.tensor([[3, 4, 5]])).logits)


def test_rect_keeps_the_largest_relative_changes():
    from easyedit_packe.baselines.rect import largest_changes

    weight = torch.tensor([[1.0, 10.0, 0.1], [2.0, -4.0, 5.0]])
    update = torch.tensor([[0.5, 1.0, 0.01], [-1.8, 2.0, 0.0]])
    # |update / weight| is 0.5, 0.1, 0.1, 0.9, 0.5, 0.
    assert torch.equal(largest_changes(update, weight, 0.5), torch.tensor([[0.5, 0, 0], [-1.8, 2.0, 0]]))
    assert torch.equal(largest_changes(update, weight, 1.0), update)
    with fresh_state():
        memit, rect, base = edited("MEMIT", ALL, settings("MEMIT")), edited("RECT", ALL, settings("RECT")), tiny()
    for name, w in base.named_parameters():
        moved = rect[name] != w
        if moved.any():
            assert moved.sum() == round(0.4 * w.numel())
            torch.testing.assert_close(rect[name][moved], memit[name][moved])
            ratio = ((memit[name] - w) / w).abs()
            assert ratio[moved].min() >= ratio[~moved].max()


def test_prune_holds_back_singular_values_above_the_weights_largest():
    from easyedit_packe.baselines.prune import restrained

    weight = torch.diag(torch.tensor([4.0, 1.0, 0.5]))
    update = torch.diag(torch.tensor([8.0, 4.0, 2.0]))
    # ln(8 / 4) + 4; the others are not above 4
    torch.testing.assert_close(restrained(update, weight, torch.e), torch.diag(torch.tensor([4.693147, 4.0, 2.0])))
    base_2 = restrained(update, weight, 2.0)
    torch.testing.assert_close(base_2, torch.diag(torch.tensor([5.0, 4.0, 2.0])))
    small = torch.randn(3, 3) * 0.1
    assert restrained(small, weight, torch.e) is small


def test_prune_restrains_the_sum_of_consecutive_updates_once():
    from easyedit_packe.baselines.prune import restrained

    hparams = settings("PRUNE", v_lr=2.0, clamp_norm_factor=100.0)  # large enough to be held back
    memit_settings = settings("MEMIT", v_lr=2.0, clamp_norm_factor=100.0)
    with fresh_state():
        unrestrained, pruned, base = tiny(), tiny(), tiny()
        for request in ALL:
            by_name("MEMIT", unrestrained, [request], memit_settings)
            by_name("PRUNE", pruned, [request], hparams)
        held = 0
        for (name, w0), w, now in zip(
            base.named_parameters(), unrestrained.parameters(), pruned.parameters(), strict=True
        ):
            if w.ndim < 2:
                continue
            expected = w0 + restrained(w - w0, w0, torch.e)
            held += not torch.allclose(expected, w, atol=1e-3)
            torch.testing.assert_close(now, expected, rtol=1e-4, atol=1e-4, msg=name)
        assert held
        # A rolled-back model begins anew, with and without being told.
        once = edited("PRUNE", ALL[:1], hparams)
        forget("PRUNE")
        assert largest_difference(once, edited("PRUNE", ALL[:1], hparams)) == 0


@pytest.mark.parametrize("name", FAMILY)
def test_independent_edits_leave_no_trace(name):
    hparams = settings(name)
    with fresh_state():
        first = edited(name, ALL[:1], hparams)
        edited(name, ALL[1:], hparams)
        forget(name)
        assert largest_difference(first, edited(name, ALL[:1], hparams)) == 0
    with fresh_state():
        assert largest_difference(first, edited(name, ALL[:1], hparams)) == 0


@pytest.mark.parametrize("name", ["AlphaEdit", "SPHERE"])
def test_the_keys_of_edits_that_stay_are_remembered_and_no_others(name):
    if missing_editor(name):
        pytest.skip("this EasyEdit does not have it")
    hparams, second = settings(name), {}
    with fresh_state():
        first = edited(name, ALL[:1], hparams)
        assert largest_difference(first, edited(name, ALL[:1], hparams)) == 0  # of another model, which was not edited
    for between in (lambda: None, lambda: forget(name)):
        with fresh_state():
            model = tiny()
            by_name(name, model, ALL[:1], hparams)
            between()
            second[between] = snapshot(by_name(name, model, ALL[1:2], hparams)[0])
    assert largest_difference(*second.values()) > 0


def test_a_run_on_another_model_leaves_no_projection_behind():
    hparams, other = settings("AlphaEdit"), make_model("llama", seed=1)
    other.config._name_or_path = "some/where/tiny-other"
    compute_stats(other, make_tokenizer(), tokens=2000, length=20)

    def of_other():
        forget("AlphaEdit")
        return snapshot(by_name("AlphaEdit", copy.deepcopy(other), ALL[:1], hparams)[0])

    expected = of_other()
    forget("AlphaEdit")
    edited("AlphaEdit", ALL[:1], hparams)
    with fresh_state():
        of_other()
    assert largest_difference(expected, of_other()) == 0


def test_alphaedit_with_a_file_that_is_not_there_and_in_half_precision(caplog):
    by_default = edited("AlphaEdit", ALL[:1], settings("AlphaEdit"))
    assert not caplog.text
    assert largest_difference(by_default, edited("AlphaEdit", ALL[:1], settings("AlphaEdit", P_loc="./none.pt"))) == 0
    assert "P_loc: there is no file ./none.pt" in caplog.text
    model = tiny().to(torch.bfloat16)
    before = snapshot(model)
    by_name("AlphaEdit", model, ALL[:1], settings("AlphaEdit"))
    assert largest_difference(before, snapshot(model)) > 0


@pytest.mark.parametrize("held", [torch.zeros(1, 4, 4), torch.zeros(3), {"P": torch.zeros(3)}, b"no tensor at all"])
def test_alphaedit_with_a_file_of_something_else(tmp_path, held):
    file = tmp_path / "P.pt"
    file.write_bytes(held) if isinstance(held, bytes) else torch.save(held, file)
    with pytest.raises(HyperParamsError, match="P_loc: expected"):
        edited("AlphaEdit", ALL[:1], settings("AlphaEdit", P_loc=str(file)))


def test_alphaedit_writes_its_projection_to_the_cache_and_edits_inside_it(cache, tmp_path):
    from easyedit_packe.easyedit.null_space import projection_file

    hparams, model = settings("AlphaEdit"), tiny()
    with fresh_state():
        after = edited("AlphaEdit", ALL[:1], hparams)
    assert not list(tmp_path.glob("*.pt"))
    stats_hparams = copy.copy(hparams)
    stats_hparams.stats_dir = None
    projections = torch.load(projection_file(model, stats_hparams), weights_only=True)
    assert 0 < torch.linalg.matrix_rank(projections[0]) < len(projections[0])
    for layer, p in zip(hparams.layers, projections, strict=True):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        update = after[name] - model.get_parameter(name)
        torch.testing.assert_close(update @ p, update, rtol=1e-3, atol=1e-4)


def test_null_space_of_a_matrix_by_hand():
    p = null_space(torch.diag(torch.tensor([5.0, 0.1, 0.3])), 0.2)
    torch.testing.assert_close(p, torch.diag(torch.tensor([0.0, 1.0, 0.0])))


def kept_in(store):
    def found_or_computed(key, compute):
        if key not in store:
            store[key] = compute()
        return store[key]

    return found_or_computed


@pytest.mark.parametrize("name", [*FAMILY, "ROME", "R-ROME"])
def test_shared_targets_change_nothing(name):
    hparams, store = settings(name), {}
    with fresh_state():
        plain = edited(name, ALL[:1], hparams)
        forget(name)
        with shared_targets(kept_in(store)):
            fresh = edited(name, ALL[:1], hparams)
            forget(name)
            again = edited(name, ALL[:1], hparams)
    assert largest_difference(plain, fresh) == 0
    assert largest_difference(plain, again) == 0
    assert len(store) == (0 if name == "R-ROME" and "packe" not in _module_of("R-ROME") else 1)


def _apply(name):
    return importlib.import_module("easyeditor.util.alg_dict").ALG_DICT[name]


def _module_of(name):
    return _apply(name).__module__


def test_one_search_serves_the_family_and_other_settings_search_again():
    store = {}
    with fresh_state(), shared_targets(kept_in(store)):
        for name in ("MEMIT", "EMMET", "AlphaEdit", "PRUNE", "RECT"):
            edited(name, ALL[:1], settings(name))
        assert len(store) == 1
        edited("MEMIT", ALL[:1], settings("MEMIT", v_lr=0.2))
        edited("MEMIT", ALL[:1], settings("MEMIT", layers=[0]))
        edited("MEMIT", ALL[1:2], settings("MEMIT"))
        assert len(store) == 4


def test_another_release_of_easyedit_searches_again(monkeypatch):
    """Both share a cache, and their searches differ."""
    store = {}
    with fresh_state():
        for code in ("of the one", "of the other"):
            monkeypatch.setattr(inspect, "getsource", lambda _, code=code: code)
            with shared_targets(kept_in(store)):
                edited("MEMIT", ALL[:1], settings("MEMIT"))
    assert len(store) == 2


def test_prefixes_are_the_same_for_all_and_the_random_state_is_kept():
    state = torch.get_rng_state()
    seen = []
    for _ in range(2):
        with fresh_state(seed=5):
            memit = importlib.import_module("easyeditor.models.memit.memit_main")
            with contextlib.redirect_stdout(io.StringIO()):
                seen.append(memit.get_context_templates(tiny(), make_tokenizer()))
            torch.rand(3)
            torch.set_rng_state(state)
    assert seen[0] == seen[1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["MEMIT", "ROME"])
def test_easyedit_finds_the_statistics_and_never_downloads(name, monkeypatch):
    hparams = settings(name, mom2_adjustment=True)
    with fresh_state():
        edited(name, ALL[:1], hparams)  # `bridged` raises where it would download
    hparams.mom2_n_samples = 7
    with fresh_state(), pytest.raises(EasyEditError, match=r"packe stats --model tiny --layers"):
        edited(name, ALL[:1], hparams)


def test_layer_stats_itself_reads_the_file(monkeypatch, cache):
    from easyedit_packe.easyedit.host import host
    from easyedit_packe.easyedit.statistics import load_moment, stats_dir, stats_files

    module = host("models.rome.layer_stats")
    monkeypatch.setattr(module, "load_dataset", lambda *_, **__: pytest.fail("it downloads"))
    name = "model.layers.1.mlp.down_proj"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stat = module.layer_stats(
            tiny(), make_tokenizer(), name, str(stats_dir()), "wikipedia", ["mom2"], sample_size=100_000,
            precision="float32",
        )  # fmt: skip
    torch.testing.assert_close(stat.mom2.moment(), load_moment(stats_files(tiny(), name)[0]))


def test_a_layers_output_is_changed_in_every_sequence(found):
    """What EasyEdit's `compute_z` does; with the PyPI release, `output[0]` was the first sequence."""
    from easyedit_packe.easyedit.host import host

    nethook = host("util.nethook")
    model, ids = tiny(), torch.tensor([[3, 4, 5], [6, 7, 8]])

    def add(output, layer):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden[1, 2, :] += 10
        return output

    before = model(ids).logits
    with torch.no_grad(), bridged(settings("MEMIT")):
        with nethook.TraceDict(model, ["model.layers.1"], edit_output=add) as trace:
            after = model(ids).logits
        output = trace["model.layers.1"].output
        assert (output[0] if isinstance(output, tuple) else output).shape == (2, 3, 16)
    same = torch.isclose(before, after).all(-1)
    assert same.tolist() == [[True, True, True], [True, True, False]]


def test_wrong_requests_and_settings():
    with fresh_state():
        for name in ("RECT", "EMMET", "R-ROME"):
            if "easyedit_packe" in _module_of(name) and name != "RECT":
                with pytest.raises(RequestError, match="expected a subject that is part of the prompt"):
                    edited(name, [{**ALL[0], "subject": "Nobody"}], settings(name))
    with pytest.raises(HyperParamsError, match="did you mean 'rect_fraction'"):
        build(hparams_class("RECT"), {"rect_fractoin": 1}, "a.yaml")


def test_names(found):
    for name in NAMES:
        assert dataclasses.is_dataclass(hparams_class(name))
        assert hparams_class(name) is hparams_class(name)
    with pytest.raises(EasyEditError, match="did you mean 'PRUNE'"):
        hparams_class("PRUNEE")
    batchable = importlib.import_module("easyeditor.editors.batch_editor").BatchEditor.is_batchable_method
    assert [n for n in NAMES if batchable(n)] == [*FAMILY[:4], "FT", "LoRA", "PRUNE", "RECT"]
    alg_dict = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
    assert set(BASELINES) <= set(alg_dict)


@pytest.mark.parametrize("path", sorted(shipped_dir().glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_shipped_configuration_is_read_by_its_class(path):
    config = yaml.safe_load(path.read_text())
    if missing_editor(config["alg_name"]):
        pytest.skip("the installed EasyEdit has no such editor")
    hparams = load_hparams(path.parent.name, path.stem)
    assert type(hparams) is hparams_class(config["alg_name"])
    for key, value in config.items():
        if hasattr(hparams, key) and isinstance(value, bool | int | list | type(None)):
            assert getattr(hparams, key) == value
        if isinstance(getattr(hparams, key, None), float):
            assert getattr(hparams, key) == float(value)
    if path.parent.name not in ("PaCKE", "FT-C", "KN", "ROME", "MEMIT", "SimIE") and path.stem != "gpt2-xl":
        assert type(type(hparams).from_hparams(str(path))) is type(hparams)


DEFAULT_MODEL_DIR = cache_dir() / "models" / "smollm2-135m"  # before the tests' own cache takes its place


@pytest.mark.slow
@pytest.mark.skipif(not DEFAULT_MODEL_DIR.is_dir(), reason="packe model fetch smollm2-135m has not been run")
def test_r_rome_on_the_default_model():
    model, tok = load(str(DEFAULT_MODEL_DIR))
    fact = {"prompt": "The Eiffel Tower is in", "subject": "Eiffel Tower", "target_new": "Rome"}
    (e,) = encode(tok, [EditRequest(fact["prompt"], fact["target_new"])])

    def log_likelihood():
        with torch.no_grad():
            logits = model(e.ids[None]).logits[0, e.answer_start - 1 : -1].log_softmax(-1)
        return logits.gather(1, e.answer[:, None]).sum()

    name, before, results = "model.layers.5.mlp.down_proj.weight", log_likelihood(), []
    for apply in {baseline("R-ROME")[0], _apply("R-ROME")}:  # one and the same where EasyEdit has none
        hparams = load_hparams("R-ROME", "smollm2-135m")
        hparams.layers, hparams.mom2_adjustment, hparams.v_num_grad_steps, hparams.device = [5], False, 3, "cpu"
        hparams.v_lr, hparams.context_template_length_params = 1.0, [[5, 5]]
        with fresh_state():
            _, originals = quietly(apply, model, [fact], hparams, tok=tok, keep_original_weight=True)
        results.append(model.get_parameter(name).detach().clone())
        assert log_likelihood() > before + 1
        model.get_parameter(name).data.copy_(originals[name])
    assert (results[0] - results[-1]).abs().max() < 1e-5


@pytest.fixture(scope="module")
def default_model(tmp_path_factory):
    """SmolLM2-135M with statistics of one layer from a short text: enough to compare, not to edit well."""
    model, tok = load(str(DEFAULT_MODEL_DIR))
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("\n\n".join(p.read_text() for p in sorted((shipped_dir().parent).glob("*.md"))))
    compute_stats(model, tok, text, [5], tokens=3000, length=64)
    return model, tok


@pytest.mark.slow
@pytest.mark.skipif(not DEFAULT_MODEL_DIR.is_dir(), reason="packe model fetch smollm2-135m has not been run")
@pytest.mark.parametrize("name", ["AlphaEdit", "EMMET", "PMET"])
def test_same_weights_as_easyedits_own_on_the_default_model(name, default_model):
    """Relative difference of the changes below 1e-3: both sum in float32, and solve systems of 1536 unknowns."""
    model, tok = default_model
    theirs = _apply(name)
    if "easyedit_packe" in theirs.__module__:
        pytest.skip("this EasyEdit has no such editor")
    fact = {
        "prompt": "The Eiffel Tower is in",
        "subject": "Eiffel Tower",
        "target_new": "Rome",
        "ground_truth": "Paris",
    }
    before, changes = snapshot(model), []
    apply, cls = baseline(name)
    for function in (theirs, apply):
        shipped = load_hparams(name, "smollm2-135m")
        values = {f.name: getattr(shipped, f.name) for f in dataclasses.fields(cls) if hasattr(shipped, f.name)}
        hparams = shipped if function is theirs else cls(**values)
        hparams.layers, hparams.v_num_grad_steps, hparams.device = [5], 2, "cpu"
        hparams.model_name = str(DEFAULT_MODEL_DIR)
        with fresh_state():
            quietly(function, model, [fact], hparams, tok=tok)
        changes.append({n: v - before[n] for n, v in model.state_dict().items() if not torch.equal(v, before[n])})
        model.load_state_dict(before)
    assert changes[0].keys() == changes[1].keys() != set()
    for n, change in changes[0].items():
        assert (change - changes[1][n]).norm() < 1e-3 * change.norm()


@pytest.mark.parametrize("name", NAMES)
def test_through_easyedits_own_editor(name, editor_of):
    """Each edit is rolled back, and the next one does not depend on it."""
    editor = editor_of(settings(name), name="tiny")
    editor.model.config._name_or_path = "some/where/tiny-llama"
    before, apply, changed = snapshot(editor.model), editor.apply_algo, []

    def watched(*args, **kwargs):
        model, originals = apply(*args, **kwargs)
        changed.append(snapshot(model))
        return model, originals

    editor.apply_algo = watched
    for _ in range(2):
        with seeded(0):  # of LoRA's first values
            metrics, _, _ = editor.edit(
                prompts=[ALL[0]["prompt"]], target_new=[ALL[0]["target_new"]], ground_truth=["Oslo"],
                subject=[ALL[0]["subject"]], verbose=False,
            )  # fmt: skip
        assert_same_bits(editor.model, before)
        assert "rewrite_acc" in metrics[0]["post"]
    assert largest_difference(*changed) == 0
    assert any(not torch.equal(changed[0][n], before[n]) for n in before if n in changed[0]) or name == "LoRA"


def test_what_is_not_shipped_here_comes_from_the_checkout(found):
    if not (found.root / "hparams" / "MEMIT" / "gpt-j-6B.yaml").is_file():
        pytest.skip("this EasyEdit ships no configurations")
    assert load_hparams("MEMIT", "gpt-j-6B").layers == [3, 4, 5, 6, 7, 8]
    with pytest.raises(HyperParamsError, match="no configuration 'gpt-j-7B' for MEMIT"):
        load_hparams("MEMIT", "gpt-j-7B")


def test_a_subject_that_stands_twice_gets_one_place():
    (request,) = prepared([{"prompt": "Anna wrote of Anna in", "subject": "Anna", "target_new": "Paris"}])
    assert request["prompt"] == "Anna wrote of {} in"


@pytest.mark.parametrize("name", sorted({*NAMES} - {"KN"}))
def test_a_subject_of_a_few_letters_is_found_in_no_other_words(name):
    """QAEdit has the subject "i"; its letters in other words are no places of it."""
    tok = make_tokenizer()
    asked = {"prompt": "i was born in", "subject": "i", "target_new": "Oslo", "ground_truth": "Bergen"}
    model = tiny()
    before = snapshot(model)
    with fresh_state():
        if name == "AlphaEdit" and not needs_cuda():  # HEAD's own
            with pytest.raises(RequestError, match="expected a subject that stands once in the prompt, got 'i'"):
                by_name(name, model, [asked], settings(name), tok=tok)
            return
        by_name(name, model, [asked], settings(name), tok=tok)
    assert name == "LoRA" or largest_difference(before, snapshot(model)) > 0
