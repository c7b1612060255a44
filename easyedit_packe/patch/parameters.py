"""The parameters that a patch names: a model's own, and `...down_proj[3]`, one expert's part of a whole layer's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor, nn

from ..model.wrapped import uncompiled


def whole_and_part(name: str) -> tuple[str, int | None]:
    """The name of the model's own parameter, and which part along its first axis is meant; None is all of it."""
    found = re.fullmatch(r"(.+)\[(\d+)\]", name)
    return (found[1], int(found[2])) if found else (name, None)


def find_parameters(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The parameters of these names; parts are views, so that what is written into them is in the model.

    A name that the model does not have is left out.
    """
    own = dict(uncompiled(model).named_parameters())
    found: dict[str, Tensor] = {}
    for name in names:
        whole, part = whole_and_part(name)
        if whole not in own:
            continue
        if part is None:
            found[name] = own[whole]
        elif own[whole].ndim and part < len(own[whole]):
            found[name] = own[whole].detach()[part]
    return found
