"""The HTTP server of one process: uvicorn, with a time limit for the head of a request, and an end without loss."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 10.0
"""The seconds in which the head of a request has to arrive, counted from the connection or from its first byte."""

HEAD_BYTES = 64 << 10
"""The size of the head of a request in bytes, at most."""

KEEP_ALIVE_S = 75
"""The seconds after which an idle connection is closed."""

FINISH_S = 30
"""The seconds that requests in work have, at most, once the server stops."""

REST_S = 2.0
"""The seconds in which the rest of a body has to arrive that was answered before its end."""

REST_BYTES = 1 << 20
"""The size of such a rest, at most."""

_POLL_S = 0.02


class _PlainParser:
    """A parser of requests that stays with HTTP/1.1, whatever other protocol a client offers.

    The parser of the library stops after a head that offers one, and takes no body. Clients of Java offer HTTP/2 with
    each request. Such a head is parsed again without the offer.

    Args:
        protocol: Takes the events of the parser.
    """

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self._protocol)
        self.get_method = self._parser.get_method
        self.get_http_version = self._parser.get_http_version
        self.should_keep_alive = self._parser.should_keep_alive
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    @property
    def has_offer(self) -> bool:
        """Whether the head that was just parsed offers another protocol, and comes again without."""
        return bool(self._parser.should_upgrade())

    def should_upgrade(self) -> bool:
        """Return that the connection never changes its protocol."""
        return False

    def feed_data(self, data: bytes) -> None:
        """Parse bytes, as the parser of the library.

        Raises:
            httptools.HttpParserError: They are no requests.
        """
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                if self.get_method() == b"CONNECT":
                    raise httptools.HttpParserInvalidMethodError("this is no proxy") from offer
                rest = rest[offer.args[0] :]
                head = self._head()
                self._begin()
                self._parser.feed_data(head)

    def _head(self) -> bytes:
        """Return the head that was just parsed, without the offer."""
        lines = [b"%s %s HTTP/%s" % (self.get_method(), self._protocol.url, self.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self._protocol.headers if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose client has to send the head of each request, and the rest of a refused body, in time."""

    parser: _PlainParser  # type: ignore[assignment]

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _heads = 0
    _in_head = False
    _in_body = False
    _rest_timer: asyncio.TimerHandle | None = None
    _rest_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self.parser = _PlainParser(self)
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and wait for the rest of a head that began. The rest of a refused body is dropped."""
        if self._rest_timer is not None:
            self._rest_bytes += len(data)
            if self._rest_bytes > REST_BYTES:
                self.transport.close()
                return
        heads = self._heads
        super().data_received(data)
        if self._heads != heads:
            self._stop_head_timer()
        elif not self._in_body:
            self._head_bytes += len(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")
        elif self._in_head or (self._heads == heads and not self._in_body):
            self._start_head_timer()

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Begin a body, which may be empty."""
        if self.parser.has_offer:
            return
        self._in_head, self._in_body = False, True
        self._heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a body."""
        if self.parser.has_offer:
            return
        super().on_message_complete()
        self._in_body = False
        self._stop_rest_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_head_timer()
        self._stop_rest_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Go on to the next request, or wait for the rest of the body of this one."""
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._rest_bytes = 0
            self._rest_timer = self.loop.call_later(REST_S, self.transport.close)

    def _stop_rest_timer(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
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
                http=BoundedProtocol,
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
