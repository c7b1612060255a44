"""Find an EasyEdit and import it, without the packages that only its vision and API editors use."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from ..cache import cache_dir
from ..errors import EasyEditError
from .placeholders import placeholders

LOG = logging.getLogger(__name__)
PYPI_RELEASE = "easyeditor==0.0.1.dev0"
TESTED_COMMIT = "14cea82"
"""The commit this package is tested with (short; HEAD of 2026-07)."""
TESTED_SOURCE = "f089723e92f0"
"""`source_digest` of that commit, by which a tree without `.git` is known."""


@dataclass(frozen=True)
class Found:
    """An EasyEdit on this machine.

    Attributes:
        root: folder that holds the package folder `easyeditor`.
        how: "EASYEDIT_HOME", "importable" (a checkout on the import path), "clone" (made by
            `packe easyedit install`) or "pypi" (the pip release).
        version: release number, or the checkout's short commit; of a tree without `.git` that is not the tested
            commit's, a digest of its source.
    """

    root: Path
    how: Literal["EASYEDIT_HOME", "importable", "clone", "pypi"]
    version: str

    def __str__(self) -> str:
        return f"EasyEdit {self.version} ({self.how}: {self.root})"


def clone_dir() -> Path:
    """Where `packe easyedit install` puts its checkout."""
    return cache_dir() / "EasyEdit"


def locate() -> Found:
    """The EasyEdit to use: `$EASYEDIT_HOME`; else a checkout on the import path; else the clone in the user's
    cache; else the pip release.

    Raises:
        EasyEditError: there is none, or `EASYEDIT_HOME` does not hold one.
    """
    home = os.environ.get("EASYEDIT_HOME")
    if home:
        root = Path(home).expanduser().resolve()
        if not is_easyedit(root):
            raise EasyEditError(
                f"EASYEDIT_HOME: expected a folder with easyeditor/__init__.py in it, got {home!r}; "
                "point it at a checkout of zjunlp/EasyEdit or unset it."
            )
        return Found(root, "EASYEDIT_HOME", _version(root))
    importable = _importable_root()
    if importable and not _is_pip_release(importable):
        return Found(importable, "importable", _version(importable))
    if is_easyedit(clone_dir()):
        return Found(clone_dir().resolve(), "clone", _version(clone_dir()))
    if importable:
        return Found(importable, "pypi", _version(importable))
    raise EasyEditError(
        "EasyEdit was not found; run `packe easyedit install`, or set EASYEDIT_HOME to a checkout of "
        f"zjunlp/EasyEdit, or `pip install --no-deps {PYPI_RELEASE}`."
    )


def is_easyedit(root: Path) -> bool:
    return (root / "easyeditor" / "__init__.py").is_file() and (root / "easyeditor" / "editors").is_dir()


def import_easyeditor() -> tuple[ModuleType, Found]:
    """Import `easyeditor` once; random state and the root logger come out as they went in.

    Packages that EasyEdit imports but text editing never uses are replaced by placeholders while it is imported,
    where they are missing; see `placeholders`.

    Raises:
        EasyEditError: none found, or one of the packages that text editing needs is missing.
    """
    module = sys.modules.get("easyeditor")
    if module is not None:
        root = Path(str(module.__file__)).parent.parent
        return module, Found(root, getattr(module, "__packe_how__", "importable"), _version(root))
    found = locate()
    init = found.root / "easyeditor" / "__init__.py"
    spec = importlib.util.spec_from_file_location("easyeditor", init, submodule_search_locations=[str(init.parent)])
    if spec is None or spec.loader is None:
        raise EasyEditError(f"{init} cannot be imported; point EASYEDIT_HOME at a whole checkout of zjunlp/EasyEdit.")
    module = importlib.util.module_from_spec(spec)
    vars(module)["__packe_how__"] = found.how
    with _kept_random_state(), _kept_root_logger(), _kept_environment(), placeholders():
        _forget()  # an import that failed left its parts
        sys.modules["easyeditor"] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as e:
            _forget()
            if isinstance(e, ModuleNotFoundError):
                raise EasyEditError(
                    f"{found} needs the package {e.name!r}; install what its text editors import with "
                    "`pip install easyedit-packe[easyedit]`."
                ) from e
            raise
    LOG.info("using %s", found)
    return module, found


def _forget() -> None:
    for name in [n for n in sys.modules if n == "easyeditor" or n.startswith("easyeditor.")]:
        del sys.modules[name]


def _importable_root() -> Path | None:
    try:
        spec = importlib.util.find_spec("easyeditor")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    root = Path(spec.origin).parent.parent
    return root if is_easyedit(root) else None


def _is_pip_release(root: Path) -> bool:
    return any(root.glob("easyeditor-*.dist-info"))


def _version(root: Path) -> str:
    for info in root.glob("easyeditor-*.dist-info"):
        return info.name.removeprefix("easyeditor-").removesuffix(".dist-info")
    if (root / ".git").exists():
        try:
            command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
            run = subprocess.run(command, capture_output=True, text=True, timeout=10)
            if run.returncode == 0:
                return run.stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            pass
    found = source_digest(root)
    return TESTED_COMMIT if found == TESTED_SOURCE else f"of unknown commit, source {found}"


def source_digest(root: Path) -> str:
    """What tells unpacked trees apart: SHA-256 of all Python files of `easyeditor`, by name; its first 12 digits."""
    sha = hashlib.sha256()
    for path in sorted((root / "easyeditor").rglob("*.py")):
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:12]


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """EasyEdit seeds every generator with 42 when it is imported."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _kept_root_logger() -> Iterator[None]:
    """EasyEdit calls `logging.basicConfig` when it is imported."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level


@contextmanager
def _kept_environment() -> Iterator[None]:
    """HEAD sets CUDA_LAUNCH_BLOCKING when it is imported, which slows every program that is started afterwards."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
