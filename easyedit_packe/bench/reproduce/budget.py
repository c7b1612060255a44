"""Which runs fit into an allowance of GPU hours: every editor on few records first, then more records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .costs import Cost
from .parts import Part
from .plan import Item, LeftOut, items

Price = Callable[[Item], Cost]


@dataclass(frozen=True)
class Chosen:
    """Runs with their costs; what is left out; and for each part that is run on fewer records than the paper's, why."""

    runs: tuple[tuple[Item, Cost], ...]
    left: tuple[LeftOut, ...]
    fewer: tuple[str, ...]

    @property
    def hours(self) -> float:
        return sum(cost.seconds for _, cost in self.runs) / 3600


def choose(parts: Sequence[Part], price: Price, memory: float, hours: float | None = None) -> Chosen:
    """What to run.

    All editors of a part have the same records, because rows with different ones share no table. Each part begins with
    its smallest number; editors that do not fit even so are left out, the dearest first, PaCKE last. Then the part
    with the fewest records gets its next number, as long as that fits.

    Args:
        memory: bytes of the GPU.
        hours: of one GPU, of all runs together; None: the paper's numbers of records, whatever they take.
    """
    left: list[LeftOut] = []
    able = [_that_fit(part, price, memory, left) for part in parts]
    able = [part for part in able if part.editors]
    if hours is None:
        runs = [(item, price(item)) for part in able for item in items(part, part.sizes[-1])]
        return Chosen(tuple(runs), tuple(left), ())
    able = _smallest(able, price, hours, left)
    step = {part.name: 0 for part in able}

    def total(steps: dict[str, int]) -> float:
        of = [price(i).seconds for part in able for i in items(part, part.sizes[steps[part.name]])]
        return sum(of) / 3600

    while True:
        more = sorted(
            (part for part in able if step[part.name] + 1 < len(part.sizes)), key=lambda p: p.sizes[step[p.name]]
        )
        raised = next((s for p in more if total(s := {**step, p.name: step[p.name] + 1}) <= hours), None)
        if raised is None:
            break
        step = raised
    runs = [(item, price(item)) for part in able for item in items(part, part.sizes[step[part.name]])]
    fewer = [
        f"{part.name}: {part.sizes[step[part.name]]} records instead of the paper's {part.sizes[-1]}; with "
        f"{part.sizes[step[part.name] + 1]} all runs would take "
        f"{total({**step, part.name: step[part.name] + 1}):.1f} of {hours:g} GPU hours"
        for part in able
        if step[part.name] + 1 < len(part.sizes)
    ]
    return Chosen(tuple(runs), tuple(left), tuple(fewer))


def _that_fit(part: Part, price: Price, memory: float, left: list[LeftOut]) -> Part:
    """Without the editors that need more memory than there is."""
    able = []
    for editor in part.editors:
        needed = max(price(i).bytes for i in _of(part, editor, part.sizes[0]))
        if needed > memory:
            has = f"the GPU has {memory / 1e9:.0f} GB; take a larger --gpu"
            left.append(LeftOut(part, editor, f"about {needed / 1e9:.0f} GB, and {has}"))
        else:
            able.append(editor)
    return replace(part, editors=tuple(able))


def _smallest(parts: list[Part], price: Price, hours: float, left: list[LeftOut]) -> list[Part]:
    """Each part on its fewest records, without what is too dear."""
    costs = {
        (part.name, editor): sum(price(i).seconds for i in _of(part, editor, part.sizes[0])) / 3600
        for part in parts for editor in part.editors
    }  # fmt: skip
    kept = dict(costs)
    for part, editor in sorted(costs, key=lambda key: (key[1] == "PaCKE", -costs[key])):
        if sum(kept.values()) <= hours:
            break
        del kept[part, editor]
        (of,) = [p for p in parts if p.name == part]
        needs = costs[part, editor]
        left.append(
            LeftOut(of, editor, f"{needs:.2f} GPU hours on {of.sizes[0]} records, too many for {hours:g} in all")
        )
    found = [replace(p, editors=tuple(e for e in p.editors if (p.name, e) in kept)) for p in parts]
    return [part for part in found if part.editors]


def _of(part: Part, editor: str, n: int) -> list[Item]:
    return [item for item in items(part, n) if item.editor == editor]
