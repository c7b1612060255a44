"""ZsRE and CounterFact files, through EasyEdit's own dataset classes where these read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..easyedit import parts
from ..errors import PaCKEError, one_of

FILES = {
    "ZsRE": ("zsre_mend_eval.json", "zsre_mend_eval_portability_gpt4.json", "zsre_paper_3k.json"),
    "CF": ("counterfact-edit.json", "counterfact-val.json", "counterfact_paper_3k.json"),
    "MCF": ("counterfact.json", "multi_counterfact.json"),
}
"""Data type -> file names that are looked for in a folder, in this order."""


class DataError(PaCKEError, ValueError):
    """A data file is missing or is not what its data type says."""


@dataclass(frozen=True)
class Record:
    """One fact of a data set: what is edited, and what is measured and never shown to an editor."""

    case_id: int
    prompt: str
    subject: str | None
    target_new: str
    ground_truth: str
    rephrase_prompt: str
    locality_prompt: str
    locality_ground_truth: str


def find_file(data_dir: str | Path, data_type: str) -> Path:
    """`data_dir` itself if it is a file, else the data type's file in it (or in a folder of its name).

    Raises:
        DataError: unknown data type, or no such file.
    """
    if data_type not in FILES:
        raise DataError(f"data_type: {one_of(data_type, list(FILES))}; got {data_type!r}.")
    path = Path(data_dir).expanduser()
    if path.is_file():
        return path
    for folder in (path, path / data_type, path / {"ZsRE": "zsre"}.get(data_type, "counterfact")):
        for name in FILES[data_type]:
            if (folder / name).is_file():
                return folder / name
    near = ""
    if not path.exists() and path.parent.is_dir():
        near = f" In {path.parent}: {one_of(path.name, sorted(p.name for p in path.parent.iterdir())[:20])}."
    raise DataError(
        f"{data_dir} is no file and holds none of {', '.join(FILES[data_type])}; give data_dir the file itself.{near}"
    )


def read_records(data_dir: str | Path, data_type: str, size: int | None = None) -> list[Record]:
    """The first `size` records that can be edited; EasyEdit's ZsRE class skips those with an empty target.

    Args:
        data_dir: a folder or the file itself.
        data_type: "ZsRE" (`zsre_mend_eval.json`), "CF" (EasyEdit's `counterfact-edit.json`) or "MCF" (ROME's
            `counterfact.json`; its first paraphrase and first neighbour are used).

    Raises:
        DataError: unknown type, no such file, or a file of another format.
    """
    path = find_file(data_dir, data_type)
    try:
        records = list(_READERS[data_type](path))
    except (AssertionError, KeyError, TypeError, IndexError, AttributeError, ValueError) as e:
        raise DataError(
            f"{path} is not a {data_type} file ({type(e).__name__}: {e}); try --data_type "
            f"{' or '.join(t for t in FILES if t != data_type)}."
        ) from e
    if not records:
        raise DataError(f"{path} holds no record that can be edited.")
    return records[:size]


def _zsre(path: Path) -> Iterator[Record]:
    raw = json.loads(path.read_text(encoding="utf-8"))
    for r in parts.read_dataset("ZsreDataset", path):
        yield Record(
            r["case_id"], r["prompt"], raw[r["case_id"]].get("subject"), r["target_new"], r["ground_truth"],
            r["rephrase_prompt"], r["locality_prompt"], r["locality_ground_truth"],
        )  # fmt: skip


def _counterfact(path: Path) -> Iterator[Record]:
    for i, r in enumerate(parts.read_dataset("CounterFactDataset", path)):
        yield Record(
            r.get("case_id", i), r["prompt"], r["subject"], r["target_new"], r["ground_truth"],
            r["rephrase_prompt"], r["locality_prompt"], r["locality_ground_truth"],
        )  # fmt: skip


def _multi_counterfact(path: Path) -> Iterator[Record]:
    for r in json.loads(path.read_text(encoding="utf-8")):
        edit = r["requested_rewrite"]
        true = edit["target_true"]["str"]
        yield Record(
            r["case_id"], edit["prompt"].format(edit["subject"]), edit["subject"], edit["target_new"]["str"], true,
            r["paraphrase_prompts"][0], r["neighborhood_prompts"][0], true,
        )  # fmt: skip


_READERS = {"ZsRE": _zsre, "CF": _counterfact, "MCF": _multi_counterfact}
