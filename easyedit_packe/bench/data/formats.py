"""Every format of data files that can be read, and finding out which one a file has. To add one, add a line here."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import cache
from ...errors import one_of
from .counterfact import read_counterfact, read_multi_counterfact, read_neighbourhood
from .demo import FILE, read_demo
from .hallueditbench import read_hallueditbench, rows_of
from .knowedit import read_knowedit
from .questions import read_qaedit, read_wikibigedit
from .record import DataError, Record, tidied
from .zsre import read_zsre


@dataclass(frozen=True)
class Format:
    """One line of the table.

    Attributes:
        name: `data=` of the benchmark.
        read: (path, raw records) -> records.
        keys: what each raw record must have; of alternatives ("prompt|text"), one.
        files: names that are looked for in a folder, in this order.
        compares: ROME's metrics compare the probabilities of new and old answer; otherwise they are accuracies.
        own: the file, where it is part of this package.
    """

    name: str
    read: Callable[[Path, list[dict[str, Any]]], Iterator[Record]]
    keys: tuple[str, ...]
    files: tuple[str, ...] = ()
    compares: bool = False
    own: Path | None = None

    def missing(self, raw: list[dict[str, Any]]) -> list[str]:
        """Keys that some record lacks."""
        return [key for key in self.keys if not all(any(k in r for k in key.split("|")) for r in raw)]


FORMATS = {
    f.name: f
    for f in (
        Format(
            "zsre", read_zsre, ("src", "alt", "rephrase", "answers", "loc", "loc_ans"),
            ("zsre_mend_eval.json", "zsre_mend_eval_portability_gpt4.json", "zsre_paper_3k.json"),
        ),
        Format(
            "counterfact", read_counterfact,
            (
                "prompt", "subject", "target_new", "ground_truth", "rephrase_prompt", "locality_prompt",
                "locality_ground_truth",
            ),
            ("counterfact-edit.json", "counterfact-val.json", "counterfact_paper_3k.json"),
            compares=True,
        ),
        Format(
            "mcf", read_multi_counterfact, ("requested_rewrite", "paraphrase_prompts", "neighborhood_prompts"),
            ("counterfact.json", "multi_counterfact.json"),
            compares=True,
        ),
        Format(
            "neighbourhood", read_neighbourhood,
            ("prompt", "subject", "target_new", "ground_truth", "rephrase_prompts", "neighborhood_prompts"),
            ("counterfact_neighborhood_500.json",),
            compares=True,
        ),
        Format(
            "knowedit", read_knowedit, ("prompt|text", "subject|concept", "target_new|labels", "locality"),
            ("test_cf.json", "ZsRE-test-all.json", "recent_test.json", "wikibio-test-all.json"),
        ),
        Format(
            "qaedit", read_qaedit, ("id", "prompt", "target", "subject", "rephrase", "locality"),
            ("QAEdit_inter_1k.json", "qaedit_700.json"),
        ),
        Format(
            "wikibigedit", read_wikibigedit, ("subject", "update|prompt", "ans|target_new", "rephrase|rephrase_prompt"),
            ("wikibigedit_2k.json", "wiki_big_edit.json"),
        ),
        Format(
            "hallueditbench", read_hallueditbench, ("subject", "object", "question"),
            ("hallueditbench.csv",),
        ),
        Format(
            "demo", read_demo, ("subject", "prompt", "old", "new", "paraphrases", "neighbours", "same_subject"),
            compares=True,
            own=FILE,
        ),
    )
}  # fmt: skip

_BROKEN = (AssertionError, KeyError, TypeError, IndexError, AttributeError, ValueError, UnicodeDecodeError)


def find_file(data_dir: str | Path, data: str) -> Path:
    """`data_dir` itself if it is a file, else the format's file in it (or in a folder of its name).

    Raises:
        DataError: unknown format, or no such file.
    """
    if data not in FORMATS:
        raise DataError(f"data: {one_of(data, list(FORMATS))}; got {data!r}.")
    path, names, own = Path(data_dir).expanduser(), FORMATS[data].files, FORMATS[data].own
    if path.is_file():
        return path
    if own is not None:
        return own
    for folder in (path, path / data, path / "counterfact" if FORMATS[data].compares else path):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    near = ""
    if not path.exists() and path.parent.is_dir():
        near = f" In {path.parent}: {one_of(path.name, sorted(p.name for p in path.parent.iterdir())[:20])}."
    raise DataError(f"{data_dir} is no file and holds none of {', '.join(names)}; give data_dir the file itself.{near}")


def digest(file: Path) -> str:
    """By which a run knows its data file again, whatever its name."""
    return cache.digest(file)[:16]


def read_records(data_dir: str | Path, data: str, size: int | None = None) -> list[Record]:
    """The first `size` records that can be edited; those without a prompt or a target are left out, as EasyEdit does.

    Args:
        data_dir: a folder or the file itself.
        data: a name of `FORMATS`.

    Raises:
        DataError: unknown format, no such file, or a file of another format: the message says which it has, or what
            each format misses in it.
    """
    path = find_file(data_dir, data)
    raw = _raw(path)
    missing = FORMATS[data].missing(raw)
    if missing:
        raise DataError(f"{path} is no {data} file: its records lack {', '.join(missing)}. {_other(raw, data)}")
    found: list[Record] = []
    try:
        found.extend(FORMATS[data].read(path, raw))
    except DataError as e:
        raise DataError(f"{path}: {e}.") from e
    except _BROKEN as e:
        raise DataError(
            f"{path}: after {len(found)} records one cannot be read as {data} ({type(e).__name__}: {e}); mend it or "
            "leave it out."
        ) from e
    records = [r for r in map(tidied, found) if r.prompt and r.target_new]
    if not records:
        raise DataError(f"{path} holds no record that can be edited.")
    if len({r.case_id for r in records}) < len(records):  # rows of results are told apart by it
        records = [dataclasses.replace(r, case_id=i) for i, r in enumerate(records)]
    return records[:size]


def _raw(path: Path) -> list[dict[str, Any]]:
    try:
        raw = rows_of(path) if path.suffix == ".csv" else json.loads(path.read_text(encoding="utf-8-sig"))
    except KeyError as e:
        raise DataError(f"{path}: expected a column {e} in a CSV file of HalluEditBench; there is none.") from e
    except (OSError, ValueError, csv.Error) as e:
        raise DataError(f"{path} is readable neither as JSON nor, with .csv, as CSV: {e}.") from e
    if not isinstance(raw, list) or not raw or not all(isinstance(r, dict) for r in raw):
        raise DataError(f"{path}: expected a list of records, got {type(raw).__name__} without any record.")
    return raw


def _other(raw: list[dict[str, Any]], data: str) -> str:
    fits = [f.name for f in FORMATS.values() if f.name != data and not f.missing(raw)]
    if fits:
        return f"It has the form of data={' or data='.join(fits)}."
    tried = "; ".join(f"{f.name} lacks {', '.join(f.missing(raw))}" for f in FORMATS.values() if f.missing(raw))
    return f"No format fits ({tried})."
