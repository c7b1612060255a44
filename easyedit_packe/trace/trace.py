"""The nodes that an edit will change, found as the edit itself finds them, without making it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import HyperParams, PaCKEHyperParams
from ..editor import Requests, as_asked
from ..errors import HyperParamsError
from ..model.config import max_tokens
from ..model.ffn import FFNMap, FFNModule, Kind
from ..model.hooks import frozen
from ..packe.rectify import Rectifier
from ..packe.tracing import NodeScores, NodeSets
from ..requests import EditRequest, Encoded, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Node = tuple[str, int]
"""A module's name, and the index of one of its nodes."""

INDEX_BYTES = 8
"""Of a node's index in a patch, an int64."""


@dataclass(frozen=True)
class TracedModule:
    """A key or value matrix without its weights.

    Attributes:
        name: dotted module name, e.g. `model.layers.3.mlp.up_proj`.
        layer: index of the decoder layer.
        kind: "key" or "value".
        num_nodes: M.
        hidden_size: D, the length of a node's vector.
        has_node_bias: whether each node has a bias entry as well.
        weight_bytes: of one weight, in the model's dtype.
        first: where node 0 lies in the weight, and so in a patch; above 0 where keys and a gate are one matrix.
    """

    name: str
    layer: int
    kind: Kind
    num_nodes: int
    hidden_size: int
    has_node_bias: bool
    weight_bytes: int
    first: int = 0

    @classmethod
    def of(cls, m: FFNModule, hidden_size: int) -> TracedModule:
        return cls(m.name, m.layer, m.kind, m.num_nodes, hidden_size, m.has_node_bias, m.weight.element_size(), m.first)


@dataclass(frozen=True)
class Trace:
    """The critical transmission paths of a fact, or of several that are traced together (paper, section 3.2).

    Attributes:
        requests: what was traced: one request, or all of an edit that traces them together. As it was asked: with a
            chat template, its text is the requests' `frame`.
        modules: the key and the value module of each layer, in the order of the forward pass.
        scores: by module name, the score of every node, [M] on the CPU, at least float32.
        nodes: T+ (`nodes.critical`) and T- (`nodes.negative`) by module name, as int64 indices on the CPU, best or
            worst first. These are what an edit with the same settings changes; where it traces again
            (`retrace_every`), what it begins with.
        score: how nodes were scored, `hparams.score`.
        model_weights: number of all weights of the model.
    """

    requests: tuple[EditRequest, ...]
    modules: tuple[TracedModule, ...]
    scores: NodeScores
    nodes: NodeSets
    score: str
    model_weights: int

    @property
    def layers(self) -> list[int]:
        """The decoder layers, first to last."""
        return sorted({m.layer for m in self.modules})

    @property
    def nodes_a_layer(self) -> str:
        """How many keys, and as many values, a layer has; where layers differ, the fewest and the most."""
        counts = sorted({m.num_nodes for m in self.modules})
        return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"

    @property
    def critical(self) -> set[Node]:
        """T+ as nodes of the model."""
        return {(name, j) for name, index in self.nodes.critical.items() for j in index.tolist()}

    @property
    def path(self) -> list[tuple[TracedModule, int, float]]:
        """The best path: of each module its best node, and that node's score."""
        best = [(m, int(self.nodes.critical[m.name][0])) for m in self.modules]
        return [(m, j, float(self.scores[m.name][j])) for m, j in best]


@dataclass(frozen=True)
class Change:
    """How much an edit moves.

    Attributes:
        vectors: nodes, of T+ and of T-.
        weights: single weights in them, bias entries included.
        share: of the model's weights.
        bytes: of the patch's tensors: each vector's index, old and new values. Its file has a header as well, some kB.
    """

    vectors: int
    weights: int
    share: float
    bytes: int


