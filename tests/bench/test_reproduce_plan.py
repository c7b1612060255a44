"""`packe reproduce`: what is planned, counted by hand in the paper's tables; what it costs, computed by hand."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import pytest

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.reproduce import costs
from easyedit_packe.bench.reproduce.budget import choose
from easyedit_packe.bench.reproduce.costs import EDITORS, A, Cost, Pass, Work, cost, work_seconds
from easyedit_packe.bench.reproduce.machine import GPUS, Machine, machine
from easyedit_packe.bench.reproduce.models import KNOWN, Sizes, configuration, sizes
from easyedit_packe.bench.reproduce.parts import parts
from easyedit_packe.bench.reproduce.plan import Item, Where, hyper_parameters, items, planned
from easyedit_packe.bench.settings import Settings
from easyedit_packe.errors import FetchError, HyperParamsError

from ..docs.pages import quoted, table

ROW = ["FT-C", "ROME", "KN", "MEMIT", "PMET", "AlphaEdit", "LoRA", "EMMET", "R-ROME", "PaCKE"]
"""Table 2, from top to bottom."""
BATCH = ["FT-C", "ROME", "MEMIT", "PRUNE", "RECT", "AlphaEdit", "PaCKE"]
"""Table 1."""


def part(name, model="llama3-8b"):
    (found,) = [p for p in parts(model) if p.name == name]
    return found


@pytest.mark.parametrize(("model", "batch"), [("gpt-j-6B", True), ("llama-7b", False), ("llama3-8b", True)])
def test_parts_are_those_that_the_paper_has_of_the_model(model, batch):
    found = {p.name: p for p in parts(model)}
    assert list(found) == ["figure 3", *["table 1"] * batch, "table 2", "table 2, program"]
    assert sorted(found["table 2"].editors) == sorted(ROW)
    assert found["table 2"].sizes[-1] == 3000
    assert found["table 2, program"].editors == ("PaCKE",)
    assert all(p.data == ("zsre", "counterfact") for p in found.values())
    if batch:
        assert sorted(found["table 1"].editors) == sorted(BATCH)
        assert found["table 1"].sizes == (100,)


def test_a_model_that_is_not_in_the_paper_gets_all_of_it():
    assert [p.name for p in parts("qwen2.5-7b")] == [p.name for p in parts("llama3-8b")]
    assert sorted(part("table 1", "qwen2.5-7b").editors) == sorted(BATCH)


def files_of_easyedit(model):
    """Whether the installed EasyEdit has hyper-parameters of a large model: HEAD's checkout has, the wheel has none."""
    try:
        hyper_parameters("ROME", Where(model))
    except HyperParamsError:
        return False
    return True


def test_every_editor_of_the_paper_has_a_price():
    assert set(costs.EDITORS) == {*ROW, *BATCH}


def test_runs_of_the_papers_models(found):
    """Table 2 and figure 3 have ten editors on two data sets, the authors' program one; of table 1's seven ROME writes
    one fact at a time."""
    expected = {"figure 3": 20, "table 1": 12, "table 2": 20, "table 2, program": 2}
    for model in KNOWN:
        chosen, left = planned(Where(model))
        if not files_of_easyedit("llama3-8b"):
            assert all("PaCKE" in p.editors for p in chosen)
            continue  # it ships no files of these models for the others
        assert [len(items(p, p.sizes[-1])) for p in chosen] == [expected[p.name] for p in chosen]
        absent = [(gone.part.name, gone.editor) for gone in left]
        assert absent == ([] if model == "llama-7b" else [("table 1", "ROME")])


