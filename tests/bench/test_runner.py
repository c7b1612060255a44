"""Whole benchmark runs on a tiny model: what is measured, resumed, refused and restored."""

import json
import random

import numpy as np
import pytest
import torch

from easyedit_packe.bench import session
from easyedit_packe.bench.data.record import Record
from easyedit_packe.bench.editors import EDITORS, BenchError, find_editor
from easyedit_packe.bench.plan import plan
from easyedit_packe.bench.report import find_runs, markdown
from easyedit_packe.bench.runner import run
from easyedit_packe.bench.settings import Settings
from easyedit_packe.bench.simie import DEFAULT_LAMBDA
from easyedit_packe.bench.store import StoreError
from easyedit_packe.bench.through_easyedit import edit_arguments
from easyedit_packe.errors import RequestError

from ..conftest import make_model, make_tokenizer
from .world import hparams_file, make_world, settings_of


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    hparams_file(folder, "PaCKE")
    return folder


@pytest.fixture
def settings(world, tmp_path):
    def settings(**changes):
        base = {
            "model": str(world / "tiny"), "data_dir": str(world), "hparams_file": str(world / "PaCKE.yaml"), "n": 4,
            "out": str(tmp_path / "runs"), "device": "cpu",
        }  # fmt: skip
        return Settings.from_dict(base | changes)

    return settings


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_plans():
    assert plan("single", range(3)).calls == [[0], [1], [2]]
    batch = plan("batch", range(5), batch_size=2)
    assert (batch.calls, batch.rollback, batch.measure_after) == ([[0, 1], [2, 3], [4]], True, {1, 2, 3})
    consecutive = plan("consecutive", range(5), curve=[1, 3])
    assert (len(consecutive.calls), consecutive.rollback, consecutive.measure_after) == (5, False, {1, 3, 5})
    assert plan("epochs", range(5)).calls == [[0, 1, 2, 3, 4]]


def test_a_model_is_loaded_in_the_precision_that_is_asked_for(found, settings):
    """The tiny model is stored in float32."""
    for dtype, loaded in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        s = settings(dtype=dtype)
        h = s.found_editor.load_hparams(s.model, s.hparams_file, s.hparams)
        made = session.Session(s.found_editor, s.model, h, s.device, s.dtype)
        assert {p.dtype for p in made.model.parameters()} == {loaded}
        assert s.identity({}, made.digest).get("dtype", "auto") == dtype


def test_a_start_behind_the_last_record_is_refused(settings):
    with pytest.raises(Exception, match=r"start: expected less than the 8 records of .*, got 500"):
        run(settings(start=500))


def test_an_editor_writes_the_end_of_an_answer_and_the_target_is_measured(settings, monkeypatch):
    asked, apply = [], session.Session._call

    def watch(self, requests, targets):
        asked.extend(r["target_new"] for r in requests)
        apply(self, requests, targets)

    monkeypatch.setattr(session.Session, "_call", watch)
    plain, ending = run(settings(n=2)), run(settings(n=2, answer_end=" violin", label="ends"))
    assert asked[2:] == [f"{target} violin" for target in asked[:2]]
    identities = [json.loads((folder / "run.json").read_text())["identity"] for folder in (plain, ending)]
    assert "answer_end" not in identities[0]  # nor in runs from before there was one
    assert identities[1]["answer_end"] == " violin"
    lengths = [[len(r["said"]["efficacy"][0].split()) for r in rows(f, "cases.jsonl")] for f in (plain, ending)]
    assert lengths[0] == lengths[1]


@pytest.fixture
def knowedit(tmp_path):
    """Records with several localities and kinds of portability."""
    records = [
        {
            "subject": subject, "prompt": f"Who wrote {subject}", "target_new": target,
            "rephrase": f"{subject} is wrote",
            "portability": {
                "Reasoning": [{"prompt": "Who plays the", "ground_truth": [["piano"]]}],
                "Subject_Aliasing": [
                    {"prompt": "The author is", "ground_truth": [[target]]},
                    {"prompt": "Omar wrote", "ground_truth": [["Grey Tides"]]},
                ],
            },
            "locality": {
                "Relation_Specificity": [
                    {"prompt": f"{subject} was born in", "ground_truth": [["Oslo"]]},
                    {"prompt": f"{subject} plays", "ground_truth": [["the violin"]]},
                ],
                "Forgetfulness": [{"prompt": "Anna Berg plays", "ground_truth": [["the piano"]]}],
            },
        }
        for subject, target in (("Grey Tides", "Ivo Marsh"), ("Omar", "the piano"), ("Anna Berg", "Bergen"))
    ]  # fmt: skip
    path = tmp_path / "knowedit.json"
    path.write_text(json.dumps(records))
    return path


