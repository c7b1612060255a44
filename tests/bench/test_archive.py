"""A study as one file: the same rows come back, the same rows give the same bytes, damage is told."""

import json
import sys

import pytest

from easyedit_packe.bench.archive import KINDS, pack, read, rows, unpack
from easyedit_packe.bench.report import find_runs, markdown
from easyedit_packe.bench.store import StoreError
from easyedit_packe.errors import MissingPackageError

from .folders import read_rows, write_rows, write_run, write_tracing


@pytest.fixture
def study(tmp_path):
    """Two editors, two data sets, and a name that JSON writes as it is."""
    write_run(tmp_path / "runs", "PaCKE", [1.0, 0.1 + 0.2], refused={"0": "“é\u2028”"})
    write_run(tmp_path / "runs", "PaCKE", [0.5] * 3, data="counterfact", protocol="consecutive")
    write_run(tmp_path / "runs", "ROME", [0.0, 1.0])
    write_tracing(tmp_path / "runs", [{"key": [[2.0, 1.0]], "value": [[4.0, 3.0]]}] * 2)
    return tmp_path / "runs"


def test_the_same_rows_come_back(study, tmp_path):
    file = tmp_path / "deep" / "study.jsonl.zst"
    number = pack(study, file)
    found = read(file)
    assert number == len(found) == 3 * 1 + 7 + 7 + 2 * (1 + 10) + 1 + 2  # run.json, cases, edits, unedited, traced
    assert found == list(rows(study))
    assert {row["kind"] for row in found} == set(KINDS)
    back = {}
    for row in found:
        back.setdefault((row.pop("run"), row.pop("kind")), []).append(row)
    (traced,) = study.glob("*/*/importance/*")
    name = str(traced.relative_to(study))
    assert back.pop((name, "tracing")) == [json.loads((traced / "run.json").read_text())]
    assert back.pop((name, "traced")) == read_rows(traced / "nodes.jsonl")
    for folder in sorted(path.parent for path in study.glob("*/*/*/*/edits.jsonl")):
        name = str(folder.relative_to(study))
        assert back.pop((name, "run")) == [json.loads((folder / "run.json").read_text())]
        assert back.pop((name, "case")) == read_rows(folder / "cases.jsonl")
        assert back.pop((name, "edit")) == read_rows(folder / "edits.jsonl")
    for folder in sorted(study.glob("*/*/unedited")):
        name = str(folder.relative_to(study))
        assert back.pop((name, "unedited")) == [json.loads((folder / "run.json").read_text())]
        assert back.pop((name, "unedited_case")) == read_rows(folder / "cases.jsonl")
    assert not back


def test_a_folder_comes_back(study, tmp_path):
    pack(study, tmp_path / "a.jsonl.zst")
    assert unpack(tmp_path / "a.jsonl.zst", tmp_path / "back") == 3 + 2 + 1
    assert list(rows(tmp_path / "back")) == list(rows(study))


def test_unpacking_overwrites_nothing(study, tmp_path):
    pack(study, tmp_path / "a.jsonl.zst")
    (there,) = study.glob("*/*/*/ROME*")
    (tmp_path / "back" / there.relative_to(study)).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"holds m/zsre/single/ROME.* already; unpack into another folder"):
        unpack(tmp_path / "a.jsonl.zst", tmp_path / "back")
    assert not list((tmp_path / "back").rglob("*.json*"))


def test_the_same_rows_give_the_same_bytes(study, tmp_path):
    pack(study, tmp_path / "a.jsonl.zst")
    for file in study.rglob("*.jsonl"):
        rows_there = [dict(reversed(row.items())) for row in read_rows(file)]
        write_rows(file, rows_there[::-1])
    (study / "m" / "zsre" / ".lock").touch()
    study.rename(tmp_path / "elsewhere")
    pack(tmp_path / "elsewhere", tmp_path / "b.jsonl.zst")
    assert (tmp_path / "a.jsonl.zst").read_bytes() == (tmp_path / "b.jsonl.zst").read_bytes()


