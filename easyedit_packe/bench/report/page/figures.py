"""The figures of `packe figures`, where what draws them is installed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..runs import Run


class Picture(NamedTuple):
    """Attributes: about: what it shows. source: an SVG as the address of an image."""

    about: str
    source: str


def figures(runs: Sequence[Run]) -> list[Picture] | None:
    """What the rows of one model and setting suffice for; None where nothing can draw."""
    try:
        from ...figures import FIGURES, style
        from ...figures.study import Study

        with style.applied():
            return [
                Picture(_first_sentence(module.__doc__), _source(figure, style.METADATA["svg"]))
                for module in FIGURES.values()
                for _, figure in module.draw(Study(list(runs), []))
            ]
    except ImportError:  # of matplotlib, too
        return None


def _first_sentence(doc: str | None) -> str:
    return " ".join((doc or "").split("\n\n")[0].split()).removesuffix(".")


def _source(figure: Any, metadata: Any) -> str:
    """An image of its own, as ids and styles of several would meet in one document."""
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata=metadata)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode('ascii')}"
