"""Tensors compared and hashed bit for bit: -0.0 is not 0.0, and a NaN equals itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(a: Tensor) -> Tensor:
    """The same memory as integers of the same width."""
    return a.detach().contiguous().view(_INTEGERS[a.element_size()])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, dtype and every bit, on whatever devices."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(bits(a), bits(b.to(a.device)))


def digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names, dtypes, shapes and every bit, in the order given."""
    sha = hashlib.sha256()
    for name, t in tensors:
        sha.update(f"{name} {t.dtype} {tuple(t.shape)} ".encode())
        sha.update(bits(t).flatten().cpu().numpy().data)
    return sha.hexdigest()


def as_bytes(text: str) -> Tensor:
    """A text as a tensor, which `safetensors` can save beside others: uint8 [length in UTF-8]."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def as_text(t: Tensor) -> str:
    """The text that `as_bytes` was given."""
    return bytes(t.tolist()).decode()


def weights_digest(model: nn.Module) -> str:
    """What tells models apart: `digest_of` all parameters. Reads every weight once: about a second a gigabyte."""
    return digest_of(plain for named in model.named_parameters() for plain in _stored(*named))


def _stored(name: str, t: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What lies in memory: a tensor itself, or, of one that only stands for others (torchao), those that it holds."""
    if hasattr(t, "__tensor_flatten__"):
        for part in t.__tensor_flatten__()[0]:
            yield from _stored(f"{name}.{part}", getattr(t, part))
    else:
        yield name, t