def test_names_do_not_depend_on_the_level_that_is_given(study):
    run = next(study.glob("*/zsre/single/PaCKE*"))
    whole = [row for row in rows(study) if row["run"] in (str(run.relative_to(study)), "m/zsre/unedited")]
    assert list(rows(run)) == whole
    assert list(rows(study / "m")) == list(rows(study))


def test_studies_in_one_folder_stay_apart(study, tmp_path):
    write_run(study / "more", "PaCKE", [0.0, 0.0])
    names = {row["run"].split("/")[0] for row in rows(study)}
    assert names == {"m", "more"}
    pack(study, tmp_path / "both.jsonl.zst")
    assert {r.folder for r in find_runs([tmp_path / "both.jsonl.zst"])} == {r.folder for r in find_runs([study])}


def test_a_report_reads_archives_as_it_reads_folders(study, tmp_path):
    text = markdown(find_runs([study]))
    pack(study, tmp_path / "results" / "study.jsonl.zst")
    assert markdown(find_runs([tmp_path / "results" / "study.jsonl.zst"])) == text
    assert markdown(find_runs([tmp_path / "results"])) == text
    assert "“é\u2028”" in text


def test_a_row_that_was_cut_off_is_left_out(study):
    (file,) = study.glob("*/zsre/single/ROME*/cases.jsonl")
    with file.open("ab") as f:
        f.write(b'{"case_id": 7, "aft')
    assert len([row for row in rows(study) if row["kind"] == "case"]) == 7


@pytest.mark.parametrize("damage", [
    lambda data: data[:-7], lambda data: data[: len(data) // 2], lambda data: b"x" + data, lambda data: b"",
    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
])  # fmt: skip
def test_damage_is_told(study, tmp_path, damage):
    file = tmp_path / "study.jsonl.zst"
    pack(study, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(StoreError, match="no archive of `packe pack`, or it is damaged"):
        read(file)


def test_other_lines_are_refused(tmp_path):
    import zstandard

    file = tmp_path / "x.jsonl.zst"
    for line in (b"[]\n", b'{"kind": "else"}\n', b"{}\n", b"3\n", b"\xff\n"):
        file.write_bytes(zstandard.compress(line))
        with pytest.raises(StoreError, match="damaged"):
            read(file)


def test_nothing_to_pack_and_wrong_names(study, tmp_path):
    with pytest.raises(StoreError, match="no run in"):
        pack(tmp_path / "absent", tmp_path / "x.jsonl.zst")
    with pytest.raises(StoreError, match=r"ends in \.jsonl\.zst"):
        pack(study, tmp_path / "x.zip")
    assert not list(tmp_path.glob("x*"))


def test_without_zstandard(study, tmp_path, monkeypatch):
    file = tmp_path / "study.jsonl.zst"
    pack(study, file)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for use in (lambda: pack(study, file), lambda: read(file)):
        with pytest.raises(MissingPackageError, match=r"'zstandard'.*pip install \"easyedit-packe\[bench\]\""):
            use()


@pytest.mark.parametrize("name", ["../elsewhere/x", "/tmp/packe-elsewhere"])
def test_nothing_is_unpacked_outside_the_folder(study, tmp_path, name):
    import zstandard

    text = "".join(json.dumps({**row, "run": name}) + "\n" for row in rows(study) if row["kind"] == "run")
    file = tmp_path / "study.jsonl.zst"
    file.write_bytes(zstandard.compress(text.encode()))
    with pytest.raises(StoreError, match="expected runs inside the folder"):
        unpack(file, tmp_path / "deep" / "here")
    assert not (tmp_path / "deep").exists()


def test_a_damaged_file_of_a_run_is_named(study, tmp_path):
    file = next(study.rglob("run.json"))
    file.write_text(file.read_text()[:50])
    with pytest.raises(StoreError, match=r"run\.json is damaged .*remove its folder"):
        markdown(find_runs([study]))
    file.write_text("[]")
    with pytest.raises(StoreError, match="expected a JSON object, got list"):
        markdown(find_runs([study]))
    with pytest.raises(StoreError, match=r"nope\.jsonl\.zst"):
        unpack(tmp_path / "nope.jsonl.zst", tmp_path / "there")
