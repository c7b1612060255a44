"""A trace as plain values, for a program to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import __version__
from .overlap import Overlap
from .trace import Trace, would_change

KEYS = {
    "version": "of this package",
    "model": "name or folder of the model",
    "hparams": "every setting that it was traced with",
    "change": "what the edit would move: vectors, weights, share of the model's weights, bytes of the patch's tensors",
    "traces": "what was traced together: each request by itself, and with `trace: call` and several, last all of them",
    "traces.requests": "prompt, target_new and subject of each",
    "traces.modules": "the key and the value module of each layer: name, layer, kind, num_nodes",
    "traces.modules.critical": "its nodes of T+, best first: index and score",
    "traces.modules.negative": "its nodes of T-, worst first: index and score",
    "overlap": "of several requests, all pairs, those with most in common first; null for one",
    "overlap.facts": "numbers of the two requests, from 0",
    "overlap.jaccard": "nodes of T+ that both have, by nodes that either has",
    "overlap.shared": "nodes of T+ that both have",
    "overlap.share": "the same, by nodes that each has",
    "overlap.by_layer": "the same, by layer",
}
"""What each key of the document holds."""


def document(
    model: str, hparams: dict[str, Any], edit: Sequence[Trace], traces: Sequence[Trace], overlap: Overlap | None
) -> dict[str, Any]:
    """The keys of `KEYS`.

    Args:
        edit: the traces whose nodes the edit would change.
        traces: all that are to be shown.
    """
    return {
        "version": __version__,
        "model": model,
        "hparams": hparams,
        "change": vars(would_change(edit)),
        "traces": [_trace(t) for t in traces],
        "overlap": None if overlap is None else [
            {
                "facts": [p.first, p.second], "jaccard": p.jaccard, "shared": p.shared, "share": p.share,
                "by_layer": p.by_layer,
            }
            for p in overlap.pairs
        ],
    }  # fmt: skip


def _trace(trace: Trace) -> dict[str, Any]:
    def nodes(name: str, kind: str) -> list[dict[str, Any]]:
        index = getattr(trace.nodes, kind)[name]
        scores = trace.scores[name][index].tolist()
        return [{"index": j, "score": s} for j, s in zip(index.tolist(), scores, strict=True)]

    return {
        "requests": [{"prompt": r.prompt, "target_new": r.target, "subject": r.subject} for r in trace.requests],
        "modules": [
            {
                "name": m.name, "layer": m.layer, "kind": m.kind, "num_nodes": m.num_nodes,
                "critical": nodes(m.name, "critical"), "negative": nodes(m.name, "negative"),
            }
            for m in trace.modules
        ],
    }  # fmt: skip
