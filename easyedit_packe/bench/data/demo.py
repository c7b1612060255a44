"""The facts that are part of this package, so that editors can be compared without any file of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .record import Probe, Probes, Record, kinds

FILE = Path(__file__).parent.parent / "content" / "demo.json"


def read_demo(path: Path, raw: list[dict[str, Any]]) -> Iterator[Record]:
    """`{}` stands for the subject. What follows from a fact (`one_hop`) and other names of its subject (`alias`) are
    portability; `neighbours` and the subject's other facts (`same_subject`) must stay."""
    for i, r in enumerate(raw):
        subject = r["subject"]

        def probes(items: list[dict[str, str]], subject: str = subject) -> Probes:
            return tuple(Probe(item["prompt"].replace("{}", subject), (item["answer"],)) for item in items)

        alias = [{**item, "answer": r["new"]} for item in r.get("alias", [])]
        yield Record(
            case_id=i,
            prompt=r["prompt"].replace("{}", subject),
            subject=subject,
            target_new=r["new"],
            ground_truth=r["old"],
            rephrases=tuple(p.replace("{}", subject) for p in r["paraphrases"]),
            localities={"neighborhood": probes(r["neighbours"])},
            portability=kinds(one_hop=probes(r.get("one_hop", [])), subject_aliasing=probes(alias)),
            same_subject=probes(r["same_subject"]),
        )
