"""`packe bench`, `report` and `pack`, as far as the commands themselves go."""

import dataclasses
import importlib
import sys

import pytest
import yaml

from easyedit_packe.bench.settings import Settings
from easyedit_packe.cli.bench import _settings
from easyedit_packe.errors import MissingPackageError

from ..bench.folders import write_run
from .common import packe, shell


def test_help_explains_every_setting():
    told = {name: text for name, text, _ in _settings()}
    assert list(told) == [f.name for f in dataclasses.fields(Settings)]
    assert all(told.values())
    said = packe("bench", "--help")
    assert all(f"\n  {name} " in said for name in told)
    assert max(map(len, said.splitlines())) <= 120


def test_help_shows_every_default():
    said = " ".join(packe("bench", "--help").split())
    for name, text, default in _settings():
        assert f" {name} {text} (default: {default})" in said
        value = getattr(Settings(), name)
        if name == "data_dir":
            assert value == "${oc.env:PACKE_DATA,data}"
            assert default == "$PACKE_DATA, or data"
        else:
            assert ("" if default == "empty" else yaml.safe_load(default)) == value


@pytest.mark.parametrize("package", ["hydra", "pandas", "tabulate", "zstandard"])
@pytest.mark.parametrize("command", [["bench", "n=1"], ["report", "runs"], ["pack", "runs", "runs.jsonl.zst"]])
def test_a_missing_package_is_one_line_that_installs_it(monkeypatch, package, command):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as e:
        packe(*command)
    assert str(e.value).endswith('pip install "easyedit-packe[bench]"')
    assert "\n" not in str(e.value)
    assert repr(package) in str(e.value)


def test_a_shell_sees_no_traceback_without_the_extra(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pandas'] = None\n")
    run = shell("bench", "n=1", PYTHONPATH=str(tmp_path))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        "packe: expected the package 'pandas', which is not installed: pip install \"easyedit-packe[bench]\"\n"
    )


def test_report_makes_a_page_in_place_of_the_text(tmp_path):
    write_run(tmp_path / "runs", "PaCKE", [1.0, 0.0])
    page, tables = tmp_path / "new" / "page.html", tmp_path / "tables"
    said = packe("report", tmp_path / "runs", "--html", page, "--data", tmp_path)
    assert said == f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB), 2 records\n"
    first = page.read_bytes()
    assert packe("report", tmp_path / "runs", "--html", page, "--data", tmp_path, "--out", tables) == said
    assert page.read_bytes() == first
    assert (tables / "report.md").read_text() == packe("report", tmp_path / "runs")


def test_pack_hands_over_folder_and_file(tmp_path, monkeypatch):
    archive = importlib.import_module("easyedit_packe.bench.archive")
    given = []

    def keep(folder, file):
        given.append((folder, file))
        file.write_bytes(b"x" * 1_500_000)

    monkeypatch.setattr(archive, "pack", keep)
    out = tmp_path / "runs.jsonl.zst"
    assert packe("pack", tmp_path, out) == f"wrote {out} (1.5 MB)\n"
    assert given == [(tmp_path, out)]
