"""The paper's figures 3 to 6 and two of our own, from saved rows; no model is loaded, and torch is not imported.

`style` is how all of them look, `study` the rows that they share, `sweep` what figures 5 and 6 have in common; each
other file is one figure. `output` draws what the rows suffice for, and names what they lack.
"""

from .output import FIGURES, write_figures

__all__ = ["FIGURES", "write_figures"]
