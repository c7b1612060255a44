"""SIGKILL at ten random moments, the same command again each time: the report of a run that was never killed."""

import multiprocessing
import random
import signal
import time
from multiprocessing import forkserver

import pytest

from easyedit_packe.bench.report import find_runs, markdown
from easyedit_packe.easyedit.statistics import compute_stats
from easyedit_packe.model.load import load

from ..conftest import ROOT
from .killed import go
from .world import make_world, settings_of

KILLS = 10


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKE_CACHE", str(folder / "cache"))
        compute_stats(*load(str(folder / "tiny")), tokens=2000, length=20)
        yield folder


@pytest.fixture(scope="module")
def processes(world):
    """Forks of a server that has loaded everything. It finds this module by `PYTHONPATH` alone."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([go.__module__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


def rows(folder):
    """Whole rows on disk."""
    return sum(p.read_bytes().count(b"\n") for p in folder.rglob("*.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("editor", "changes"),
    [
        ("PaCKE", {"protocol": "single"}),
        ("PaCKE", {"protocol": "batch", "batch_size": 3}),
        ("PaCKE", {"protocol": "consecutive", "curve": [1, 3, 4]}),
        ("PaCKE+", {"protocol": "single"}),
        ("PaCKE+", {"protocol": "consecutive", "curve": [2, 5]}),
        ("AlphaEdit", {"protocol": "consecutive", "curve": [3]}),
        ("AlphaEdit", {"protocol": "batch", "batch_size": 3, "generation": False}),
    ],
    ids=lambda v: v if isinstance(v, str) else v["protocol"],
)
def test_the_report_is_the_same_to_the_byte(world, processes, tmp_path, editor, changes):
    settings = settings_of(world, editor, n=8, out="runs", checkpoint_every=2, **changes)
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(folder):
        folder.mkdir(exist_ok=True)
        started = processes.Event()
        process = processes.Process(target=go, args=(settings, folder, started))
        process.start()
        assert started.wait(300)
        return process

    process = start(whole)
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    length = time.monotonic() - begun  # kills are timed by it: a fast machine ends a run within a fixed delay

    chance, kills = random.Random(f"{editor} {changes}"), 0
    for k in range(KILLS):
        process, enough = start(killed), rows(killed) + 1
        if k % 2:  # soon after a row is there: between rows, or within the next
            while process.is_alive() and rows(killed) < enough:
                time.sleep(0.002)
        process.join(chance.uniform(0, length / (80 if k % 2 else 8)))  # or while it loads, edits, or saves its state
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        for path in killed.rglob("cases.jsonl"):  # and what a kill within a write leaves
            with path.open("ab") as f:
                f.write(b'{"case_id": 7, "aft')
    process = start(killed)
    process.join()
    assert process.exitcode == 0
    assert kills >= KILLS // 2  # the last moments may lie after the run's end
    assert markdown(find_runs([killed])) == markdown(find_runs([whole]))
    for file in whole.rglob("*.json*"):
        assert (killed / file.relative_to(whole)).read_bytes() == file.read_bytes(), file
