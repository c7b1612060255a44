"""Figure 5 of the paper: how many nodes T+ has, from none to all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import sweep
from .study import Missing, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = Missing(
    f"runs of one editor that differ in num_critical_paths alone, {sweep.LEAST} values or more",
    "packe bench -m data=zsre,counterfact +hparams.num_critical_paths=0,1,5,15,50,200,1536 "
    "'label=nodes${hparams.num_critical_paths}'",
)


def draw(study: Study) -> Iterator[tuple[str, Figure]]:
    """Efficacy, generality, locality and the paper's score, each with its standard error."""
    yield from sweep.draw(study, "num_critical_paths", "|T+|, nodes of each kind in a layer (not to scale)")
