"""`packe reproduce`: runs that are launched, resumed and shown; a dry run, and that it asks no network."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.report import paper
from easyedit_packe.bench.reproduce import dry_run as dry
from easyedit_packe.bench.reproduce import launch, needs, plan, tables
from easyedit_packe.bench.reproduce.gpus import free_gpu
from easyedit_packe.bench.reproduce.models import configuration
from easyedit_packe.bench.reproduce.network import NetworkError, no_network
from easyedit_packe.bench.reproduce.parts import Part, parts
from easyedit_packe.bench.reproduce.plan import Item, LeftOut, Where
from easyedit_packe.bench.reproduce.tiny import make_data, make_model, make_tokenizer
from easyedit_packe.bench.runner import run
from easyedit_packe.errors import MissingPackageError, PaCKEError
from easyedit_packe.model.load import load

ROW = ("FT-C", "PaCKE")
SHORT = Part("table 2", "consecutive", ROW, ("zsre",), (2,), generation=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A Llama 3 of four layers and two facts in a folder of the model's name."""
    folder = tmp_path_factory.mktemp("world")
    config = configuration(Where("llama3-8b"))
    config.num_hidden_layers = 4
    make_model(config, folder / "llama3-8b")
    return folder, make_data(folder)


@pytest.fixture
def where(world, tmp_path, monkeypatch):
    folder, files = world
    shipped = plan.changes
    monkeypatch.setattr(plan, "changes", lambda *a: shipped(*a) | ({"layers": [2]} if a[0] == "FT-C" else {}))
    return Where("llama3-8b", str(folder / "llama3-8b"), files, str(tmp_path / "out"), device="cpu")


RUNS = [Item(SHORT, editor, "zsre", 2) for editor in ROW]


# --- a small model of a large one's kind ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layers", "begins"), [("gpt-j-6B", 28, False), ("llama-7b", 32, True)])
def test_a_small_model_has_all_layers_and_the_familys_tokeniser(tmp_path, name, layers, begins):
    make_model(configuration(Where(name)), tmp_path / name)
    model, tok = load(str(tmp_path / name))
    assert model.config.num_hidden_layers == layers
    assert model.config.hidden_size == 32
    assert model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    text = "Charles Dickens was born in Portsmouth, on the 7th of February."
    ids = tok(text)["input_ids"]
    assert (ids[0] == tok.bos_token_id) == begins
    assert tok.decode(ids, skip_special_tokens=True) == text
    assert torch.isfinite(model(torch.tensor([ids])).logits).all()


def test_grouped_heads_stay_grouped(world):
    model, _ = load(str(world[0] / "llama3-8b"))
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (4, 2)


def test_the_tokeniser_reads_any_text():
    tok = make_tokenizer("llama")
    assert tok.decode(tok("żółć 漢字 🙂")["input_ids"], skip_special_tokens=True) == "żółć 漢字 🙂"


def test_the_small_files_are_what_they_are_said_to_be(found, tmp_path):
    from easyedit_packe.bench.data import read_records

    files = make_data(tmp_path)
    for data, file in files.items():
        records = read_records(file, data)
        assert len(records) == 2
        assert all(r.subject in r.prompt and r.rephrases and r.neighbours for r in records)


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_done_is_not_started_again(found, where, monkeypatch):
    started = []
    monkeypatch.setattr(launch, "run", lambda s: started.append((s.editor, s.device)) or run(s))
    assert not any(item.is_done(where) for item in RUNS)
    assert launch.run_all(RUNS[:1], where) == []
    assert launch.run_all(RUNS, where) == []
    assert started == [("FT-C", "cpu"), ("PaCKE", "cpu")]
    assert launch.run_all(RUNS, where) == []
    assert len(started) == 2
    assert all(item.is_done(where) for item in RUNS)
    assert not Item(SHORT, "PaCKE", "zsre", 3).is_done(where)
    assert [p for p in os.listdir(where.out) if p.startswith(".sweep")] == []


def test_warnings_are_heard_during_a_run_and_after_it(found, where, monkeypatch, caplog):
    """Hydra's own way to be quiet would silence every logger there is, for good."""
    log = logging.getLogger("easyedit_packe.bench.session")
    monkeypatch.setattr(launch, "run", lambda s: log.warning("an editor refuses") or run(s))
    assert launch.run_all(RUNS[1:], where) == []
    log.warning("afterwards")
    assert [r.message for r in caplog.records if r.name == log.name] == ["an editor refuses", "afterwards"]