def trace_requests(model: PreTrainedModel, tok: Any, requests: Requests, hparams: HyperParams) -> list[Trace]:
    """Trace each request by itself, on the model as it stands; the model comes out as it went in.

    Args:
        model, tok, requests: as `compute_patch` takes them.
        hparams: PaCKE's settings.

    Returns:
        A trace a request, in their order: the nodes that an edit of this request alone would change.

    Raises:
        RequestError, ModelError: as `compute_patch` raises them.
        HyperParamsError: settings of PaCKE+, which has no path to show before its edit, or without critical paths.
    """
    return list(_traced(model, tok, requests, hparams, together=False))


def trace_together(model: PreTrainedModel, tok: Any, requests: Requests, hparams: HyperParams) -> Trace:
    """Trace the requests as one edit, as `compute_patch` does with `trace: call`; otherwise as `trace_requests`."""
    (found,) = _traced(model, tok, requests, hparams, together=True)
    return found


def would_change(traces: Sequence[Trace]) -> Change:
    """How much an edit moves that changes the nodes of all these traces; a node that several share is one.

    Raises:
        ValueError: no trace.
    """
    if not traces:
        raise ValueError("expected at least one trace, got none.")
    vectors = weights = size = indices = 0
    for m in traces[0].modules:
        chosen = [index for t in traces for index in (t.nodes.critical[m.name], t.nodes.negative[m.name])]
        nodes = len({j for index in chosen for j in index.tolist()})
        vectors += nodes
        weights += nodes * (m.hidden_size + m.has_node_bias)
        indices += nodes * (1 + m.has_node_bias)  # a patch keeps a matrix and a bias as two parameters
        size += 2 * m.weight_bytes * nodes * (m.hidden_size + m.has_node_bias)
    return Change(vectors, weights, weights / traces[0].model_weights, size + INDEX_BYTES * indices)


def name_of(trace: Trace, width: int) -> str:
    """What was traced, in one line, with at most so many characters of the prompt."""
    first, *others = trace.requests
    more = f", and {len(others)} more, traced together" if others else ""
    line = " ".join(first.prompt.split())
    whole_words = textwrap.shorten(line, width, placeholder=" …")
    short = whole_words if whole_words.strip() != "…" else f"{line[: width - 2]} …"  # Chinese has no spaces to cut at
    return f"{short} → {first.target}{more}"


def require_packe(hparams: HyperParams) -> PaCKEHyperParams:
    """Raises HyperParamsError for settings that have no path that could be shown: of another algorithm, or none."""
    if not isinstance(hparams, PaCKEHyperParams):
        raise HyperParamsError(
            f"expected PaCKEHyperParams, got {type(hparams).__name__}: PaCKE+ has no path to show before its edit, as "
            "it chooses key and value vectors by texts that it makes for the edit; "
            "trace with PaCKE's settings, or edit with PaCKE+ and look at the patch with `packe show`."
        )
    if hparams.num_critical_paths == 0:
        raise HyperParamsError("num_critical_paths: expected at least 1 to show a path, got 0; raise it.")
    return hparams


def _traced(
    model: PreTrainedModel, tok: Any, requests: Requests, hparams: HyperParams, together: bool
) -> Iterator[Trace]:
    settings = require_packe(hparams)
    ffn = FFNMap.of(model)
    asked = as_asked(tok, requests, hparams)
    encoded = encode(tok, asked, max_tokens(model))
    modules = tuple(TracedModule.of(m, ffn.hidden_size) for m in ffn.modules)
    weights = sum(p.numel() for p in model.parameters())
    groups = [(asked, encoded)] if together else [([r], [e]) for r, e in zip(asked, encoded, strict=True)]
    for of, texts in groups:
        scores, nodes = _nodes(model, ffn, texts, settings)
        yield Trace(tuple(of), modules, scores, nodes, settings.score, weights)


def _nodes(
    model: PreTrainedModel, ffn: FFNMap, texts: Sequence[Encoded], hparams: PaCKEHyperParams
) -> tuple[NodeScores, NodeSets]:
    """What an edit of these requests does first."""
    with frozen(model):
        edit = Rectifier(model, ffn, texts, hparams)
        nodes = edit.trace_for(list(edit.optimizer_batches()))
    return {name: score.cpu() for name, score in edit.scores.items()}, nodes
