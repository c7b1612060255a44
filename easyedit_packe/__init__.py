"""PaCKE for EasyEdit: trace the feed-forward vectors that carry a fact, and rectify only these."""

from .editor import apply_packe_to_model, compute_patch
from .errors import PaCKEError
from .hparams import PaCKEHyperParams
from .patch import OriginalWeights, WeightPatch
from .requests import EditRequest

__version__ = "0.1.0"
__all__ = [
    "EditRequest",
    "OriginalWeights",
    "PaCKEError",
    "PaCKEHyperParams",
    "WeightPatch",
    "apply_packe_to_model",
    "compute_patch",
    "register",
]


def register():
    """Make `PaCKE` an editor of the EasyEdit on this machine; see `easyedit_packe.easyedit.register`."""
    from .easyedit import register

    return register()
