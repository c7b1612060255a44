"""A benchmark run in a process of its own, to be killed; its clock stands still, its memory and commit never change.

The module is loaded once, by the fork server; a run then starts within milliseconds.
"""

import contextlib
import os
import threading
from types import SimpleNamespace

import torch
from tqdm import tqdm

import easyedit_packe
from easyedit_packe.bench import environment, session, stored_targets
from easyedit_packe.bench.runner import run
from easyedit_packe.bench.settings import Settings

torch.set_num_threads(1)
easyedit_packe.register()


@contextlib.contextmanager
def _no_memory(_):
    yield SimpleNamespace(bytes=1_000_000)


def go(settings, folder, started):
    """One run in a folder; `started` is set when it begins."""
    os.chdir(folder)
    tqdm.set_lock(threading.RLock())  # its own is shared by all forks, and would stay locked by one that was killed
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        for module in (session, stored_targets):
            module.time = SimpleNamespace(perf_counter=lambda: 0.0)
        session.peak_memory = _no_memory
        environment._git = lambda *_: "the same commit"
        started.set()
        run(Settings.from_dict(settings))
