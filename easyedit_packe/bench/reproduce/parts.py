"""What the paper measures: two tables and a figure, read from the file that has its figures."""

from __future__ import annotations

from dataclasses import dataclass

from ..report import paper

ORIGINAL = "original"
"""The unedited model's row: the benchmark measures it with every run."""


@dataclass(frozen=True)
class Part:
    """A table or a figure: runs of some editors on some data sets by one protocol.

    Attributes:
        name: as the paper calls it; `--parts` takes it without the space.
        protocol: of `packe bench`.
        editors, data: in the paper's order.
        sizes: records of a run, the paper's last. An allowance that is too small for the paper's takes an earlier one.
        generation: also measure free answers, which the paper does not.
        share: take target vectors from the cache, where another editor has computed them.
    """

    name: str
    protocol: str
    editors: tuple[str, ...]
    data: tuple[str, ...]
    sizes: tuple[int, ...]
    generation: bool = True
    share: bool = True

    @property
    def key(self) -> str:
        """How a command names it."""
        return self.name.replace(" ", "").replace(",", "-").lower()


BATCH = (100,)
"""Table 1: the paper says "batch of 100", and not how many of them. PaCKE's CounterFact figures there are whole
percents for both models, as those of one batch are."""
IN_A_ROW = (10, 30, 100, 300, 1000, 3000)
TIMED = (10,)
"""Figure 3: the paper does not say of how many edits its times are the mean."""


def parts(model: str) -> list[Part]:
    """What the paper has of a model; of a model that is not in the paper, all that it has of any.

    Args:
        model: a name of the paper's file, such as "llama3-8b".
    """
    batch, row = _editors("1", model), _editors("2", model)
    data = tuple(dict.fromkeys(r["data"] for r in paper.rows()))
    found = [
        Part("figure 3", "single", row, data, TIMED, generation=False, share=False),
        Part("table 1", "batch", batch, data, BATCH),
        Part("table 2", "consecutive", row, data, IN_A_ROW),
        # The authors' program calls its 12 passes over the whole edit set "consecutive".
        Part("table 2, program", "epochs", tuple(e for e in row if e == "PaCKE"), data, IN_A_ROW),
    ]
    return [part for part in found if part.editors]


def known_to_the_paper(model: str) -> bool:
    return any(r["model"] == model for r in paper.rows())


def _editors(table: str, model: str) -> tuple[str, ...]:
    of = [r for r in paper.rows() if r["table"] == table and (r["model"] == model or not known_to_the_paper(model))]
    return tuple(dict.fromkeys(r["editor"] for r in of if r["editor"] != ORIGINAL))
