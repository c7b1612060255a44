"""The page on this computer's own address, for nobody else: nothing on it comes from or goes to another place."""

from __future__ import annotations

import logging
import socket
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..errors import PaCKEError
from .page import THEME, page
from .sessions import Session, SharedModel
from .view import STYLE

HOST = "127.0.0.1"
ONLY_FROM_HERE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
"""What a browser may load for the page, whatever the page asks for."""


class DemoError(PaCKEError, RuntimeError):
    """The page cannot be served."""


def bound(port: int) -> socket.socket:
    """A socket of this computer's own address.

    Raises:
        DemoError: the port is taken, or not this user's to take.
    """
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind((HOST, port))
    except (OSError, OverflowError) as e:
        s.close()
        raise DemoError(
            f"port {port}: expected a free one, got {e}; choose another with --port, or 0 for any."
        ) from None
    return s


def server(shared: SharedModel) -> uvicorn.Server:
    """What serves the page of a model: `server(shared).run(sockets=[bound(port)])`."""
    sessions: dict[str, Session] = {}
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no other name leads here
    app.add_middleware(_Headers)

    @app.get("/edits/{key}/{file}")
    def download(key: str, file: str) -> FileResponse:
        session = sessions.get(key)
        if session is None or file not in ("edits.safetensors", "adapter.zip"):
            raise HTTPException(404, "There is no such file: make an edit first.")
        folder = tempfile.TemporaryDirectory()
        save = session.save_patch if file == "edits.safetensors" else session.save_adapter
        try:
            written = save(Path(folder.name))
        except PaCKEError as e:
            folder.cleanup()
            raise HTTPException(404, str(e)) from None
        return FileResponse(written, filename=file, background=BackgroundTask(folder.cleanup))

    gr.mount_gradio_app(
        app, page(shared, sessions), "/", HOST, footer_links=[], run_history=False, ssr_mode=False, pwa=False,
        mcp_server=False, enable_monitoring=False, theme=THEME, css=STYLE,
    )  # fmt: skip
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    found = _Server(config)
    app.state.sessions = sessions
    return found


class _Server(uvicorn.Server):
    """One that ends in silence: that pages are open then is no error."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        log = logging.getLogger("uvicorn.error")

        def is_heard(_: logging.LogRecord) -> bool:
            return not self.should_exit

        log.addFilter(is_heard)
        try:
            super().run(sockets)
        finally:
            log.removeFilter(is_heard)


class _Headers:
    """Adds `ONLY_FROM_HERE` to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", ONLY_FROM_HERE.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, sent)
