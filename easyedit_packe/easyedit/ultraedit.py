"""EasyEdit's UltraEdit, with the memory that its paper gives it and the details it takes for granted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch

from .host import conditions, host, swapped
from .state import lasting


def ultraedit(apply: Callable) -> Callable:
    """One call of UltraEdit (Gu et al., 2025), for a model of any name and any number of requests.

    EasyEdit starts the running means by which keys and gradients are normalised anew with each call; inside a
    benchmark's run they go on from call to call, as the paper describes. It knows by the model's name that a token
    is predicted from the one before it, which every decoder does. Originals are given back for rolling back.
    """

    @functools.wraps(apply)
    def call(
        model: Any,
        tok: Any,
        requests: Sequence[dict],
        hparams: Any,
        copy: bool = False,
        return_orig_weights: bool = False,
        **kwargs: Any,
    ) -> Any:
        model = deepcopy(model) if copy else model
        names = [name.removesuffix(".weight") for name in hparams.inner_params]
        weights = {f"{name}.weight": model.get_submodule(name).weight for name in names}
        originals = {n: w.detach().clone() for n, w in weights.items()} if return_orig_weights else {}
        size = len(requests)
        at_once = next(k for k in range(min(size, hparams.batch_size_once), 0, -1) if size % k == 0)
        settings = {"batch_size": size, "batch_size_once": at_once, "inner_params": names, "model_name": "llama"}
        main = host("models.ultraedit.ultraedit_main")
        with conditions(model, tok, hparams, "left", settings), swapped(main, ULTRAEDIT=_lasting(main.ULTRAEDIT)):
            apply(model, tok, list(requests), hparams, **kwargs)
        return model, originals

    return call


def _lasting(theirs: Any) -> Any:
    class UltraEdit(theirs):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            known = lasting("ULTRAEDIT")
            if known:
                self.lifelong_normalizer.load_state_dict(known)

        def cache(self, batch: Any) -> Any:
            found = super().cache(batch)
            known = lasting("ULTRAEDIT")
            if known is not None:
                known.update({k: torch.clone(v) for k, v in self.lifelong_normalizer.state_dict().items()})
            return found

    return UltraEdit