def test_a_run_is_one_of_packe_bench(found, tmp_path):
    where = Where("llama3-8b", "/models/x", {"zsre": "z.json"}, str(tmp_path), stats_dir="/stats", device="cpu")
    s = Item(part("table 2"), "MEMIT", "zsre", 3000).settings(where)
    assert dataclasses.asdict(s) == dataclasses.asdict(Settings()) | {
        "model": "/models/x", "data": "zsre", "data_dir": "z.json", "protocol": "consecutive", "editor": "MEMIT",
        "n": 3000, "checkpoint_every": 300, "hparams": {"stats_dir": "/stats"}, "hparams_file": "llama3-8b",
        "dtype": "float32", "device": "cpu", "out": str(tmp_path),
    }  # fmt: skip
    timed = Item(part("figure 3"), "PaCKE", "zsre", 10).settings(where)
    assert (timed.protocol, timed.share, timed.generation, timed.hparams) == ("single", False, False, {})


def test_what_is_wanted_is_checked(found):
    where = Where("llama3-8b")
    chosen, left = planned(where, ["table1"], ["pacKE", "rome"])
    assert [(p.name, p.editors) for p in chosen] == [("table 1", ("PaCKE",))]
    assert [(gone.editor, "one fact at a time" in gone.reason) for gone in left] == [("ROME", True)]
    with pytest.raises(BenchError, match=r"--parts: did you mean 'table1'.*got 'tabel1'"):
        planned(where, ["tabel1"])
    with pytest.raises(BenchError, match=r"--editors: .*got 'WISE', which the paper does not compare"):
        planned(where, (), ["WISE"])


# --- costs --------------------------------------------------------------------------------------------------------


def test_sizes_of_the_papers_models_are_the_published_ones():
    counted = {name: sizes(configuration(Where(name))) for name in KNOWN}
    assert counted["llama3-8b"].weights == 8_030_261_248
    assert counted["llama-7b"].weights == 6_738_415_616
    assert counted["gpt-j-6B"].weights == 6_050_882_784
    assert counted["llama3-8b"].used == 8_030_261_248 - 128256 * 4096
    assert [s.intermediate for s in counted.values()] == [16384, 11008, 14336]


def test_a_model_of_unknown_size_is_refused():
    with pytest.raises(FetchError, match=r"the size of 'qwen2.5-7b' is not known; give --weights a folder"):
        configuration(Where("qwen2.5-7b"))


SMALL = Sizes(layers=10, hidden=100, intermediate=400, vocabulary=1000, weights=2_000_000, used=1_000_000)
SLOW = Machine("slow", full=1e-6, half=2e-6, double=5e-7, bandwidth=1e-2, memory=1)
"""A million operations a second in float32, ten million bytes."""


def test_seconds_of_passes_by_hand():
    """600,000 operations and six million bytes a second are reached: 2 x 10^6 x 30 / 600,000 = 100 s to multiply, and
    4 x 10^6 / (6 x 10^6) = 2/3 s to read."""
    assert (A["COMPUTE"], A["READ"]) == (0.6, 0.6)
    assert work_seconds(Work((Pass(1, 30),)), SMALL, SLOW, "float32") == pytest.approx(100)
    assert work_seconds(Work((Pass(3, 30),)), SMALL, SLOW, "float32") == pytest.approx(300)
    assert work_seconds(Work((Pass(1, 30),)), SMALL, SLOW, "bfloat16") == pytest.approx(50)
    reading = dataclasses.replace(SLOW, full=1)
    assert work_seconds(Work((Pass(3, 30),)), SMALL, reading, "float32") == pytest.approx(2)
    assert work_seconds(Work((Pass(3, 30, reads=1),)), SMALL, reading, "float32") == pytest.approx(2 / 3)
    fast = dataclasses.replace(SLOW, full=1e6, bandwidth=1e6)
    assert work_seconds(Work((Pass(3, 30),)), SMALL, fast, "float32") == pytest.approx(3 * 10 * 9e-5)
    beside = Work((), single=600_000, double=300_000, decomposed=50_000)
    assert work_seconds(beside, SMALL, SLOW, "float32") == pytest.approx(3)


