"""The HTTP of the client, against sockets that send what servers send, in pieces of any size."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from benchmarks.process import isolated
from benchmarks.worker.senders import MOST_CONNECTIONS, HttpSender, RawAnswer, SendError, new_loop

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a: b\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=1\r\nllo\r\n0\r\n\r\n"
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nhello"


Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def sender_to(give: Handler) -> AsyncIterator[HttpSender]:
    """A sender to a server that treats each connection like this, and closes it afterwards."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with contextlib.suppress(ConnectionError):
            await give(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        sender = HttpSender(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            yield sender
        finally:
            await sender.close()
            if handlers:
                await asyncio.wait(handlers)


async def ask(answer: bytes, size: int, close: bool = False, requests: int = 1) -> tuple[list[RawAnswer], int]:
    """What a client reads of an answer that is sent in pieces, and the number of its connections."""
    connections = 0

    async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(4) == b"ask!":
            for start in range(0, len(answer), size):
                writer.write(answer[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    async with sender_to(give) as sender:
        return [await sender.send(b"ask!") for _ in range(requests)], connections


def wait_for(answer: bytes, size: int, close: bool = False, requests: int = 1) -> tuple[list[RawAnswer], int]:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(ask(answer, size, close, requests))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(("answer", "close"), [(PLAIN, False), (CHUNKED, False), (TO_THE_END, True)])
def test_an_answer_is_read_whatever_its_pieces(answer: bytes, close: bool, size: int) -> None:
    ((found,), _) = wait_for(answer, size, close)
    assert found.content == b"hello"


@pytest.mark.parametrize(("answer", "most"), [(PLAIN, 1), (PLAIN.replace(b"X: a", b"Connection: close\r\nX: a"), 3)])
def test_a_connection_is_kept_unless_the_server_says_so(answer: bytes, most: int) -> None:
    answers, connections = wait_for(answer, 1000, requests=3)
    assert [found.content for found in answers] == [b"hello"] * 3
    assert connections == most


@pytest.mark.parametrize(
    ("answer", "close", "code"),
    [
        (PLAIN.replace(b"200", b"503"), False, "http-503"),
        (b"SSH-2.0-server\r\n\r\n", False, "answer-not-http"),
        (CHUNKED.replace(b"2\r\nhe", b"x\r\nhe"), False, "answer-not-http"),
        (b"x" * 70_000, False, "answer-not-http"),
        (PLAIN[:-2], True, "connection"),
        (b"", True, "connection"),
    ],
)
def test_what_is_no_answer_is_a_failure(answer: bytes, close: bool, code: str) -> None:
    with pytest.raises(SendError) as caught:
        wait_for(answer, 1000, close)
    assert caught.value.code == code


def test_a_cancelled_request_spoils_no_later_one() -> None:
    """Its answer may still come: on a kept connection, the next request would read it."""

    async def run() -> None:
        async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while request := await reader.read(4):
                if request == b"slow":
                    await asyncio.sleep(0.05)
                writer.write(PLAIN.replace(b"hello", request + b"!"))

        async with sender_to(give) as sender:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sender.send(b"slow"), 0.01)
            assert (await sender.send(b"next")).content == b"next!"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


def test_as_many_requests_as_there_are_connections_go_out() -> None:
    async def run() -> int:
        arrived, most = 0, 0

        async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal arrived, most
            while await reader.read(4) == b"ask!":
                arrived += 1
                most = max(most, arrived)
                await asyncio.sleep(0.05)
                arrived -= 1
                writer.write(PLAIN)

        async with sender_to(give) as sender:
            await asyncio.gather(*(sender.send(b"ask!") for _ in range(100)))
            assert sender.most_connections == 100 < MOST_CONNECTIONS
        return most

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) > 50


def test_the_server_that_answers_at_once_ends_with_its_parent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "benchmarks.worker.null_server", "http", "5", ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=isolated.environment(),
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello")
        process.stdin.flush()
        assert int(process.stdout.readline()) > 0
        process.stdin.close()
        assert process.wait(30) == 0
