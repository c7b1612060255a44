"""Editors that the installed EasyEdit lacks, on EasyEdit's own machinery. Importing this imports no easyeditor."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from .shared_targets import shared_targets

__all__ = [
    "BASELINES",
    "BATCHABLE",
    "baseline",
    "shared_targets",
]

BASELINES = {
    "AlphaEdit": ("alphaedit", "apply_alphaedit_to_model", "AlphaEditHyperParams"),
    "EMMET": ("emmet", "apply_emmet_to_model", "EMMETHyperParams"),
    "R-ROME": ("r_rome", "apply_r_rome_to_model", "R_ROMEHyperParams"),
    "PMET": ("pmet", "apply_pmet_to_model", "PMETHyperParams"),
    "LoRA": ("lora", "apply_lora_to_model", "LoRAHyperParams"),
    "PRUNE": ("prune", "apply_prune_to_model", "PRUNEHyperParams"),
    "RECT": ("rect", "apply_rect_to_model", "RECTHyperParams"),
}
"""Editor -> module, function and hyper-parameter class."""

BATCHABLE = {"AlphaEdit", "EMMET", "PMET", "LoRA", "PRUNE", "RECT"}
"""Those that take several requests in one call."""


def baseline(name: str) -> tuple[Callable, type]:
    """(apply function, hyper-parameter class) of an editor of `BASELINES`; EasyEdit must have been imported."""
    module, function, hparams = BASELINES[name]
    loaded = importlib.import_module(f"{__name__}.{module}")
    return getattr(loaded, function), getattr(loaded, hparams)
