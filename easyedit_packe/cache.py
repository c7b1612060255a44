"""The folder in which this package keeps what it made once, and by what a file is known again."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Where this package keeps models, EasyEdit clones and statistics: `$PACKE_CACHE`, else the user's cache folder."""
    if os.environ.get("PACKE_CACHE"):
        return Path(os.environ["PACKE_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "easyedit_packe"
    except RuntimeError:  # a user whom the system does not know, as in some containers
        return Path(tempfile.gettempdir()) / f"easyedit_packe-{os.getuid()}"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; what was written takes its name at the end, or is gone after an exception.

    with written_whole(path) as part:
        part.write_bytes(...)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield part
        part.replace(path)
    except OSError as e:
        if e.filename == str(part):  # a name that nobody gave
            e.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


@functools.lru_cache(maxsize=256)
def _digest(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(file: Path) -> str:
    """SHA-256 of a file, read again only when it changed."""
    about = file.stat()
    return _digest(file, about.st_size, about.st_mtime_ns)
