"""`packe easyedit install`: a checkout of EasyEdit in the user's cache."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import EasyEditError
from .locate import PYPI_RELEASE, TESTED_COMMIT, Found, clone_dir, is_easyedit, locate

REPOSITORY = "https://github.com/zjunlp/EasyEdit"


def install(ref: str | None = None, path: str | None = None, timeout: int = 15) -> Found:
    """Put an EasyEdit where `locate` finds it.

    Args:
        ref: commit, tag or branch to clone; None takes `TESTED_COMMIT`.
        path: use this existing checkout (by a link) instead of cloning.
        timeout: seconds until a host that does not answer is given up.

    Returns:
        The EasyEdit that is now in use. Where git cannot reach the host and no `ref` was asked for, the pip
        release, installed if need be.

    Raises:
        EasyEditError: `path` holds no EasyEdit, `ref` cannot be had, or nothing could be installed.
    """
    target = clone_dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    if path is not None:
        root = Path(path).expanduser().resolve()
        if not is_easyedit(root):
            raise EasyEditError(f"--path: expected a checkout with easyeditor/__init__.py in it, got {path!r}.")
        _remove(target)
        target.symlink_to(root, target_is_directory=True)
        return locate()
    try:
        _clone(target, ref or TESTED_COMMIT, timeout)
    except EasyEditError:
        if ref is not None:
            raise
        if importlib.util.find_spec("easyeditor") is None:
            _pip_install()
    return locate()


def _clone(target: Path, ref: str, timeout: int) -> None:
    _git("ls-remote", "--exit-code", REPOSITORY, "HEAD", timeout=timeout)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        made = Path(work) / "EasyEdit"
        _git("clone", "--quiet", "--filter=blob:none", "--no-checkout", REPOSITORY, str(made), timeout=600)
        _git("-C", str(made), "sparse-checkout", "set", "easyeditor", "hparams", timeout=60)
        _git("-C", str(made), "checkout", "--quiet", ref, timeout=600)
        if not is_easyedit(made):
            raise EasyEditError(f"{REPOSITORY} at {ref} holds no easyeditor package; give another --ref.")
        _remove(target)
        made.rename(target)


def _git(*arguments: str, timeout: int) -> None:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=timeout, env=environment)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise EasyEditError(f"git could not be run or did not answer in {timeout} s: {e}") from None
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["no output"]
        raise EasyEditError(f"git {arguments[0]} failed: {last[0]}; check the network, --ref, or use --path.")


def _pip_install() -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", PYPI_RELEASE]
    run = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["no output"]
        raise EasyEditError(f"neither git nor pip could bring EasyEdit: {last[0]}.")


def _remove(target: Path) -> None:
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