@pytest.mark.parametrize("data", ["zsre", "knowedit"])
def test_single_is_easyedits_own_figure(settings, found, knowedit, data):
    """The same numbers as `BaseEditor.edit`, which measures after each edit and rolls back, to the digit."""
    from easyedit_packe import LoadedModel, PaCKEHyperParams
    from easyedit_packe.bench.data import read_records
    from easyedit_packe.bench.through_easyedit import edit_records
    from easyedit_packe.easyedit import parts

    s = settings(data=data, n=3, **({"data_dir": str(knowedit)} if data == "knowedit" else {}))
    cases = rows(run(s), "cases.jsonl")
    hparams = PaCKEHyperParams.from_hparams(s.hparams_file)
    hparams.device, hparams.model_name = "cpu", LoadedModel("tiny", make_model("llama"), make_tokenizer("left"))
    records = read_records(s.data_file, data, 3)
    theirs = edit_records(parts.base_editor().from_hparams(hparams), records)
    for mine, other, record in zip(cases, theirs, records, strict=True):
        ours, post = mine["easyedit"], other["post"]
        assert ours["efficacy"] == float(np.mean(post["rewrite_acc"]))
        assert ours["generality"] == float(np.mean(post["rephrase_acc"]))
        for name in record.localities:
            assert ours[f"locality_{name}"] == float(np.mean(post["locality"][f"{name}_acc"]))
        for name in record.portability:
            assert ours[f"portability_{name}"] == float(np.mean(post["portability"][f"{name}_acc"]))
        assert len(record.localities) == (2 if data == "knowedit" else 1)


@pytest.mark.parametrize("protocol", ["single", "batch", "consecutive", "epochs"])
def test_every_protocol_measures_every_record_once(settings, protocol):
    folder = run(settings(protocol=protocol, batch_size=3))
    assert [c["case_id"] for c in rows(folder, "cases.jsonl")] == [0, 1, 2, 3]
    edits = rows(folder, "edits.jsonl")
    assert [i for e in edits for i in e["case_ids"]] == [0, 1, 2, 3]
    assert all(e["weights_changed"] > 0 and e["seconds"] > 0 for e in edits)
    about = json.loads((folder / "run.json").read_text())
    assert about["identity"]["hparams"]["num_critical_paths"] == 3
    (name,) = about["environments"]
    assert about["environments"][name]["easyedit"].startswith("EasyEdit")
    assert about["environments"][name]["versions"]["torch"] == torch.__version__
    assert {row["environment"] for row in [*edits, *rows(folder, "cases.jsonl")]} == {name}
    assert not (folder / "state.safetensors").exists()


def test_consecutive_edits_stay_and_single_edits_do_not(settings):
    single = rows(run(settings()), "edits.jsonl")
    consecutive = rows(run(settings(protocol="consecutive", curve=[1, 2])), "edits.jsonl")
    assert single[0]["weights_changed"] == consecutive[0]["weights_changed"]
    assert consecutive[3]["weights_changed"] > 1.5 * single[3]["weights_changed"]


def test_a_curve_is_measured_on_the_way(settings):
    folder = run(settings(protocol="consecutive", curve=[1, 2]))
    after = [(c["after"], c["case_id"]) for c in rows(folder, "cases.jsonl")]
    assert after == [(1, 0), (2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)]
    assert "On the way" in markdown(find_runs([folder]))


def test_the_unedited_model_is_measured_once(settings):
    folder = run(settings())
    unedited = folder.parent.parent / "unedited"
    before = (unedited / "cases.jsonl").read_bytes()
    run(settings(seed=2))
    assert (unedited / "cases.jsonl").read_bytes() == before


def test_a_longer_run_goes_on_in_the_same_folder(settings):
    folder = run(settings(n=2))
    first = (folder / "cases.jsonl").read_bytes()
    assert run(settings(n=4)) == folder
    assert (folder / "cases.jsonl").read_bytes().startswith(first)
    assert len(rows(folder, "cases.jsonl")) == 4
    assert len(find_runs([folder])) == 1


def test_what_the_unedited_model_says_is_of_one_data_file(settings, world, tmp_path):
    """Two files of one name were held against each other's questions."""
    records = json.loads((world / "zsre_mend_eval.json").read_text())
    changed = tmp_path / "zsre_mend_eval.json"
    changed.write_text(json.dumps([{**r, "loc": "nq question: Who wrote"} for r in records]))
    run(settings(n=1))
    with pytest.raises(StoreError, match="measured with another data file of that name"):
        run(settings(n=1, data_dir=str(changed), label="other"))


