"""A plan in words: what will be run, how long it takes, what it needs, and by which assumptions that is said."""

from __future__ import annotations

from collections.abc import Sequence

from .budget import Chosen
from .costs import ASSUMED, Cost
from .machine import Machine
from .models import Sizes
from .needs import Need
from .plan import Item, LeftOut, Where


def plan_text(
    chosen: Chosen, left: Sequence[LeftOut], where: Where, machine: Machine, sizes: Sizes, hours: float | None
) -> str:
    """Runs by part and editor, both data sets together."""
    allowed = f", {hours:g} allowed" if hours is not None else ""
    blocks = [
        f"{where.name}: {sizes.weights / 1e9:.2f} billion weights in {where.dtype}, on {machine.name} "
        f"({machine.tera(where.dtype):g} TFLOPS, {machine.bandwidth:g} GB/s, {machine.memory:g} GB)",
        _table(chosen, where),
        f"{len(chosen.runs)} runs, about {chosen.hours:.1f} GPU hours{allowed}; "
        f"of these {_done(chosen, where)} are done. At the most {_peak(chosen):.0f} GB of GPU memory.",
        "Times and memory are estimates by the model's size and a GPU's data sheet, not measurements.",
    ]
    out = [*left, *chosen.left]
    if chosen.fewer or out:
        lines = [*chosen.fewer, *(f"{gone.part.name}, {gone.editor}: left out: {gone.reason}" for gone in out)]
        blocks.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(blocks)


def assumptions() -> str:
    """What the estimates take for granted."""
    lines = [f"  {name:<10} {value:>8g}  {meaning}" for name, (value, meaning) in ASSUMED.items()]
    return "\n".join(["The estimates assume (docs/reproduce.md has the formulas):", *lines])


def needs_text(needs: Sequence[Need]) -> str:
    return "\n".join(["A real run needs what is not here:", *(f"- {need}" for need in needs)]) if needs else ""


def _table(chosen: Chosen, where: Where) -> str:
    rows = [("part", "protocol", "editor", "records", "hours", "s / edit", "GB", "done")]
    groups: dict[tuple[str, str], list[tuple[Item, Cost]]] = {}
    for item, cost in chosen.runs:
        groups.setdefault((item.part.name, item.editor), []).append((item, cost))
    for (name, editor), runs in groups.items():
        done = sum(item.is_done(where) for item, _ in runs)
        first, costs = runs[0][0], [cost for _, cost in runs]
        rows.append(
            (
                name, first.part.protocol, editor, f"{len(runs)} x {first.n}",
                f"{sum(c.seconds for c in costs) / 3600:.2f}", f"{costs[0].per_edit:.2f}",
                f"{max(c.bytes for c in costs) / 1e9:.0f}", f"{done} of {len(runs)}",
            )
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(_cell(text, w, i) for i, (text, w) in enumerate(zip(r, widths, strict=True))) for r in rows
    )


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < 3 else text.rjust(width)


def _done(chosen: Chosen, where: Where) -> int:
    return sum(item.is_done(where) for item, _ in chosen.runs)


def _peak(chosen: Chosen) -> float:
    return max((cost.bytes for _, cost in chosen.runs), default=0) / 1e9
