"""A connection to a server: addresses, and servers that are absent, silent, or speak something else."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from exporter.deploy.served import ServerConnection
from runtimes.errors import BackendUnavailableError, CheckFailedError, ModelMismatchError, UsageError
from tests.refusals import refuses


@contextlib.contextmanager
def listening() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """An HTTP server that gives the same answer to whatever it is asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://x:1",
        "http://",
        "http://x:0",
        "http://x:99999",
        "http://x:1?a",
        "https://http://x:1",
        "grpc:///x",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with refuses(UsageError, "url-invalid"):
        ServerConnection(url)
    with refuses(UsageError, "url-with-path"):
        ServerConnection("grpc://127.0.0.1:8001/models")
    with refuses(UsageError, "url-with-user"):
        ServerConnection("http://user:password@127.0.0.1:8000")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_an_absent_server_is_named(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{closed_port()}"
    with ServerConnection(url) as server, refuses(BackendUnavailableError, "server-unreachable", url):
        server.server()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_silent_server_is_left_after_the_time(scheme: str) -> None:
    with listening() as port, ServerConnection(f"{scheme}://127.0.0.1:{port}", timeout_s=0.2) as server:
        with refuses(BackendUnavailableError, "server-timeout", "0.2 s"):
            server.server()
        with refuses(BackendUnavailableError, "server-timeout"):
            server.is_ready()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (404, b"not here", ModelMismatchError, "model-not-served"),
        (404, b'{"error": "no"}', ModelMismatchError, "model-not-served"),
        (200, b"<html>", CheckFailedError, "answer-unreadable"),
        (200, b"[1]", CheckFailedError, "answer-unreadable"),
        (500, b'{"error": "broken"}', CheckFailedError, "request-refused"),
        (503, b'{"error": "stopping"}', BackendUnavailableError, "server-unreachable"),
    ],
)
def test_other_servers_and_answers_are_told_apart(status: int, body: bytes, kind: type[Exception], code: str) -> None:
    with answering(status, body) as port, ServerConnection(f"http://127.0.0.1:{port}/base/") as server:
        calls: list[Callable[[], object]] = [server.server, lambda: server.model("net", "3")]
        for call in calls:
            with refuses(kind, code):  # type: ignore[arg-type]
                call()


def test_extensions_that_a_server_lacks_are_no_error() -> None:
    with answering(404, b"not here") as port, ServerConnection(f"http://127.0.0.1:{port}") as server:
        assert server.models() is None
        assert server.configuration("net") is None
