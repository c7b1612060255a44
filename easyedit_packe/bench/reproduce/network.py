"""No network: whoever tries to reach another machine is refused, and the attempt is noted."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import PaCKEError

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PIP_NO_INDEX": "1"}
"""Variables by which the libraries, and pip in a process of its own, do without. Some are read once, at the import."""


class NetworkError(PaCKEError, ConnectionError):
    """Something tried to reach another machine, and nobody had asked for that."""


@contextmanager
def no_network() -> Iterator[list[str]]:
    """What was tried inside: also attempts whose error some library has swallowed.

    with no_network() as attempts:
        ...
    assert not attempts
    """
    attempts: list[str] = []

    def refuse(place: Any) -> None:
        attempts.append(str(place))
        raise NetworkError(f"expected no network in a dry run, got an attempt to reach {place}; look for who asks.")

    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(original: Any) -> Any:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                refuse(address)
            return original(self, address)

        return call

    kept = {name: os.environ.get(name) for name in OFFLINE}
    os.environ.update(OFFLINE)
    patched: Any = socket
    patched.socket.connect, patched.socket.connect_ex = guarded(connect), guarded(connect_ex)
    patched.getaddrinfo = lambda host, *_, **__: refuse(host)
    try:
        yield attempts
    finally:
        patched.socket.connect, patched.socket.connect_ex, patched.getaddrinfo = connect, connect_ex, lookup
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