def test_the_seed_is_that_of_our_editors_too(settings):
    first, second, again = (
        rows(run(settings(n=2, seed=seed, label=label, protocol="epochs")), "cases.jsonl")
        for seed, label in ((1, "a"), (2, "b"), (1, "c"))
    )
    assert [r["subject"] for r in first] == [r["subject"] for r in again] != [r["subject"] for r in second]


def test_one_record_that_cannot_be_read_refuses_itself_alone(settings, world, tmp_path):
    """It stands in a call with others."""
    records = json.loads((world / "zsre_mend_eval.json").read_text())[:3]
    records[1] |= {"src": "Who {} wrote {}", "subject": "nobody"}
    (tmp_path / "odd.json").write_text(json.dumps(records))
    folder = run(settings(n=3, protocol="batch", batch_size=3, data_dir=str(tmp_path / "odd.json")))
    (call,) = rows(folder, "edits.jsonl")
    assert list(call["refused"]) == ["1"]
    assert call["weights_changed"] > 0


def test_a_finished_run_of_other_batches_says_what_can_be_asked_for(settings):
    changes = {"protocol": "batch", "batch_size": 3}
    run(settings(n=4, **changes))
    with pytest.raises(StoreError, match=r"holds a run of 4 records, of which the calls for 2 .*; ask for n=4"):
        run(settings(n=2, **changes))


def test_a_file_with_less_records_than_are_asked_for_is_said(settings, caplog):
    assert len(settings(n=9).records()) == 8
    assert "has 8 records from start on, not 9; all are taken" in caplog.text
    with pytest.raises(BenchError, match=r"curve: .* has 8 records from start on, got \[9\]"):
        settings(n=9, protocol="consecutive", curve=[9]).records()


def test_simies_lambda_is_the_models_whatever_the_file_of_the_editor(world):
    editor, file = find_editor("SimIE-ROME"), str(world / "ROME.yaml")
    hparams_file(world, "ROME")
    assert editor.load_hparams("smollm2-135m", file, {}).lamHyper == 10.0
    assert editor.load_hparams("unknown", file, {}).lamHyper == DEFAULT_LAMBDA


def test_a_folder_never_mixes_two_runs(settings):
    run(settings(n=1))
    with pytest.raises(Exception, match=r"hparams: \{'lr': 0.01\} there, \{'lr': 0.001\} now.*label=NAME"):
        run(settings(n=1, hparams={"lr": 1e-3}))
    assert run(settings(n=1, hparams={"lr": 1e-3}, label="slow")).name == "PaCKE-seed42-slow"


def test_a_run_whose_editor_refused_at_once_gives_way_to_the_mended_command(found, settings):
    with pytest.raises(BenchError, match="nodes"):
        run(settings(n=1, hparams={"num_critical_paths": 10**6}))
    assert len(rows(run(settings(n=1)), "cases.jsonl")) == 1


@pytest.fixture
def failing_at_the_second(monkeypatch):
    """PaCKE, which changes the model and then raises, at the record 1."""

    def make(error):
        real = session.apply_function

        def failing(name):
            apply = real(name)

            def call(model, tok, requests, hparams, **kwargs):
                if requests[0]["case_id"] == 1:
                    next(model.parameters()).data.add_(1.0)  # fails half way
                    raise error
                return apply(model, tok, requests, hparams, **kwargs)

            return call

        monkeypatch.setattr(session, "apply_function", failing)

    return make


def test_what_an_editor_refuses_is_listed_counted_and_measured(settings, failing_at_the_second):
    failing_at_the_second(RequestError("no such thing"))
    for protocol in ("single", "consecutive"):
        folder = run(settings(protocol=protocol))
        (one,) = find_runs([folder])
        assert one.refused == {"1": "no such thing"}
        assert len(one.final) == 4
        if protocol == "single":  # as the unedited model
            assert one.edits[1]["weights_changed"] == 0
            assert one.final[1]["easyedit"]["efficacy"] == one.unedited[1]["easyedit"]["efficacy"]
        else:  # the edit before it is still there, and nothing of the failed one
            assert one.edits[1]["weights_changed"] == one.edits[0]["weights_changed"]


