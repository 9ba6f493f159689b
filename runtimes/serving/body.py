"""Bodies of requests, whose size is checked while they arrive, and clients that leave."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from starlette.requests import Request

from runtimes.errors import InputError, quote
from runtimes.serving.settings import ServingSettings

WATCH_AFTER_S = 0.02
"""The seconds that a request takes before its client is watched. Watching the shorter ones would cost more than it
saves."""


class ClientGoneError(Exception):
    """The client of a request left before the answer."""


async def read_body(request: Request, settings: ServingSettings) -> bytes:
    """Return the body of a request. It is refused before it is larger than the settings allow.

    Raises:
        InputError: The body is too large, too slow, or compressed.
        ClientGoneError: The client left.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InputError(
            f"the body has the content-encoding {quote(encoding)}",
            code="content-encoding-unsupported",
            hint="send it without compression",
        )
    length = request.headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > settings.max_bytes:
        raise _too_large(settings)
    try:
        async with asyncio.timeout(settings.timeout_s):
            return await _receive(request, settings)
    except TimeoutError as error:
        raise InputError(f"the body did not arrive within {settings.timeout_s:g} s", code="body-too-slow") from error


async def _receive(request: Request, settings: ServingSettings) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > settings.max_bytes:
            raise _too_large(settings)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(settings: ServingSettings) -> InputError:
    return InputError(
        f"the body has more than {settings.max_bytes:,} bytes",
        code="body-too-large",
        hint="send a smaller image, or fewer at once",
    )


class ClientWatch:
    """Cancels the task in the ``with`` block when the client of its request leaves.

    Args:
        request: The request, whose body was read.

    Raises:
        ClientGoneError: The client left before the end of the block.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._start)

    def _start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and self._task is not None:
            self._task.uncancel()
            if isinstance(error, asyncio.CancelledError):
                raise ClientGoneError from error
