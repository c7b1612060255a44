"""Figure 6 of the paper: the weight of the contrastive term, from off to strong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import sweep
from .study import Missing, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = Missing(
    f"runs of one editor that differ in contrast_weight alone, {sweep.LEAST} values or more",
    "packe bench -m data=zsre,counterfact +hparams.contrast_weight=0,0.01,0.1,1,10,100 "
    "'label=lambda${hparams.contrast_weight}'",
)


def draw(study: Study) -> Iterator[tuple[str, Figure]]:
    """Efficacy, generality, locality and the paper's score, each with its standard error."""
    yield from sweep.draw(study, "contrast_weight", "λ, weight of the contrastive term (not to scale)")
