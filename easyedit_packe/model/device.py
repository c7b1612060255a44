"""The device that a setting names."""

from __future__ import annotations

import torch

from ..errors import HyperParamsError


def check_device(device: int | str | None) -> torch.device:
    """The torch device that a `device` setting names.

    Raises:
        HyperParamsError: it is not a device, or not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        named = torch.device(f"cuda:{device}" if str(device).isdigit() else str(device))
    except RuntimeError as e:
        raise HyperParamsError(f"device: expected a CUDA index or a torch device, got {device!r} ({e}).") from None
    if named.type == "cuda" and (named.index or 0) >= torch.cuda.device_count():
        raise HyperParamsError(
            f"device: expected one that is there, got {device!r} with {torch.cuda.device_count()} CUDA devices; "
            "set device: cpu, or null to take CUDA only where it is."
        )
    return named
