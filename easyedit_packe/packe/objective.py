"""What an edit is optimised for: the terms of Eq. 7."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each answer token [N]. With the new target: first term of Eq. 7; with y: the second."""
    return F.cross_entropy(logits, labels.to(logits.device), reduction="none")
