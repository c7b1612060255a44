"""The page as a file: its parts in the template, and everything of the rows escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....cache import written_whole
from ....errors import needs
from ..runs import Run, find_runs
from .records import groups
from .sections import sections
from .texts import find_texts

BOLD = re.compile(r"\*\*(.+?)\*\*")
HERE = Path(__file__).parent
SCRIPTS = ("page.js", "list.js", "record.js")
"""In this order, as one script: the page trusts only what has its digest."""
ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""What could end a script, or begin something else; inside a JSON string it means the same."""


def write_page(paths: Sequence[str | Path], file: Path, data: Path) -> str:
    """The same rows, and the same data files, give the same bytes.

    Args:
        paths: of runs, as for `find_runs`.
        data: a data file or a folder of them, from which come prompts and answers.

    Returns:
        What was written, in a line.

    Raises:
        BenchError: no run is there. StoreError: an archive is damaged. MissingPackageError: an extra is not installed.
    """
    runs = find_runs(paths)
    html = page(runs, data)
    with written_whole(file) as part:
        part.write_bytes(html.encode("utf-8", "replace"))  # a row may hold half a letter
    return f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB), {sum(len(run.final) for run in runs):,} records"


def page(runs: Sequence[Run], data: Path) -> str:
    """The whole text of the page."""
    needs("jinja2", "bench")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    world = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    world.filters["strong"] = lambda text: Markup(BOLD.sub(r"<strong>\1</strong>", str(Markup.escape(text))))
    script, style = (_joined(files) for files in (SCRIPTS, ("page.css",)))
    return world.get_template("page.html").render(
        sections=sections(runs),
        records=Markup(as_json(groups(runs, find_texts(runs, data)))),
        script=Markup(script),
        style=Markup(style),
        digest=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _joined(files: Sequence[str]) -> str:
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in files)


def as_json(value: Any) -> str:
    """For the inside of a script element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(ESCAPED)