def test_work_of_editors_by_hand():
    ft = SimpleNamespace(num_steps=25, layers=[4])
    (only,) = costs.EDITORS["FT-C"](ft, SMALL, 1, 4).passes
    assert (only.times, only.tokens) == (25 * 1.6, 16)
    rome = SimpleNamespace(context_template_length_params=[[5, 10], [10, 10]], v_num_grad_steps=20)
    passes = [(p.times, p.tokens) for p in costs.EDITORS["ROME"](rome, SMALL, 1, 4).passes]
    assert passes == [(40, 22 * 26), (1, 21 * 26), (2, 16)]
    memit = SimpleNamespace(layers=[3, 4], v_num_grad_steps=20)
    work = costs.EDITORS["MEMIT"](memit, SMALL, 5, 4)
    assert [(p.times, p.tokens) for p in work.passes] == [(200, 7 * 26), (2, 5 * 6 * 26), (2, 80)]
    assert work.double == pytest.approx(2 * (2 / 3 * 400**3 + 4 * 400**2 * 5))
    assert work.written == 2 * 100 * 400
    kn = SimpleNamespace(batch_size=20, steps=20)
    assert [(p.times, p.tokens) for p in costs.EDITORS["KN"](kn, SMALL, 1, 4).passes] == [(30, 16), (60, 320)]
    packe = SimpleNamespace(
        edit_batch_size=2, num_steps=12, retrace_every=2, num_critical_paths=15, num_negative_paths=1
    )
    passes = [(p.times, p.tokens, p.reads) for p in costs.EDITORS["PaCKE"](packe, SMALL, 100, 4).passes]
    assert passes == [(3 * 12 * 50, 32, 2 * 12 * 50), (2 * 6 * 50, 32, None)]


def test_cost_of_a_run_is_the_sum_of_its_parts(monkeypatch):
    """Two calls of three seconds, and nothing else that takes time."""
    monkeypatch.setitem(costs.EDITORS, "FT-C", lambda *_: Work((), single=3 * 600_000, extra=7))
    for name in ("TEXTS", "SPOKEN", "SHORT", "WHOLE", "COMPARED", "LAUNCH"):
        monkeypatch.setitem(A, name, 0)
    monkeypatch.setitem(A, "READ", 1e9)
    monkeypatch.setitem(A, "DISK", 8e6)
    item = Item(part("table 1"), "FT-C", "zsre", 200)
    found = cost(item, None, SMALL, SLOW)
    assert found.seconds == pytest.approx(2 + 6)  # eight million bytes are read, and then their digest
    assert found.per_edit == pytest.approx(0.03)
    assert found.bytes == 2 * 8e6 + 7


def test_more_records_and_slower_gpus_cost_more(found):
    where = Where("llama3-8b")
    size = sizes(configuration(where))
    for editor in ROW if files_of_easyedit("llama3-8b") else ["PaCKE"]:
        h = hyper_parameters(editor, where)
        few, many = (cost(Item(part("table 2"), editor, "zsre", n), h, size, GPUS["a100-80gb"]) for n in (100, 3000))
        assert 10 * few.seconds < many.seconds < 31 * few.seconds
        assert cost(Item(part("table 2"), editor, "zsre", 100), h, size, GPUS["h100"]).seconds < few.seconds
        assert 64e9 < few.bytes < 80e9


def test_a_machine_is_a_known_one_or_told():
    assert machine("h100") == GPUS["h100"]
    told = machine("h100", tera=1, memory=12)
    assert (told.tera("float32"), told.tera("float16"), told.memory, told.bandwidth) == (1, 1, 12, 3350)
    assert told.name == "h100, changed"
    with pytest.raises(BenchError, match=r"--gpu: did you mean 'h100'.*got 'h10'.*--tflops"):
        machine("h10")
    with pytest.raises(BenchError, match="memory: expected a positive number, got 0"):
        machine("h100", memory=0)


# --- what fits --------------------------------------------------------------------------------------------------------


def an_hour_each(item):
    """An hour for ten records; KN takes ten times as long, and LoRA more memory than there is."""
    return Cost(360 * item.n * (10 if item.editor == "KN" else 1), 99e9 if item.editor == "LoRA" else 1, 360)