def test_a_run_that_fails_keeps_no_other_from_being_done(found, where, monkeypatch):
    def some(settings):
        if settings.editor == "FT-C":
            raise RuntimeError("out of memory")
        return run(settings)

    monkeypatch.setattr(launch, "run", some)
    assert launch.run_all(RUNS, where) == ["FT-C, zsre, consecutive: RuntimeError: out of memory"]
    assert [item.is_done(where) for item in RUNS] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_runs_go_to_processes_of_a_launcher(found, world, tmp_path, launcher):
    """Two at a time; PaCKE on both data sets."""
    pytest.importorskip(launch.PLUGINS[launcher])
    folder, files = world
    code = f"""
from easyedit_packe.bench.reproduce.launch import run_all
from easyedit_packe.bench.reproduce.parts import Part
from easyedit_packe.bench.reproduce.plan import Item, Where
part = Part("table 1", "batch", ("PaCKE",), ("zsre", "counterfact"), (2,), generation=False)
where = Where("llama3-8b", {str(folder / "llama3-8b")!r}, {files!r}, {str(tmp_path / "a, b's=out")!r})
runs = [Item(part, "PaCKE", data, 2) for data in part.data]
print("failed", run_all(runs, where, {launcher!r}, 2))
print("done", [item.is_done(where) for item in runs])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "failed []" in ran.stdout, ran.stderr[-2000:]
    assert "done [True, True]" in ran.stdout


def test_a_launcher_that_is_not_installed_says_what_to_install(monkeypatch):
    launch.check("basic", 1)
    monkeypatch.setitem(launch.PLUGINS, "joblib", "hydra_plugins.no_such_launcher")
    monkeypatch.setitem(launch.PLUGINS, "submitit_local", "no_such_parent.no_such_launcher")
    for name in ("joblib", "submitit_local"):
        with pytest.raises(MissingPackageError, match=r'pip install "easyedit-packe\[launchers\]"'):
            launch.check(name, 2)
    with pytest.raises(BenchError, match=r"--launcher: .*known: basic, joblib.*got 'slurm'"):
        launch.check("slurm", 1)
    with pytest.raises(BenchError, match=r"--jobs: expected 1 with the launcher basic, got 2; --launcher joblib"):
        launch.check("basic", 2)


def test_each_run_holds_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with free_gpu(["a", "b"]) as first, free_gpu(["a", "b"]) as second:
        assert (first, second) == ("0", "1")

        def freed(_):
            raise TimeoutError

        monkeypatch.setattr("time.sleep", freed)
        with pytest.raises(TimeoutError), free_gpu(["a", "b"]):  # it waits
            pass
    with free_gpu(["a", "b"]) as again:
        assert again == "0"
    with free_gpu([]) as none, free_gpu([]) as other:
        assert (none, other) == ("cpu", "cpu")


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ran(found, where):
    launch.run_all(RUNS, where)
    return where


def test_tables_have_the_papers_rows_and_figures_in_brackets(ran):
    short = Part("table 2", "consecutive", ("FT-C", "KN", "PaCKE"), ("zsre",), (2,), generation=False)
    left = [LeftOut(short, "KN", "no GPU is large enough")]
    text = tables.write_tables([short], left, RUNS, ran)
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines() if line.startswith("| ")}
    assert {"original", "FT-C", "KN", "PaCKE"} <= set(rows)
    theirs = paper.figures_of("llama3-8b", "consecutive", "KN", "zsre")
    by_rome = [cell.strip() for cell in rows["KN"]]  # the second of two tables, which the paper's figure is not of
    assert by_rome == [f"/ [≠ {float(theirs[m]):.2f}]" for m in ("efficacy", "locality", "generality", "score")]
    assert "- not run: KN: no GPU is large enough" in text
    folder = Path(ran.out) / "tables"
    assert (folder / "reproduce.md").read_text(encoding="utf-8") == text
    assert (folder / "report.md").stat().st_size > 500


def test_brackets_say_what_compares(ran):
    runs = {(item.editor, "zsre"): tables._run(item, ran) for item in RUNS}
    first = tables.main_table(SHORT, runs, "llama3-8b", "easyedit")
    theirs = paper.figures_of("llama3-8b", "consecutive", "PaCKE", "zsre")
    ours = json.loads((RUNS[1].settings(ran).folder / "cases.jsonl").read_text().splitlines()[0])["easyedit"]
    cell = first.set_index("editor").loc["PaCKE", "zsre efficacy"]
    assert cell.endswith(f" [{float(theirs['efficacy']):.2f}]")
    assert 0 <= ours["efficacy"] <= 1
    other = tables.main_table(SHORT, runs, "llama3-8b", "easyedit", same=False)
    assert "[≠ 94.03]" in other.set_index("editor").loc["PaCKE", "zsre efficacy"]
    assert "[≠ " in tables.main_table(SHORT, runs, "llama3-8b", "rome").set_index("editor").loc["PaCKE", "zsre score"]
    nothing = tables.main_table(SHORT, runs, "another model", "easyedit")
    assert "[" not in nothing.to_string()
    program = Part("table 2, program", "epochs", ("PaCKE",), ("zsre",), (2,))
    assert "[94.03]" in tables.main_table(program, {}, "llama3-8b", "easyedit").to_string()


def test_figure_3_is_seconds(found, where):
    timed = Part("figure 3", "single", ("FT-C",), ("zsre",), (1,), generation=False, share=False)
    item = Item(timed, "FT-C", "zsre", 1)
    launch.run_all([item], where)
    text = tables.write_tables([timed], [], [item], where)
    (row,) = [line for line in text.splitlines() if line.startswith("| FT-C")]
    assert float(row.split("|")[2]) > 0


# --- what is not here, and a dry run ----------------------------------------------------------------------------------


def test_what_is_missing_is_named_with_its_remedy(found, tmp_path, monkeypatch):
    monkeypatch.setenv("PACKE_CACHE", str(tmp_path / "cache"))
    some = [p for p in parts("llama3-8b") if p.name == "table 1"]
    some = [Part(**{**vars(p), "editors": ("PaCKE", "MEMIT")}) for p in some]
    said = {need.what: need.remedy for need in needs.missing(some, Where("llama3-8b"))}
    assert "give --weights" in said.pop("the weights of llama3-8b")
    assert said.pop("the data set zsre").startswith("give --zsre the file zsre_mend_eval.json")
    assert said.pop("the data set counterfact").startswith("give --counterfact the file counterfact-edit.json")
    assert said.pop("second moments of layers 4,5,6,7,8, for MEMIT") == (
        "packe stats --model WEIGHTS --layers 4,5,6,7,8 --corpus TEXT_FILE --tokens 1000000"
    )
    assert set(said) <= {"a GPU"}
    assert needs.blocking([needs.Need("a GPU", "")]) == []


def test_what_is_here_is_not_missing(found, world, where, tmp_path, monkeypatch):
    from easyedit_packe.easyedit.statistics import compute_stats

    monkeypatch.setenv("PACKE_CACHE", str(tmp_path / "cache"))
    model, tok = load(where.weights)
    compute_stats(model, tok, tokens=600, layers=[1])
    monkeypatch.setattr(needs, "hyper_parameters", lambda *_: SimpleNamespace(
        mom2_adjustment=True, layers=[1], rewrite_module_tmp="model.layers.{}.mlp.down_proj", stats_dir=None,
        mom2_n_samples=100_000, mom2_dtype="float32", mom2_dataset="wikipedia",
    ))  # fmt: skip
    assert needs.blocking(needs.missing([SHORT], where)) == []


def test_nothing_reaches_the_network():
    with no_network() as attempts, pytest.raises(NetworkError, match=r"expected no network in a dry run"):
        socket.create_connection(("127.0.0.1", 9))
    assert attempts
    with no_network() as attempts:
        with socket.socket() as s, pytest.raises(ConnectionError):
            s.connect(("192.0.2.1", 80))
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert attempts == ["('192.0.2.1', 80)"]
    assert "refuse" not in repr(socket.getaddrinfo)


def test_a_step_that_asks_the_network_fails_the_dry_run_even_where_the_error_is_swallowed(found, monkeypatch):
    def asks(*_):
        try:
            socket.create_connection(("example.org", 443))
        except OSError:
            return

    monkeypatch.setattr(dry, "hyper_parameters", asks)
    monkeypatch.setattr(dry, "make_model", lambda *_: (_ for _ in ()).throw(PaCKEError("no model today")))
    trials = dry.dry_run(Where("llama3-8b"), [SHORT], lambda _: None)
    assert [t.reason for t in trials] == [*["it tried to reach example.org"] * 2, "no model today"]


@pytest.mark.slow
def test_a_dry_run_tries_configurations_and_runs_and_leaves_nothing(found, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("PACKE_CACHE", str(cache))
    said, real = [], configuration(Where("llama3-8b"))
    wanted = Part("table 1", "batch", ("MEMIT", "PaCKE"), ("zsre",), (100,))
    real.num_hidden_layers = 10
    monkeypatch.setattr(dry, "configuration", lambda _: real)
    here = os.getcwd()
    trials = dry.dry_run(Where("llama3-8b"), [wanted], said.append)
    # MEMIT's file asks for the loss at layer 31, which a model of ten layers has not.
    assert [t.what for t in trials if t.reason] == ["table 1: MEMIT, zsre"]
    assert len(trials) == 2 + 1 + 1 + 2
    assert said == [str(t) for t in trials]
    assert (os.getcwd(), os.environ["PACKE_CACHE"]) == (here, str(cache))
    assert not cache.exists()
    assert os.listdir(here) in ([], ["cache"])
