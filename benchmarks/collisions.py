"""Whether facts whose paths overlap disturb each other: edit one, then another on top, and ask the first again.

    python benchmarks/collisions.py --json benchmarks/results/collisions/smollm2-135m.json

Of the package's own facts (`data=demo`) some are drawn as the first edit. Each is followed by those others that have
most and least of T+ in common with it, and by others drawn at random, one at a time. Then come pairs drawn from all
that are said to collide. The drop is by how much the log-odds of the first fact's target fall after its prompt, all its
tokens together, through the second edit; the first edit is `lost` where its target's tokens are no longer all the
model's first choice. What is known before any edit is set against it: the overlap, the product of gradients, and what
one step of the second edit does. Killed at any moment, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from resumed import rows_so_far, versions, write
from scipy.stats import spearmanr

from easyedit_packe import EditRequest, PaCKEHyperParams, compute_patch, overlap, trace_requests
from easyedit_packe.bench.data.formats import read_records
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen
from easyedit_packe.model.load import load
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.rectify import Rectifier
from easyedit_packe.packe.tracing import factors, gradients_of
from easyedit_packe.requests import collate, encode
from easyedit_packe.trace.overlap import COLLIDES, Overlap

MODEL = "smollm2-135m"
EACH = 2
"""Facts with most, and with least, in common with the first, and facts drawn at random."""
PREDICTORS = ("overlap", "gradients", "step")


def plan(found: Overlap, firsts: int, close: int, seed: int) -> list[tuple[int, dict[int, str]]]:
    """Each first fact, and the second ones by why they were taken."""
    draw = random.Random(seed)
    chosen: list[tuple[int, dict[int, str]]] = []
    for first in draw.sample(range(len(found.traces)), firsts):
        others = [i for i in found.jaccard[first].argsort(descending=True, stable=True).tolist() if i != first]
        middle = others[EACH:-EACH]
        why = dict.fromkeys(others[:EACH], "most") | dict.fromkeys(others[-EACH:], "least")
        chosen.append((first, why | dict.fromkeys(draw.sample(middle, EACH), "drawn")))
    together = [p for p in found.pairs if p.collides and {p.first, p.second} not in _both(chosen)]
    for p in draw.sample(together, min(close, len(together))):
        first, second = draw.sample((p.first, p.second), 2)
        chosen.append((first, {second: "close"}))
    return chosen


def _both(chosen: Sequence[tuple[int, dict[int, str]]]) -> list[set[int]]:
    return [{first, second} for first, seconds in chosen for second in seconds]


class Facts:
    """The facts and their model."""

    def __init__(self) -> None:
        self.model, self.tok = load(MODEL)
        self.hparams = PaCKEHyperParams.from_hparams(MODEL)
        self.requests = [EditRequest(r.prompt, r.target_new, r.subject) for r in read_records("", "demo")]
        self.encoded = encode(self.tok, self.requests)
        self.ffn = FFNMap.of(self.model)
        self.overlap = overlap(trace_requests(self.model, self.tok, self.requests, self.hparams))

    @torch.no_grad()
    def logits(self, fact: int) -> torch.Tensor:
        """At the target's tokens [A, V]."""
        return answer_logits(self.model, collate([self.encoded[fact]]))

    def target(self, fact: int) -> dict[str, Any]:
        """Log-odds of the whole target, and whether each of its tokens is the model's first choice."""
        logits, answer = self.logits(fact), self.encoded[fact].answer
        chance = -token_losses(logits, answer).double().sum().item()
        return {"log_odds": chance - math.log(-math.expm1(chance)), "said": bool((logits.argmax(-1) == answer).all())}

    def gradients(self, fact: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """By module, the two factors of the gradient of a fact's loss."""
        found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        batch = collate([self.encoded[fact]])
        loss: Callable[[], torch.Tensor] = lambda: token_losses(answer_logits(self.model, batch), batch.targets).mean()  # noqa: E731
        with frozen(self.model):
            gradients_of(self.ffn.modules, loss, lambda m, x, g: found.update({m.name: factors(m, x, g)}))
        return found

    def product(self, first: int, second: int) -> float:
        """Cosine of two facts' gradients at the nodes that an edit of the second changes."""
        one, two = self.gradients(first), self.gradients(second)
        sums = torch.zeros(3)
        for name, nodes in self.overlap.traces[second].nodes.critical.items():
            g, h = ((inner[:, nodes].T @ hidden).flatten() for hidden, inner in (one[name], two[name]))
            sums += torch.stack([g @ h, g @ g, h @ h])
        return float(sums[0] / (sums[1] * sums[2]).sqrt())

    def one_step(self, first: int, second: int, times: float = 8.0) -> float:
        """How far the second edit's first step, made longer, moves what the model says at the first fact's target:
        Kullback-Leibler divergence, mean over its tokens."""
        before = self.logits(first).log_softmax(-1)
        with frozen(self.model):
            edit = Rectifier(self.model, self.ffn, [self.encoded[second]], self.hparams)
            batches = list(edit.optimizer_batches())
            edit.trace_for(batches)
            edit.train_on(batches[0], may_stop=False)
            edit.slices.weight = edit.slices.weight.detach() * times
            with edit.slices.attached(train=False):
                after = self.logits(first).log_softmax(-1)
        return float((before.exp() * (before - after)).sum(-1).mean())

    def measured(self, first: int, seconds: dict[int, str]) -> list[dict[str, Any]]:
        """A row for each second edit, on top of the first."""
        known = {s: {"gradients": self.product(first, s), "step": self.one_step(first, s)} for s in seconds}
        patch = compute_patch(self.model, self.tok, [self.requests[first]], self.hparams)
        patch.apply(self.model)
        alone, rows = self.target(first), []
        for second, why in seconds.items():
            (pair,) = [p for p in self.overlap.pairs if {p.first, p.second} == {first, second}]
            on_top = compute_patch(self.model, self.tok, [self.requests[second]], self.hparams)
            on_top.apply(self.model)
            then = self.target(first)
            on_top.revert(self.model)
            rows.append({
                "first": first, "second": second, "group": why, "overlap": pair.jaccard, "share": pair.share,
                **known[second], "alone": alone["log_odds"], "drop": alone["log_odds"] - then["log_odds"],
                "lost": alone["said"] and not then["said"],
                "facts": [f"{r.prompt} {r.target}" for r in (self.requests[first], self.requests[second])],
            })  # fmt: skip
        patch.revert(self.model)
        return rows


def mean(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of these pairs: how many, the mean drop and its standard error, and how many first edits were lost."""
    drops = [r["drop"] for r in rows]
    error = statistics.stdev(drops) / len(drops) ** 0.5 if len(drops) > 1 else math.nan
    return {
        "n": len(rows), "drop": statistics.mean(drops), "se": error, "median": statistics.median(drops),
        "over_1": sum(d > 1 for d in drops), "lost": sum(r["lost"] for r in rows),
        "share": statistics.mean(r["share"] for r in rows),
    }  # fmt: skip


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By group; by whether they are said to collide; and how well each predictor orders the drops."""
    by_first = [
        statistics.mean(r["drop"] for r in rows if r["first"] == f and r["group"] == "most")
        - statistics.mean(r["drop"] for r in rows if r["first"] == f and r["group"] == "least")
        for f in sorted({r["first"] for r in rows if r["group"] == "most"})
    ]
    return {
        "groups": {g: mean([r for r in rows if r["group"] == g]) for g in ("most", "drawn", "least", "close")},
        "collide": mean([r for r in rows if r["share"] >= COLLIDES]),
        "apart": mean([r for r in rows if r["share"] < COLLIDES]),
        "most_minus_least": {
            "n": len(by_first), "drop": statistics.mean(by_first),
            "se": statistics.stdev(by_first) / len(by_first) ** 0.5,
        },
        "rank_correlation": {
            p: float(spearmanr([r[p] for r in rows], [r["drop"] for r in rows]).statistic) for p in PREDICTORS
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--firsts", type=int, default=12, help="facts that are edited first")
    parser.add_argument("--close", type=int, default=12, help="further pairs, of those that collide")
    parser.add_argument("--seed", type=int, default=1, help="draws them, and some that follow")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    facts = Facts()
    setting = {
        "model": MODEL, "data": "demo", "n_facts": len(facts.requests), "seed": args.seed, "firsts": args.firsts,
        "close": args.close, "collides": COLLIDES, **versions(),
    }  # fmt: skip
    rows = rows_so_far(args.json, setting, "pairs")
    wanted = plan(facts.overlap, args.firsts, args.close, args.seed)
    for first, seconds in wanted:
        if not all(any((r["first"], r["second"]) == (first, s) for r in rows) for s in seconds):
            rows += facts.measured(first, seconds)
            complete = len(rows) == sum(len(s) for _, s in wanted)
            found = {"setting": setting, **(summary(rows) if complete else {}), "pairs": rows}
            write(args.json, found)
            print(f"{len(rows)} pairs; {facts.requests[first].text}")


if __name__ == "__main__":
    main()
