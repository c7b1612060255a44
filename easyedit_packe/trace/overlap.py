"""How much the critical paths of several facts have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from ..errors import RequestError
from .trace import Trace

COLLIDES = 0.3
"""Share of their T+ from which on two facts are said to collide (`benchmarks/collisions.py`)."""


@dataclass(frozen=True)
class Pair:
    """What two facts' critical nodes have in common.

    Attributes:
        first, second: their numbers among the traces.
        jaccard: |A and B| / |A or B| of their T+ sets; a node is a module's name and an index.
        shared: |A and B|.
        share: |A and B| / |A|; both facts' T+ are equally large.
        by_layer: how many nodes they share in each layer, of those where they share any.
    """

    first: int
    second: int
    jaccard: float
    shared: int
    share: float
    by_layer: dict[int, int]

    @property
    def collides(self) -> bool:
        """Whether an edit of the one is likely to disturb an edit of the other."""
        return self.share >= COLLIDES

    @property
    def layers(self) -> list[int]:
        """Those where they share nodes, most first."""
        return sorted(self.by_layer, key=lambda layer: (-self.by_layer[layer], layer))


@dataclass(frozen=True)
class Overlap:
    """What the critical nodes of several facts have in common.

    Attributes:
        traces: of the facts, each traced by itself.
        jaccard: of each with each, float32 [N, N].
        pairs: all pairs, those with most in common first.
        chance: the share that two sets drawn at random would have, |T+| / M, mean over the modules.
    """

    traces: tuple[Trace, ...]
    jaccard: Tensor
    pairs: tuple[Pair, ...]
    chance: float


def overlap(traces: Sequence[Trace]) -> Overlap:
    """Compare the T+ sets of facts that were traced by themselves, as `trace_requests` returns them.

    Raises:
        RequestError: fewer than two traces, or traces of different models or settings.
    """
    if len(traces) < 2:
        raise RequestError(f"expected at least two facts to compare, got {len(traces)}; add requests.")
    if len({(t.modules, len(t.critical)) for t in traces}) > 1:
        raise RequestError("expected traces of one model by the same settings; trace all facts in one call.")
    layer = {m.name: m.layer for m in traces[0].modules}
    chances = [len(traces[0].nodes.critical[m.name]) / m.num_nodes for m in traces[0].modules]
    nodes = [t.critical for t in traces]
    jaccard, pairs = torch.eye(len(traces)), []
    for i, j in combinations(range(len(traces)), 2):
        both = nodes[i] & nodes[j]
        jaccard[i, j] = jaccard[j, i] = len(both) / len(nodes[i] | nodes[j])
        by_layer = Counter(layer[name] for name, _ in both)
        pairs.append(
            Pair(i, j, float(jaccard[i, j]), len(both), len(both) / len(nodes[i]), dict(sorted(by_layer.items())))
        )
    pairs.sort(key=lambda p: (-p.shared, p.first, p.second))
    return Overlap(tuple(traces), jaccard, tuple(pairs), sum(chances) / len(chances))
