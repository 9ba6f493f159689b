"""Requests to a server over many connections at once, for a client that must cost little: HTTP/1.1 and gRPC.

A request is bytes that were made beforehand, and an answer is bytes that are read afterwards. All of it runs in one
thread, in the event loop of ``new_loop``.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

MOST_CONNECTIONS = 512
"""The limit of HTTP connections. ``select``, which waits to the microsecond, takes 1,024 files at most."""

_HEAD_LIMIT_BYTES = 1 << 16
_HEAD_END = b"\r\n\r\n"

GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class SendError(Exception):
    """Raised for a request without an answer.

    Args:
        code: The kind of the failure, as in ``ServedLoad.failures``.
        message: The message of the server or the system.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


@dataclass(frozen=True)
class RawAnswer:
    """An answer as it came.

    Attributes:
        content: The body of an HTTP answer, or a message of gRPC.
        ended_s: The time of its last byte by ``time.perf_counter``; of gRPC, when the library handed it over.
        headers: The headers of an HTTP answer, with names in lower case.
    """

    content: bytes
    ended_s: float
    headers: Mapping[str, str] = field(default_factory=dict)


class Sender(Protocol):
    """A way to send requests. Every number of requests may wait for their answers at the same time."""

    most_connections: int
    connections_limit: int | None

    async def send(self, request: bytes) -> RawAnswer:
        """Send a request and return its answer. Raise ``SendError`` for an answer that is no success.

        A cancelled request leaves nothing behind: its connection is closed.
        """

    async def close(self) -> None:
        """Close all connections."""


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are exact to the microsecond. That of ``epoll`` rounds up to milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


class _Connection(asyncio.Protocol):
    """One HTTP connection, with one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[RawAnswer] | None = None
        self._head: tuple[int, int, dict[str, str]] | None = None
        self._transport: asyncio.Transport | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def ask(self, request: bytes) -> asyncio.Future[RawAnswer]:
        assert self._transport is not None
        self._buffer.clear()
        self._head, self._answer = None, asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        ended_s = time.perf_counter()
        if self._answer is None or self._answer.done():
            return
        self._buffer += data
        try:
            self._read(ended_s, at_end=False)
        except (ValueError, IndexError) as error:
            self._answer.set_exception(SendError("answer-not-http", str(error)))
            self.close()

    def _read(self, ended_s: float, at_end: bool) -> None:
        assert self._answer is not None
        if self._head is None:
            self._head = _parse_head(self._buffer)
        if self._head is None:
            return
        start, status, headers = self._head
        body = _find_body(self._buffer, start, headers, at_end)
        if body is None:
            return
        if headers.get("connection", "").lower() == "close":
            self.close()
        if status == 200:
            self._answer.set_result(RawAnswer(body, ended_s, headers))
        else:
            self._answer.set_exception(SendError(f"http-{status}", body[:200].decode("utf-8", "replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is None or self._answer.done():
            return
        with contextlib.suppress(ValueError, IndexError):
            self._read(time.perf_counter(), at_end=True)
        if not self._answer.done():
            self._answer.set_exception(SendError("connection", str(exc or "closed by the server before its answer")))

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


def _parse_head(buffer: bytearray) -> tuple[int, int, dict[str, str]] | None:
    """Return the position of the body, the status and the headers; ``None`` while the head is incomplete."""
    end = buffer.find(_HEAD_END)
    if end < 0:
        if len(buffer) > _HEAD_LIMIT_BYTES:
            raise ValueError("the head has no end")
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1."):
        raise ValueError(first[:80])
    pairs = (line.partition(":") for line in lines)
    return end + len(_HEAD_END), int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}


def _find_body(buffer: bytearray, start: int, headers: Mapping[str, str], at_end: bool) -> bytes | None:
    """Return the body of an answer, or ``None`` while it is incomplete. ``at_end`` says that nothing more comes."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _join_chunks(buffer, start)
    length = headers.get("content-length")
    if length is None:
        return bytes(buffer[start:]) if at_end else None
    end = start + int(length)
    return bytes(buffer[start:end]) if len(buffer) >= end else None


def _join_chunks(buffer: bytearray, position: int) -> bytes | None:
    """Return the chunks from ``position`` on together, or ``None`` while the last one is missing."""
    parts: list[bytes] = []
    while (line_end := buffer.find(b"\r\n", position)) >= 0:
        size = int(buffer[position:line_end].split(b";")[0], 16)
        end = line_end + 2 + size
        if len(buffer) < end + 2:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(bytes(buffer[line_end + 2 : end]))
        position = end + 2
    return None


class HttpSender:
    """HTTP/1.1 over connections that are kept open. A request takes the one used last, or opens another one.

    Args:
        url: The address of the server.

    Raises:
        SendError: The host has no address.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._secure_name = address.hostname if address.scheme == "https" else None
        port = address.port or (443 if self._secure_name else 8000)
        try:
            found = socket.getaddrinfo(address.hostname, port, type=socket.SOCK_STREAM)[0][4]
        except OSError as error:
            raise SendError("connection", str(error)) from error
        self._host, self._port = str(found[0]), port
        self._free: list[_Connection] = []
        self._places = asyncio.Semaphore(MOST_CONNECTIONS)
        self._busy = 0
        self.most_connections = 0
        self.connections_limit: int | None = MOST_CONNECTIONS

    async def send(self, request: bytes) -> RawAnswer:
        """Send a request, head and body, as ``Sender.send``."""
        async with self._places:
            self._busy += 1
            self.most_connections = max(self.most_connections, self._busy)
            connection = None
            try:
                connection = self._take_free() or await self._connect()
                answer = await connection.ask(request)
            except BaseException as error:
                if connection is not None and not isinstance(error, SendError):
                    connection.close()
                raise
            finally:
                self._busy -= 1
                if connection is not None and connection.is_open:
                    self._free.append(connection)
            return answer

    def _take_free(self) -> _Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self) -> _Connection:
        security: dict[str, Any] = {"ssl": True, "server_hostname": self._secure_name} if self._secure_name else {}
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self._host, self._port, **security
            )
        except OSError as error:
            raise SendError("connection", str(error)) from error
        return connection

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._free:
            connection.close()
        await asyncio.sleep(0)  # lets the transports end


class GrpcSender:
    """Requests of gRPC, which share one connection.

    Args:
        url: The address of the server.
    """

    def __init__(self, url: str) -> None:
        import grpc
        import grpc.aio

        address = urlsplit(url)
        host = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname
        target, options = f"{host}:{address.port or 8001}", [(f"grpc.max_{way}_message_length", -1) for way in _WAYS]
        self._failure: type[Any] = grpc.aio.AioRpcError
        self._channel = (
            grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options)
            if address.scheme == "grpcs"
            else grpc.aio.insecure_channel(target, options)
        )
        self._call = self._channel.unary_unary(GRPC_METHOD)
        self.most_connections = 1
        self.connections_limit: int | None = None

    async def send(self, request: bytes) -> RawAnswer:
        """Send a message, as ``Sender.send``."""
        try:
            content = await self._call(request)
        except self._failure as error:
            name = error.code().name.lower().replace("_", "-")
            raise SendError(f"grpc-{name}", str(error.details())[:200]) from error
        return RawAnswer(content, time.perf_counter())

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


_WAYS = ("send", "receive")
