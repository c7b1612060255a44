"""A trace and an overlap as a terminal shows them, at 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from .overlap import COLLIDES, Overlap, Pair
from .trace import Change, Trace, name_of, would_change

COLOR = {"key": "blue", "value": "dark_orange"}
BAR = 8
"""Characters of the longest bar."""
MATRIX = 9
"""Facts whose overlaps are shown each with each; of more, pairs alone."""
PAIRS = 10
"""Pairs that are named."""
LAYERS = 4
"""Layers that are named of a pair."""
NAME = 50
"""Most characters of a prompt."""


def one_fact(trace: Trace) -> Iterator[RenderableType]:
    """The path of a fact, layer by layer, and what its edit would move."""
    critical, negative = (len(next(iter(sets.values()))) for sets in (trace.nodes.critical, trace.nodes.negative))
    yield Text(name_of(trace, NAME), style="bold")
    yield path_table(trace)
    yield Text(
        f"T+: the {critical} best of the {trace.nodes_a_layer} keys, and of as many values, of each layer, by "
        f"{trace.score}; 'T+ has' is their share of all scores of their matrix. T-: the {negative} worst of each."
    )
    yield would_move(would_change([trace]))


def path_table(trace: Trace) -> Table:
    """The best key and the best value of each layer, and how much of its matrix's score T+ has."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("layer", justify="right", no_wrap=True, min_width=5)
    for kind, color in COLOR.items():
        table.add_column(f"best {kind}", justify="right", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("", style=color, no_wrap=True, width=BAR)
        table.add_column("T+ has", justify="right", no_wrap=True)
    most = {kind: max(abs(s) for m, _, s in trace.path if m.kind == kind) for kind in COLOR}
    rows: dict[int, list[str]] = {}
    for m, node, score in trace.path:
        scores = trace.scores[m.name].abs()
        whole = float(scores.sum())  # 0 where the model is so sure that no gradient is left
        has = float(scores[trace.nodes.critical[m.name]].sum()) / whole if whole else 0.0
        bar = "█" * round(BAR * abs(score) / most[m.kind]) if most[m.kind] else ""
        rows.setdefault(m.layer, []).extend([str(node), f"{score:#.3g}", bar, f"{has:.0%}"])
    for layer, cells in rows.items():
        table.add_row(str(layer), *cells)
    return table


def several_facts(overlap: Overlap, edit: Sequence[Trace]) -> Iterator[RenderableType]:
    """What the paths of several facts have in common, which collide, and what the edit of all would move.

    Args:
        edit: the traces whose nodes the edit would change.
    """
    if len(overlap.traces) <= MATRIX:
        for number, trace in enumerate(overlap.traces, 1):
            yield Text(f"{number:>3}  {name_of(trace, NAME)}")
        yield Text("\nT+ in common, by all nodes that either of the two has (Jaccard index):")
        yield overlap_table(overlap)
    colliding = [p for p in overlap.pairs if p.collides]
    yield Text(_verdict(colliding, overlap), style="bold")
    for pair in (colliding or overlap.pairs)[:PAIRS]:
        yield from _named(pair, overlap)
    if len(colliding) > PAIRS:
        yield Text(f"and {len(colliding) - PAIRS} more pairs; --json has all.")
    in_turn = "the facts in turn, each traced anew on top of those before, about"
    how = "all facts traced together" if len(edit) == 1 else in_turn
    yield Text(f"\nAs one edit, {how}:")
    yield would_move(would_change(edit))


def overlap_table(overlap: Overlap) -> Table:
    """The Jaccard index of each with each, in percent; pairs that collide stand out."""
    n = len(overlap.traces)
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    for title in ("", *range(1, n + 1)):
        table.add_column(str(title), justify="right", min_width=4)
    collide = {frozenset((p.first, p.second)) for p in overlap.pairs if p.collides}
    for i, row in enumerate(overlap.jaccard.tolist()):
        style = ["bold red" if {i, j} in collide else "" for j in range(n)]
        cells = [Text("·" if i == j else f"{100 * value:.0f}", style=style[j]) for j, value in enumerate(row)]
        table.add_row(str(i + 1), *cells)
    return table


def would_move(change: Change) -> Text:
    return Text(
        f"PaCKE would move {change.vectors:,} vectors with {change.weights:,} weights, {change.share:.2%} of the "
        f"model; the patch would have about {change.bytes / 1e6:.1f} MB."
    )


def _verdict(colliding: Sequence[Pair], overlap: Overlap) -> str:
    which = f"share {COLLIDES:.0%} of T+ or more (two drawn at random: {overlap.chance:.1%})"
    if not colliding:
        return f"\nNo two facts {which}. Those with most in common:"
    return (
        f"\n{len(colliding)} of {len(overlap.pairs)} pairs collide, that is, {which}: editing one is likely to "
        "disturb the other."
    )


def _named(pair: Pair, overlap: Overlap) -> Iterator[RenderableType]:
    most = ", ".join(f"{layer} ({pair.by_layer[layer]})" for layer in pair.layers[:LAYERS])
    yield Text(f"{pair.share:>4.0%}  {name_of(overlap.traces[pair.first], NAME)}")
    yield Text(f"      {name_of(overlap.traces[pair.second], NAME)}")
    yield Text(f"      {pair.shared} nodes in common, most in layers {most}", style="dim")
