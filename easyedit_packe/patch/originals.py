"""What EasyEdit restores from, without a copy of any whole matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

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
        s = self.patch.slices[name]
        full = self._model.get_parameter(name).detach().clone()
        s.write(full, s.old)
        return full

    def __iter__(self) -> Iterator[str]:
        return iter(self.patch.slices)

    def __len__(self) -> int:
        return len(self.patch.slices)

    def restore(self) -> None:
        """Set this edit's nodes back in place, whatever they hold now, without any whole copy."""
        for name, s in self.patch.slices.items():
            s.write(self._model.get_parameter(name).data, s.old)
