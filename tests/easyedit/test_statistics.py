"""Second moments: the sum by hand, the files' names and notes, and nothing left behind."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from easyedit_packe.easyedit import statistics
from easyedit_packe.easyedit.statistics import compute_stats, find_stats, load_moment, sample_text, stats_files
from easyedit_packe.errors import EasyEditError, ModelError, RequestError
from easyedit_packe.model import kept

from ..conftest import ARCHITECTURES, REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot


def named(architecture):
    model = make_model(architecture)
    model.config._name_or_path = "some/where/tiny"
    return model


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"{r['prompt']} {r['target_new']}" for r in REQUESTS * 3))
    return path


def by_hand(model, ids, layer):
    seen = []
    name = {"gptj": "mlp.fc_out", "gpt2": "mlp.c_proj"}.get(model.config.model_type, "mlp.down_proj")
    blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    hook = blocks[layer].get_submodule(name).register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        for row in ids:
            model(row[None])
    hook.remove()
    k = torch.cat(seen, dim=1)[0].double()
    return k.T @ k / len(k)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_mean_of_outer_products_of_all_layers_in_one_pass(architecture, text, tmp_path):
    model, tok = named(architecture), make_tokenizer()
    before, state = snapshot(model), torch.get_rng_state()
    files = compute_stats(model, tok, text, [0, 2], length=5, batch_size=3, root=tmp_path / "stats")
    assert_same_bits(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad for p in model.parameters())
    assert not [m for m in model.modules() if m._forward_pre_hooks]
    ids = [i for line in text.read_text().splitlines() for i in tok(line)["input_ids"]]
    rows = torch.tensor(ids[: len(ids) // 5 * 5]).view(-1, 5)
    for layer, file in files.items():
        torch.testing.assert_close(load_moment(file).double(), by_hand(model, rows, layer), rtol=1e-4, atol=1e-5)
    note = json.loads(files[0].with_suffix(".json").read_text())
    assert (note["corpus"], note["tokens"]) == ("corpus.txt", rows.numel())


def test_both_releases_names(tmp_path, text):
    model = named("llama")
    files = compute_stats(model, make_tokenizer(), text, [1], length=5, root=tmp_path)
    both = stats_files(model, "model.layers.1.mlp.down_proj", tmp_path)
    assert [str(f.relative_to(tmp_path)) for f in both] == [
        f"{name}/wikipedia_stats/model.layers.1.mlp.down_proj_float32_mom2_100000.npz"
        for name in ("tiny", "some_where_tiny")
    ]
    assert files == {1: both[0]}
    assert both[0].samefile(both[1])
    with np.load(both[1]) as saved:
        assert int(saved["sample_size"]) == 100_000


def test_sampled_text_depends_on_the_seed_alone():
    model, tok = named("llama"), make_tokenizer()
    state = torch.get_rng_state()
    one, two, other = (sample_text(model, tok, 60, 6, 4, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.shape == (10, 6)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_models_text_is_sampled_once_for_all_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(kept, "LARGEST", 1000.0)  # a tiny model is smaller than its text
    model, tok = named("llama"), make_tokenizer()
    settings = {"tokens": 60, "length": 6, "batch_size": 4, "root": tmp_path}
    compute_stats(model, tok, "self", [0], **settings)
    with monkeypatch.context() as patch:
        patch.setattr(statistics, "sample_text", lambda *_: pytest.fail("sampled again"))
        files = compute_stats(model, tok, "self", [1], **settings)
    ids = sample_text(model, tok, 60, 6, 4, 0)
    torch.testing.assert_close(load_moment(files[1]).double(), by_hand(model, ids, 1), rtol=1e-4, atol=1e-6)


def test_errors_say_what_to_do(tmp_path, text):
    model, tok = named("llama"), make_tokenizer()
    with pytest.raises(RequestError, match="layers: expected some of 0 to 2"):
        compute_stats(model, tok, text, [3], root=tmp_path)
    with pytest.raises(RequestError, match="expected a text file or `self`"):
        compute_stats(model, tok, tmp_path / "none.txt", [0], root=tmp_path)
    with pytest.raises(RequestError, match="give a longer text"):
        compute_stats(model, tok, text, [0], length=1000, root=tmp_path)
    with pytest.raises(ModelError, match="_name_or_path is empty"):
        compute_stats(make_model("llama"), tok, text, [0], root=tmp_path)

    class hparams:
        alg_name, model_name, layers, stats_dir = "MEMIT", "tiny", [0, 1], str(tmp_path)
        mom2_n_samples, mom2_dtype, mom2_dataset = 100_000, "float32", "wikipedia"

    with pytest.raises(EasyEditError, match=r"packe stats --model tiny --layers 0,1 --corpus TEXT_FILE --stats-dir"):
        find_stats(model, "model.layers.0.mlp.down_proj", hparams)


def test_command(tmp_path, text, monkeypatch):
    import typer

    from easyedit_packe.cli import stats as stats_cli

    monkeypatch.setenv("PACKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("easyedit_packe.model.load.load", lambda name, dtype: (named("llama"), make_tokenizer()))
    app = typer.Typer()
    app.command()(stats_cli.stats)
    run = CliRunner().invoke(app, ["--corpus", "self", "--layers", "0,1", "--tokens", "300"])
    assert run.exit_code == 0, run.output
    assert len(list((tmp_path / "cache" / "stats" / "tiny").rglob("*.npz"))) == 2
    with pytest.raises(RequestError, match="numbers with commas"):
        app(["--layers", "one"], standalone_mode=False)


def test_a_file_that_is_not_whole_is_named_and_an_interrupted_one_leaves_the_old(tmp_path, text, monkeypatch):
    model, tok = named("llama"), make_tokenizer()
    file = compute_stats(model, tok, text, [0], length=20, root=tmp_path)[0]
    whole = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", lambda stream, **_: stream.write(whole[:100]) and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compute_stats(model, tok, text, [0], length=20, root=tmp_path)
    assert file.read_bytes() == whole
    file.write_bytes(whole[:100])
    with pytest.raises(EasyEditError, match=r"no whole statistics .* by `packe stats`"):
        load_moment(file)
