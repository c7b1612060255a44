"""Rows survive being killed at any byte."""

import json

import pytest

from easyedit_packe.bench.store import Rows, StoreError, only_one, read_rows


@pytest.fixture
def path(tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", ("case_id",))
    for i in range(3):
        rows.append({"case_id": i, "value": "é" * i})
    return rows.path


def test_a_file_cut_at_any_byte_is_repaired(path, tmp_path):
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(whole[:size])
        kept = whole[:size].count(b"\n")
        assert len(read_rows(cut, ("case_id",))) == kept
        rows = Rows(cut, ("case_id",))
        assert [r["case_id"] for r in rows] == list(range(kept))
        for i in range(3):
            rows.append({"case_id": i, "value": "é" * i})
        assert cut.read_bytes() == whole


def test_the_first_row_of_a_key_counts_once(path):
    with path.open("a") as f:
        f.write(json.dumps({"case_id": 1, "value": "again"}) + "\n")
    rows = Rows(path, ("case_id",))
    assert len(rows) == 3
    assert rows[(1,)]["value"] == "é"
    rows.append({"case_id": 1, "value": "and again"})
    assert rows[(1,)]["value"] == "é"
    assert [r["value"] for r in read_rows(path, ("case_id",))] == ["", "é", "éé"]


def test_a_folder_is_held_by_one(tmp_path):
    with only_one(tmp_path), pytest.raises(StoreError, match="another process is at work"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
