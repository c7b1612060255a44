"""PaCKE for EasyEdit: trace the feed-forward vectors that carry a fact, and rectify only these."""

from .editor import apply_packe_to_model, compute_patch, record_patches
from .errors import PaCKEError
from .hparams import PaCKEHyperParams
from .originals import OriginalWeights
from .patch import WeightPatch
from .requests import EditRequest
from .stack import EditStack

__version__ = "0.1.0"
__all__ = [
    "EditRequest",
    "EditStack",
    "OriginalWeights",
    "PaCKEError",
    "PaCKEHyperParams",
    "WeightPatch",
    "apply_packe_to_model",
    "compute_patch",
    "record_patches",
    "register",
]


def register():
    """Make `PaCKE` an editor of the EasyEdit on this machine; see `easyedit_packe.easyedit.register`."""
    from .easyedit import register

    return register()
