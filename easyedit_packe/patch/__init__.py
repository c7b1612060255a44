"""An edit as data: slices, their file and their adapter; a patch of them; patches on a model."""

from .originals import OriginalWeights
from .slice import Slice
from .stack import EditStack
from .weight_patch import WeightPatch

__all__ = ["EditStack", "OriginalWeights", "Slice", "WeightPatch"]