def of(chosen, name):
    return {item.editor: item.n for item, _ in chosen.runs if item.part.name == name}


@pytest.fixture
def two_parts():
    names = ("PaCKE", "FT-C", "KN", "LoRA")
    short = dataclasses.replace(part("figure 3"), editors=names, data=("zsre",))
    return [short, dataclasses.replace(part("table 2"), editors=names, data=("zsre",))]


def test_without_an_allowance_the_papers_numbers(two_parts):
    chosen = choose(two_parts, an_hour_each, memory=10e9)
    assert of(chosen, "figure 3") == dict.fromkeys(("PaCKE", "FT-C", "KN"), 10)
    assert of(chosen, "table 2") == dict.fromkeys(("PaCKE", "FT-C", "KN"), 3000)
    assert {gone.reason for gone in chosen.left} == {"about 99 GB, and the GPU has 10 GB; take a larger --gpu"}
    assert not chosen.fewer


def test_an_allowance_takes_fewer_records_then_fewer_editors(two_parts):
    """Figure 3 takes 1 + 1 + 10 hours; table 2 the same for 10 records, 36 for 30, 120 for 100."""
    plenty = choose(two_parts, an_hour_each, 10e9, hours=12 + 100)
    assert of(plenty, "table 2") == dict.fromkeys(("PaCKE", "FT-C", "KN"), 30)
    assert plenty.hours == pytest.approx(12 + 36)
    assert plenty.fewer == (
        "table 2: 30 records instead of the paper's 3000; with 100 all runs would take 132.0 of 112 GPU hours",
    )
    little = choose(two_parts, an_hour_each, 10e9, hours=13.5)
    assert of(little, "figure 3") == {"PaCKE": 10, "FT-C": 10}
    assert of(little, "table 2") == {"PaCKE": 30, "FT-C": 30}
    gone = [(g.part.name, g.reason) for g in little.left if g.editor == "KN"]
    why = "10.00 GPU hours on 10 records, too many for 13.5 in all"
    assert gone == [("figure 3", why), ("table 2", why)]
    nearly_nothing = choose(two_parts, an_hour_each, 10e9, hours=1)
    assert [item.editor for item, _ in nearly_nothing.runs] == ["PaCKE"]
    assert choose(two_parts, an_hour_each, 10e9, hours=0).runs == ()


def test_runs_never_take_more_than_is_allowed(two_parts):
    for hours in (0.5, 1, 2, 3, 14, 24, 48, 500, 4000):
        assert choose(two_parts, an_hour_each, 10e9, hours).hours <= hours


# --- the page ---------------------------------------------------------------------------------------------------------


def test_assumptions_on_the_page_are_those_of_the_code():
    rows = {quoted(row["name"])[0]: float(row["value"]) for row in table("reproduce.md", "name")}
    assert rows == {name: value for name, (value, _) in costs.ASSUMED.items()}
    gpus = {row["GPU"].strip("`"): row for row in table("reproduce.md", "GPU")}
    assert set(gpus) == set(GPUS)
    for name, row in gpus.items():
        numbers = [float(row[c]) for c in ("float32", "16 bits", "float64", "GB/s", "GB")]
        assert numbers == [getattr(GPUS[name], f) for f in ("full", "half", "double", "bandwidth", "memory")]


def test_names_are_short_enough_for_a_command():
    assert [p.key for p in parts("llama3-8b")] == ["figure3", "table1", "table2", "table2-program"]
    assert all(re.fullmatch(r"[a-z0-9-]+", p.key) for p in parts("llama3-8b"))


def test_a_plan_for_the_settings_that_take_all_requests_at_once():
    """0 takes all requests of a call together, and traces once."""
    hparams = PaCKEHyperParams(edit_batch_size=0, retrace_every=0, num_steps=3)
    work = EDITORS["PaCKE"](hparams, SMALL, 5, 2)
    assert [p.times for p in work.passes] == [9, 2]