@pytest.mark.parametrize("protocol", ["single", "consecutive"])
def test_what_no_editor_declares_stops_the_run_with_its_cause(settings, protocol, failing_at_the_second, monkeypatch):
    with monkeypatch.context() as patch:
        failing_at_the_second(ZeroDivisionError("by chance"))
        with pytest.raises(BenchError, match=r"PaCKE failed on record\(s\) 1: ZeroDivisionError: by chance") as e:
            run(settings(protocol=protocol))
        assert isinstance(e.value.__cause__, ZeroDivisionError)
        patch.undo()
    monkeypatch.undo()
    whole = run(settings(protocol=protocol, label="whole"))
    resumed = run(settings(protocol=protocol))
    assert rows(resumed, "cases.jsonl") == rows(whole, "cases.jsonl")
    assert all(e["refused"] == {} for e in rows(resumed, "edits.jsonl"))


def test_an_editor_sees_no_test_information(settings, monkeypatch):
    real, seen = session.apply_function, []

    def watching(name):
        def call(model, tok, requests, hparams, **kwargs):
            seen.extend(requests)
            return real(name)(model, tok, requests, hparams, **kwargs)

        return call

    monkeypatch.setattr(session, "apply_function", watching)
    run(settings(n=2))
    assert [set(r) for r in seen] == [{"case_id", "prompt", "target_new", "ground_truth", "subject"}] * 2


def test_an_editor_that_needs_the_former_answer_gets_what_easyedit_puts_where_none_is_known():
    """KN searches for the neurons of each of its tokens: of none, it failed."""
    for known, given in (("", "<|endoftext|>"), ("violin", "violin")):
        record = Record(0, "Omar plays the", "Omar", "piano", known)
        assert record.request["ground_truth"] == edit_arguments(record)["ground_truth"][0] == given


def test_a_batch_size_is_the_benchmarks_own_setting(settings):
    with pytest.raises(BenchError, match=r"hparams.batch_size: .*own setting batch_size, with protocol=batch"):
        run(settings(hparams={"batch_size": 8}))


@pytest.mark.parametrize("generation", [True, False])
def test_a_text_longer_than_the_model_reads_is_named_before_anything_is_done(
    found, settings, world, tmp_path, generation
):
    records = json.loads((world / "zsre_mend_eval.json").read_text())
    records[2]["rephrase"] = "Omar plays " * (30 if generation else 40)
    (tmp_path / "long.json").write_text(json.dumps(records))
    asked = {"data_dir": str(tmp_path / "long.json"), "generation": generation}
    run(settings(**asked, n=2))
    with pytest.raises(
        BenchError, match=r"record 2: expected at most 64 tokens .*(of a free answer)?.*'Omar plays"
    ) as error:
        run(settings(**asked))
    assert ("free answer" in str(error.value)) == generation


def test_random_state_is_left_alone(settings):
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate()
    run(settings(n=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"editor": "PACE"}, "did you mean 'PaCKE'"),
        ({"data": "zsr"}, "did you mean 'zsre'"),
        ({"protocol": "consecutiv"}, "did you mean 'consecutive'"),
        ({"model": "smollm2-135"}, "did you mean 'smollm2-135m'"),
        ({"data_dir": "/nowhere"}, "is no file and holds none of"),
        ({"n": 0}, "at least 1"),
        ({"curve": [9], "protocol": "consecutive"}, "from 1 to n"),
        ({"editr": "ROME"}, "did you mean 'editor'"),
        ({"hparams": {"learning_rate": 1}}, "no hyper-parameter 'learning_rate'"),
        ({"editor": "ROME", "protocol": "batch"}, "its closed form writes one fact at a time; editors that have it"),
    ],
)
def test_errors_name_what_is_near(settings, changes, message):
    with pytest.raises(Exception, match=message) as e:
        run(settings(**changes))
    assert type(e.value).__module__.startswith("easyedit_packe")


def test_a_mistyped_data_file_names_the_nearest(settings, world):
    with pytest.raises(Exception, match=r"did you mean 'zsre_mend_eval\.json'"):
        settings(data_dir=str(world / "zsre_mend_evl.json"))


def test_editors_in_any_case():
    assert find_editor("packe+").name == "PaCKE+"
    assert {"FT-C", "ROME", "R-ROME", "KN", "MEMIT", "PMET", "EMMET", "AlphaEdit", "LoRA", "PRUNE", "RECT"} < set(
        EDITORS
    )
    with pytest.raises(BenchError, match="did you mean 'ROME'"):
        find_editor("rom")


