"""The HTTP server of one process: uvicorn, with a time limit for the head of a request, and an end without loss."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 10.0
"""The seconds in which the head of a request has to arrive, counted from the connection or from its first byte."""

KEEP_ALIVE_S = 75
"""The seconds after which an idle connection is closed."""

FINISH_S = 30
"""The seconds that requests in work have, at most, once the server stops."""

_POLL_S = 0.02


class HeadTimeoutProtocol(H11Protocol):
    """A connection whose client has to send the head of each request in time."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and wait for the rest of a head that began."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self.conn.trailing_data[0] and self._head_timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.timeout_keep_alive_handler)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class HttpServer(uvicorn.Server):
    """The HTTP server of one process.

    Args:
        app: The application.
        on_signal: Takes SIGTERM and SIGINT, in the thread of the event loop.
        on_start: Is called when the server accepts connections.
    """

    def __init__(self, app: ASGIApp, on_signal: Callable[[int], None], on_start: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HeadTimeoutProtocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=FINISH_S,
            )
        )
        self._on_signal = on_signal
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take a signal.

        Args:
            sig: The number of the signal.
            frame: Not used.
        """
        asyncio.get_running_loop().call_soon_threadsafe(self._on_signal, sig)

    async def retire(self, linger_s: float) -> None:
        """Accept no more connections, wait for those that there are, and begin to stop.

        Connections close by themselves after their next answer, which says so. Those that stay idle for ``linger_s``
        are closed then.
        """
        for server in self.servers:
            server.close()
        end_s = asyncio.get_running_loop().time() + linger_s
        while self.server_state.connections and asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(_POLL_S)
        self.should_exit = True


class UvicornNotices(logging.Handler):
    """Passes what uvicorn reports on to the log of the server.

    Args:
        event: Writes a line about the server.
    """

    def __init__(self, event: Callable[..., None]) -> None:
        super().__init__(logging.INFO)
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        fields: dict[str, Any] = {"message": record.getMessage()}
        code = getattr(record, "code", None)
        if code is not None:
            fields["code"] = code
        self._event(record.levelname.lower(), **fields)
