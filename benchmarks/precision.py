"""What rounding to half precision leaves of an edit, and which remedies help.

    python benchmarks/precision.py --counterfact FILE --json benchmarks/results/precision/smollm2-135m-bfloat16.json

Each of the first records of a CounterFact file is edited by itself, with several settings (`SETTINGS`); what was
trained is then put into the model in several ways (`WAYS`): as it was, beside the weights; rounded to the nearest
values; made larger by the least factor with which the target is said, and rounded; and rounded stochastically. PaCKE+
is also run with a look at the rounded weights at every step (`RoundedSlices`), so that its last steps may repair what
rounding did. Of each are kept the loss of the target, whether it is said, in the request and in paraphrases, and
whether neighbours' answers stay. Killed at any moment, the same command goes on where it stopped;
with a larger `--n`, with further records.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from resumed import rows_so_far, versions, write
from torch import Tensor

from easyedit_packe import EditRequest, PaCKEHyperParams, PaCKEPlusHyperParams
from easyedit_packe.bench.data import Record, read_records
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen
from easyedit_packe.model.load import load
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.rectify import Rectifier
from easyedit_packe.packe.rounding import round_to
from easyedit_packe.packe.slices import Slices
from easyedit_packe.patch import WeightPatch
from easyedit_packe.plus.rectify import PlusRectifier
from easyedit_packe.plus.state import EditMemory
from easyedit_packe.requests import Encoded, collate, encode

MODEL = "smollm2-135m"
FACTORS = (1.0, 1.1, 1.25, 1.5)
"""By how much a change is made larger until its target is said."""
WAYS = ("trained", "nearest", "larger", "stochastic")
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"lr": 1e-5, "num_steps": 12},
    "shipped": {},
    "wide": {"lr": 1e-5, "num_critical_paths": 1536},
    "PaCKE+": {},
    "PaCKE+ looking": {},
}
"""PaCKE with the paper's steps, which are too few for this model; as shipped; with as small steps of all nodes, which
are enough. PaCKE+ as shipped; looking at rounded weights."""


class RoundedSlices(Slices):
    """Slices that act as the rounded weights would, while what is trained stays unrounded."""

    @contextmanager
    def attached(self, train: bool = True) -> Iterator[None]:
        exact = self.weight
        changes = exact.detach().split([len(i) for i in self.index.values()])
        parts = []
        for m, change in zip(self.ffn.modules, changes, strict=True):
            old = m.nodes(self.index[m.name]).to(change.dtype)
            parts.append(round_to(old + change, m.weight.dtype) - old)
        self.weight = torch.cat(parts)
        try:
            with super().attached(train):
                yield
        finally:
            self.weight = exact


class Probes:
    """A record's texts, and what the unedited model says of them."""

    def __init__(self, model: Any, tok: Any, record: Record) -> None:
        self.model = model
        target = record.target_new
        self.request = EditRequest(record.prompt, target, record.subject)
        self.own = encode(tok, [self.request])
        self.paraphrases = encode(tok, [EditRequest(p, target) for p in record.rephrases])
        self.neighbours = encode(
            tok, [EditRequest(p.prompt, p.answers[0]) for probes in record.localities.values() for p in probes]
        )
        self.unedited = self.said(self.neighbours)[1]

    @torch.no_grad()
    def said(self, texts: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, first choices and targets of the answers' tokens [N]."""
        batch = collate(texts)
        logits = answer_logits(self.model, batch)
        return token_losses(logits, batch.targets), logits.argmax(-1), batch.targets

    def measured(self) -> dict[str, float]:
        (losses, first, targets), (_, others, wanted) = self.said(self.own), self.said(self.paraphrases)
        return {
            "loss": losses.mean().item(),
            "said": float((first == targets).all()),
            "paraphrases": (others == wanted).float().mean().item(),
            "neighbours": (self.said(self.neighbours)[1] == self.unedited).float().mean().item(),
        }

    def with_patch(self, patch: WeightPatch) -> dict[str, float]:
        patch.apply(self.model)
        try:
            return {**self.measured(), **patch.info.get("rounding", {})}
        finally:
            patch.revert(self.model)


def trained(model: Any, tok: Any, ffn: FFNMap, setting: str, probes: Probes) -> tuple[Slices, int]:
    """The changes of one edit before rounding, and the number of its steps."""
    run: Rectifier | PlusRectifier
    with frozen(model):
        if setting.startswith("PaCKE+"):
            hparams = PaCKEPlusHyperParams.from_hparams(MODEL)
            run = PlusRectifier(model, tok, ffn, [probes.request], hparams, EditMemory.of(model))
            if setting == "PaCKE+ looking":
                run.slices = RoundedSlices(run.ffn)
        else:
            shipped = PaCKEHyperParams.from_hparams(MODEL).to_dict()
            run = Rectifier(model, ffn, probes.own, PaCKEHyperParams(**{**shipped, **SETTINGS[setting]}))
        return run.slices, len(run.run().losses)


def measured(model: Any, tok: Any, ffn: FFNMap, setting: str, record: Record, seed: int) -> dict[str, Any]:
    """A row: one record's edit, put into the model in every way."""
    probes = Probes(model, tok, record)
    slices, steps = trained(model, tok, ffn, setting, probes)
    row: dict[str, Any] = {"setting": setting, "case_id": record.case_id, "steps": steps}
    with Slices.attached(slices, train=False):
        row["trained"] = probes.measured()
    row["nearest"] = probes.with_patch(slices.patch())
    row["stochastic"] = probes.with_patch(slices.patch("stochastic", seed))
    exact = slices.weight
    for factor in FACTORS:
        slices.weight = exact.detach() * factor
        row["larger"] = {**probes.with_patch(slices.patch()), "factor": factor}
        if row["larger"]["said"]:
            break
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the records that have been edited with every setting, by setting and way."""
    found: dict[str, Any] = {}
    settings = dict.fromkeys(r["setting"] for r in rows)
    whole = set.intersection(*({r["case_id"] for r in rows if r["setting"] == s} for s in settings))
    for setting in settings if whole else ():
        own = [r for r in rows if r["setting"] == setting and r["case_id"] in whole]
        ways = {w: {k: statistics.mean(r[w][k] for r in own) for k in own[0][w]} for w in WAYS}
        found[setting] = {"n": len(own), "steps": statistics.mean(r["steps"] for r in own), **ways}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counterfact", type=Path, required=True)
    parser.add_argument("--n", type=int, default=6, help="records, from the first on")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"])
    parser.add_argument("--seed", type=int, default=42, help="of stochastic rounding")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    model, tok = load(MODEL, dtype=getattr(torch, args.dtype))
    ffn = FFNMap.of(model)
    setting = {
        "model": MODEL, "dtype": args.dtype, "data": args.counterfact.name, "seed": args.seed,
        "settings": args.settings, **versions(),
    }  # fmt: skip
    rows = rows_so_far(args.json, setting, "rows")
    for record in read_records(args.counterfact, "counterfact", args.n):
        for name in args.settings:
            if any((r["setting"], r["case_id"]) == (name, record.case_id) for r in rows):
                continue
            rows.append(measured(model, tok, ffn, name, record, args.seed))
            found = {"setting": setting, "means": summary(rows), "rows": rows}
            write(args.json, found)
            print(f"{name}, {record.prompt}: {rows[-1]['nearest']}", flush=True)


if __name__ == "__main__":
    main()