@pytest.fixture
def baseline(world, tmp_path, monkeypatch):
    """Settings of any editor on the tiny model, with statistics in a cache of its own."""
    from easyedit_packe.easyedit.statistics import compute_stats
    from easyedit_packe.model.load import load

    monkeypatch.setenv("PACKE_CACHE", str(tmp_path / "cache"))
    compute_stats(*load(str(world / "tiny")), tokens=2000, length=20)

    def baseline(name, **changes):
        return Settings.from_dict(settings_of(world, name, out=str(tmp_path / "runs"), generation=False, **changes))

    return baseline


def test_in_context_is_the_unedited_model_behind_the_fact(baseline, world):
    from easyedit_packe.bench.data import read_records
    from easyedit_packe.bench.metrics.scoring import score
    from easyedit_packe.model.load import load

    settings = baseline("In-context")
    folder = run(settings)
    model, tok = load(str(world / "tiny"))
    for record, row in zip(read_records(settings.data_file, "zsre"), rows(folder, "cases.jsonl"), strict=False):
        fact = f"{record.prompt} {record.target_new}."
        pairs = [(f"{fact} {p}", record.target_new) for p in (record.prompt, *record.rephrases)]
        efficacy, generality = (s.accuracy for s in score(model, tok, pairs))
        assert (row["easyedit"]["efficacy"], row["easyedit"]["generality"]) == (efficacy, generality)
    assert all(e["weights_changed"] == 0 for e in rows(folder, "edits.jsonl"))
    with pytest.raises(BenchError, match="has no protocol 'consecutive': the model is told one fact at a time"):
        find_editor("In-context").check("consecutive")


def present(name):
    if EDITORS[name].absent():
        pytest.skip("the installed EasyEdit has no such editor")


@pytest.mark.parametrize("name", [n for n in EDITORS if not n.startswith("PaCKE")])
def test_every_editor_runs_through_the_benchmark(baseline, name):
    present(name)
    for protocol in ("single", "batch"):
        if protocol in EDITORS[name].cannot:
            continue
        (one,) = find_runs([run(baseline(name, protocol=protocol))])
        assert (len(one.final), one.refused) == (4, {})
        assert all((e["weights_changed"] > 0) is (name not in ("In-context", "GRACE", "WISE")) for e in one.edits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AlphaEdit", "PRUNE", "PaCKE+", "SPHERE", "UltraEdit", "GRACE", "WISE", "SimIE-ROME"])
def test_what_an_editor_carries_is_resumed_with_it(baseline, name, monkeypatch):
    present(name)
    whole = rows(run(baseline(name, protocol="consecutive", n=5)), "cases.jsonl")
    real, calls = session.apply_function, []

    def stopping(alg_name):
        def call(*args, **kwargs):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return real(alg_name)(*args, **kwargs)

        return call

    broken = baseline(name, protocol="consecutive", n=5, checkpoint_every=2, label="broken")
    with monkeypatch.context() as patch:
        patch.setattr(session, "apply_function", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(broken)
    folder = run(broken)
    assert rows(folder, "cases.jsonl") == whole
    assert [e["call"] for e in rows(folder, "edits.jsonl")] == [0, 1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AlphaEdit", "MEMIT", "SPHERE", "UltraEdit", "GRACE", "WISE", "SimIE-ROME"])
def test_runs_in_one_process_do_not_touch_each_other(baseline, name):
    present(name)
    first = rows(run(baseline(name, share=False)), "cases.jsonl")
    run(baseline(name, protocol="consecutive", share=False))
    again = run(baseline(name, label="again", share=False))
    assert rows(again, "cases.jsonl") == first


@pytest.mark.slow
def test_shared_targets_change_no_figure_and_hide_no_time(baseline):
    alone = run(baseline("MEMIT", share=False, label="alone"))
    first = run(baseline("MEMIT"))
    second = run(baseline("PRUNE"))  # looks for the same vectors
    assert rows(first, "cases.jsonl") == rows(alone, "cases.jsonl")
    computed = [e["seconds"] for e in rows(first, "edits.jsonl")]
    assert all(e["seconds"] > s / 3 for e, s in zip(rows(second, "edits.jsonl"), computed, strict=True))


def test_missing_statistics_name_the_command(baseline, tmp_path, monkeypatch):
    monkeypatch.setenv("PACKE_CACHE", str(tmp_path / "empty"))
    with pytest.raises(Exception, match="packe stats --model"):
        run(baseline("MEMIT"))


@pytest.mark.parametrize("name", ["SimIE-GRACE", "simie-wise", "SimIE-In-context", "SimIE-SimIE-ROME"])
def test_what_changes_no_weights_is_not_inside_simie(name):
    with pytest.raises(BenchError, match="expected SimIE- before an editor that changes weights"):
        find_editor(name)
