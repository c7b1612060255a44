"""What EasyEdit restores from, without a copy of any whole matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from .parameters import find_parameters, whole_and_part
from .slice import Slice
from .weight_patch import WeightPatch


class OriginalWeights(Mapping[str, Tensor]):
    """Parameter name -> the whole original tensor, for every parameter that an edit touched.

    Only the touched slices are held. A whole tensor is put together when it is asked for: the model's present
    one with this edit's nodes set back. The edit itself is at hand as `.patch`.
    """

    def __init__(self, model: nn.Module, patch: WeightPatch) -> None:
        self._model = model
        self.patch = patch

    def __getitem__(self, name: str) -> Tensor:
        parts = {part: s for (whole, part), s in self._touched() if whole == name}
        if not parts:
            raise KeyError(name)
        full = self._model.get_parameter(name).detach().clone()
        for part, s in parts.items():
            s.write(full if part is None else full[part], s.old)
        return full

    def _touched(self) -> Iterator[tuple[tuple[str, int | None], Slice]]:
        return ((whole_and_part(name), s) for name, s in self.patch.slices.items())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(whole for (whole, _), _ in self._touched()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def restore(self) -> None:
        """Set this edit's nodes back in place, whatever they hold now, without any whole copy."""
        found = find_parameters(self._model, self.patch.slices)
        for name, s in self.patch.slices.items():
            s.write(found[name].data, s.old)
