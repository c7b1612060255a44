"""A run that is extended, or was cut off, has the rows of one that was made at once."""

import json

import pytest

from easyedit_packe.bench import runner, session
from easyedit_packe.bench.folder import RunFolder
from easyedit_packe.bench.report import find_runs, markdown
from easyedit_packe.bench.runner import run
from easyedit_packe.bench.settings import Settings
from easyedit_packe.bench.store import StoreError

from .world import make_world, settings_of


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def go(world, tmp_path):
    def go(out="runs", **changes):
        return run(Settings.from_dict(settings_of(world, "PaCKE", out=str(tmp_path / out), **changes)))

    return go


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def figures(folder):
    """All rows without the times, which no two runs share."""
    edits = [{k: v for k, v in e.items() if k not in ("seconds", "memory_bytes")} for e in rows(folder, "edits.jsonl")]
    return edits, rows(folder, "cases.jsonl"), json.loads((folder / "run.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["single", "batch"])
def test_an_extended_run_is_the_longer_run(go, protocol):
    """REVIEW 3: with batches of 3 the records 3 and 4 are measured from [3, 4, 5], not from the batch [3, 4]."""
    for n in (5, 8):
        extended = go(protocol=protocol, batch_size=3, n=n)
    whole = go("whole", protocol=protocol, batch_size=3, n=8)
    assert figures(extended) == figures(whole)
    assert sorted(i for e in rows(extended, "edits.jsonl") for i in e["case_ids"]) == list(range(8))


def test_a_shorter_run_reads_a_longer_one_and_never_cuts_it(go):
    folder = go(n=4)
    before = figures(folder)
    assert go(n=2) == folder
    assert figures(folder) == before
    (folder / "edits.jsonl").write_text("")
    with pytest.raises(StoreError, match=r"run of 4 records, of which the calls for 2 are not all done.*; ask for n=4"):
        go(n=2)


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_point_of_the_curve_that_was_cut_off_is_measured_to_its_end(go, monkeypatch, after):
    """REVIEW 2: a kill while a point is measured leaves no point with fewer rows than records."""
    whole = go("whole", protocol="consecutive", curve=[1, 2])
    real, seen = RunFolder.add_case, []

    def stopping(self, call, row):
        seen.append(1)
        if len(seen) == {1: 1, 2: 3, 4: 5}[after]:  # of the rows (1, 0), (2, 0), (2, 1), (4, 0), ...
            raise KeyboardInterrupt
        real(self, call, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add_case", stopping)
        with pytest.raises(KeyboardInterrupt):
            go(protocol="consecutive", curve=[1, 2])
    assert figures(go(protocol="consecutive", curve=[1, 2])) == figures(whole)


def test_generation_of_the_unedited_model_is_measured_when_it_is_first_asked_for(go):
    """REVIEW 12."""
    go(n=2, generation=False, label="without")
    folder = go(n=2)
    assert "Original model" in markdown(find_runs([folder])).split("Free generation")[1]
    unedited = folder.parent.parent / "unedited" / "cases.jsonl"
    before = unedited.read_bytes()
    go(n=2, generation=False, label="again")  # takes what is there
    assert unedited.read_bytes() == before


def test_the_unedited_model_is_measured_alike_whoever_comes_first(world, tmp_path):
    """REVIEW 12: not with the settings of an editor."""
    seen = []
    for editor, length in (("PaCKE", 1), ("PaCKE+", 128)):
        settings = settings_of(world, editor, out=str(tmp_path / editor), n=2, hparams={"max_length": length})
        folder = run(Settings.from_dict(settings))
        seen.append(rows(folder.parent.parent / "unedited", "cases.jsonl"))
    assert seen[0] == seen[1]


def test_a_default_that_changes_ends_a_run(go, monkeypatch):
    """REVIEW 19: hyper-parameters that nobody chose belong to a run's identity, too."""
    go(n=1)
    real = session.Session.__init__

    def later_version(self, editor, model, hparams, *more):
        hparams.weight_decay = 0.5
        real(self, editor, model, hparams, *more)

    folder = go("other", n=1)
    identity = json.loads((folder / "run.json").read_text())["identity"]
    assert identity["hparams"]["weight_decay"] == 0.0
    monkeypatch.setattr(session.Session, "__init__", later_version)
    with pytest.raises(StoreError, match=r"hparams: \{'weight_decay': 0.0\} there, \{'weight_decay': 0.5\} now"):
        go(n=1)


def test_one_changed_weight_is_another_model(go, world, tmp_path):
    """REVIEW 13: the 65th entry of a matrix counts, too."""
    import shutil

    from easyedit_packe.model.load import load

    go(n=1)
    other = tmp_path / "other" / "tiny"
    shutil.copytree(world / "tiny", other)
    model, _ = load(str(other))
    model.model.layers[1].mlp.up_proj.weight.data.view(-1)[65] += 1e-3
    model.save_pretrained(other)
    with pytest.raises(StoreError, match=r"holds another run \(.*model_sha256"):
        go(n=1, model=str(other))


def test_rows_say_where_they_were_made(go, monkeypatch):
    """REVIEW 18: resuming elsewhere does not rewrite the versions of what is there."""
    go(n=1)
    real = runner.describe
    monkeypatch.setattr(runner, "describe", lambda e: {**real(e), "commit": "another"})
    folder = go(n=2)
    about = json.loads((folder / "run.json").read_text())
    first, second = (row["environment"] for row in rows(folder, "edits.jsonl"))
    assert about["environments"][first]["commit"] != about["environments"][second]["commit"] == "another"
    assert "another" in markdown(find_runs([folder]))


def test_a_person_sees_that_it_works(go, capsys):
    """REVIEW 17: a bar for the unedited model, and one for each point of the curve."""
    go(n=3, protocol="consecutive", curve=[2])
    bars = capsys.readouterr().err
    for what in ("unedited model, zsre_mend_eval", "measuring after 2 edits", "measuring after 3 edits"):
        assert f"{what}: 100%" in bars
