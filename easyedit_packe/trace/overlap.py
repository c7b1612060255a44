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


@dataclass(frozen=True)
class Pair:
    """What two facts' critical nodes have in common.

    Attributes:
        first, second: their numbers among the traces.
        jaccard: |A and B| / |A or B| of their T+ sets; a node is a module's name and an index.
        shared: |A and B|.
        share: |A and B| / |A|; both facts' T+ are equally large.
        by_layer: how many nodes they share in each layer, of those where they share any.
        chance: the share that two sets drawn at random would have, |T+| / M.
    """

    first: int
    second: int
    jaccard: float
    shared: int
    share: float
    by_layer: dict[int, int]
    chance: float

    @property
    def layers(self) -> list[int]:
        """The layers where they share most, as many as hold half of the shared nodes; most first."""
        found, held = [], 0
        for layer, shared in sorted(self.by_layer.items(), key=lambda item: (-item[1], item[0])):
            if 2 * held >= self.shared:
                break
            found.append(layer)
            held += shared
        return found


@dataclass(frozen=True)
class Overlap:
    """What the critical nodes of several facts have in common.

    Attributes:
        traces: of the facts, each traced by itself.
        jaccard: of each with each, float32 [N, N].
        pairs: all pairs, those with most in common first.
    """

    traces: tuple[Trace, ...]
    jaccard: Tensor
    pairs: tuple[Pair, ...]


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
    chance = len(next(iter(traces[0].nodes.critical.values()))) / traces[0].modules[0].num_nodes
    nodes = [t.critical for t in traces]
    jaccard, pairs = torch.eye(len(traces)), []
    for i, j in combinations(range(len(traces)), 2):
        both = nodes[i] & nodes[j]
        jaccard[i, j] = jaccard[j, i] = len(both) / len(nodes[i] | nodes[j])
        by_layer = Counter(layer[name] for name, _ in both)
        pairs.append(
            Pair(
                i, j, float(jaccard[i, j]), len(both), len(both) / len(nodes[i]), dict(sorted(by_layer.items())), chance
            )
        )
    pairs.sort(key=lambda p: (-p.shared, p.first, p.second))
    return Overlap(tuple(traces), jaccard, tuple(pairs))
