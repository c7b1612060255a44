"""A study as one file: every row of a folder of runs, one JSON object a line, compressed.

    {"kind": "run",           "run": "MODEL/DATA/PROTOCOL/NAME", ...run.json}
    {"kind": "edit",          "run": "MODEL/DATA/PROTOCOL/NAME", ...a row of edits.jsonl}
    {"kind": "case",          "run": "MODEL/DATA/PROTOCOL/NAME", ...a row of cases.jsonl}
    {"kind": "unedited",      "run": "MODEL/DATA/unedited",      ...run.json}
    {"kind": "unedited_case", "run": "MODEL/DATA/unedited",      ...a row of cases.jsonl}
    {"kind": "tracing",       "run": "MODEL/DATA/importance/NAME", ...run.json}
    {"kind": "traced",        "run": "MODEL/DATA/importance/NAME", ...a row of nodes.jsonl}

The last two are of `packe importance`. "unedited" is "unedited-chat" beside runs that ask through a chat template.

`rows` reads a folder as such lines, `read` a file, so that a report need not know which of them it has; `zstd -dc FILE`
shows one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..cache import written_whole
from ..errors import needs
from .store import StoreError, as_line, read_json, read_rows, write_json

Row = dict[str, Any]

SUFFIX = ".jsonl.zst"
UNEDITED_KEY = ("case_id", "generation_measured", "judge")
"""What tells the rows of an unedited model apart; most have no judge."""
KINDS = ("run", "edit", "case", "unedited", "unedited_case", "tracing", "traced")
FILES = {"edit": "edits.jsonl", "case": "cases.jsonl", "unedited_case": "cases.jsonl", "traced": "nodes.jsonl"}
LEVEL = 19
"""Of compression: a study is packed once and fetched often."""


def unedited_folder(chat: bool) -> str:
    """Beside the protocols' folders; a model that is asked through its chat template says other things."""
    return "unedited-chat" if chat else "unedited"


def pack(folder: Path, file: Path) -> int:
    """Write the rows of a folder of runs; the same rows give the same bytes.

    Returns:
        The number of rows written.

    Raises:
        StoreError: there is no run in the folder, or the file's name does not end in `.jsonl.zst`.
        MissingPackageError: zstandard is not installed.
    """
    if not file.name.endswith(SUFFIX):
        raise StoreError(f"expected a file name that ends in {SUFFIX}, by which reports know it; got {str(file)!r}.")
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows(folder)]
    if not lines:
        raise StoreError(f"no run in {str(folder)!r}; give the out= folder of `packe bench`.")
    needs("zstandard", "bench")
    import zstandard

    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with written_whole(file) as part:
        part.write_bytes(compressor.compress("".join(lines).encode("utf-8")))
    return len(lines)


def read(file: Path) -> list[Row]:
    """The rows of an archive.

    Raises:
        StoreError: it is damaged, or no archive.
        MissingPackageError: zstandard is not installed.
    """
    needs("zstandard", "bench")
    import zstandard

    whole = zstandard.ZstdDecompressor().decompressobj()
    try:
        lines = whole.decompress(file.read_bytes()).decode("utf-8").removesuffix("\n").split("\n")
        found = [json.loads(line) for line in lines]
        if not whole.eof or any(row["kind"] not in KINDS for row in found):
            raise ValueError("it ends too early, or holds other rows")
    except (OSError, zstandard.ZstdError, ValueError, LookupError, TypeError) as e:
        raise StoreError(f"{file} is no archive of `packe pack`, or it is damaged ({e}); pack the folder again.") from e
    return found


def unpack(file: Path, folder: Path) -> int:
    """Write the runs of an archive as the folder that they came from; `packe bench` goes on with the unfinished ones.

    Returns:
        The number of runs written, those of unedited models included.

    Raises:
        StoreError: the archive is damaged, or the folder holds one of its runs; nothing is written then.
    """
    runs: dict[str, dict[str, list[Row]]] = {}
    for row in read(file):
        runs.setdefault(row.pop("run"), {}).setdefault(row.pop("kind"), []).append(row)
    outside = [name for name in runs if folder.resolve() not in (folder / name).resolve().parents]
    if outside:
        raise StoreError(f"{file}: expected runs inside the folder, got {outside[0]!r}; nothing was written.")
    there = [name for name in runs if (folder / name).exists()]
    if there:
        raise StoreError(f"{folder} holds {there[0]} already; unpack into another folder, or remove that one.")
    for name, kinds in runs.items():
        (folder / name).mkdir(parents=True)
        for kind, found in kinds.items():
            if kind in FILES:
                (folder / name / FILES[kind]).write_bytes(b"".join(map(as_line, found)))
        # Last: a folder without it is no run yet.
        (about,) = next(kinds[kind] for kind in ("run", "unedited", "tracing") if kind in kinds)
        write_json(folder / name / "run.json", about)
    return len(runs)


def rows(folder: Path) -> Iterator[Row]:
    """The rows of the runs at or below a folder, and of the unedited models beside them; in the same order whatever the
    order in the files."""
    folder = folder.resolve()
    found = {path.parent: read_json(path) for path in folder.rglob("run.json")}
    runs = {path: about for path, about in found.items() if "identity" in about}
    unedited = {path.parents[1] / unedited_folder("chat_template" in about["identity"]) for path, about in runs.items()}
    runs |= {path: read_json(path / "run.json") for path in unedited if (path / "run.json").is_file()}
    runs |= {path: about for path, about in found.items() if "tracing" in about}
    for name, path in sorted((_name(path, folder, path in unedited), path) for path in runs):
        yield from _rows_of(name, path, runs[path])


def _name(path: Path, folder: Path, is_unedited: bool) -> str:
    """`MODEL/DATA/PROTOCOL/NAME`, whatever the level the folder given stands at, and below it the study's own folder
    where several studies lie in one."""
    depth = 3 if is_unedited else 4
    out = path.parents[depth - 1]
    study = out.relative_to(folder).parts if out.is_relative_to(folder) else ()
    return "/".join((*study, *path.parts[-depth:]))


def _rows_of(name: str, folder: Path, about: Row) -> Iterator[Row]:
    if "identity" in about:
        yield _line("run", name, about)
        yield from _ordered("edit", name, read_rows(folder / "edits.jsonl", ("call",)))
        yield from _ordered("case", name, read_rows(folder / "cases.jsonl", ("after", "case_id")))
    elif "tracing" in about:
        yield _line("tracing", name, about)
        yield from _ordered("traced", name, read_rows(folder / "nodes.jsonl", ("case_id",)))
    else:
        cases = read_rows(folder / "cases.jsonl", UNEDITED_KEY)
        yield _line("unedited", name, about)
        yield from _ordered("unedited_case", name, cases)


def _ordered(kind: str, name: str, found: list[Row]) -> list[Row]:
    def place(row: Row) -> tuple[int, int, str]:
        number = row.get("call" if kind == "edit" else "case_id")
        text = json.dumps(row, sort_keys=True)  # for case ids that are no numbers, and several rows of a case
        return row.get("after", 0), number if isinstance(number, int) else 0, text

    return [_line(kind, name, row) for row in sorted(found, key=place)]


def _line(kind: str, name: str, row: Mapping[str, Any]) -> Row:
    """With its keys in order, at every depth."""
    return {"kind": kind, "run": name, **json.loads(json.dumps(row, sort_keys=True))}
