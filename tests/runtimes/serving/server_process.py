"""A server as users start it: ``rexport serve`` in a process of its own, at free ports of the loopback address."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tests.exporter.command_line import environment
from tests.processes import default_interrupt

START_S = 60.0
"""The longest that a server may take to start."""


@dataclass
class ServerProcess:
    """A running server.

    ``urls`` are the addresses that it printed, and ``log`` is its standard error, a file.
    """

    process: subprocess.Popen[str]
    log: IO[str]
    urls: list[str] = field(default_factory=list)

    def address(self, scheme: str = "http") -> tuple[str, int]:
        parts = urlsplit(next(url for url in self.urls if url.startswith(f"{scheme}://")))
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def connect(self, timeout_s: float = 20.0) -> socket.socket:
        return socket.create_connection(self.address(), timeout=timeout_s)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status and the body of an answer, over a connection of its own."""
        connection = http.client.HTTPConnection(*self.address(), timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """The processes that answer."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def peak_mebibytes(self) -> float:
        """The largest memory that a worker had."""
        return max(_status(pid, "VmHWM") for pid in self.workers()) / 1024

    def messages(self) -> str:
        return Path(self.log.name).read_text(encoding="utf-8")


def _status(pid: int, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@contextmanager
def running(*arguments: str | Path) -> Iterator[ServerProcess]:
    """A server with these arguments, after it is ready. In the end it is stopped, and has to stop without an error."""
    command = [sys.executable, "-m", "exporter.cli", "serve", *map(str, arguments), "--port", "0"]
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        with default_interrupt():
            process = subprocess.Popen(
                command, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=os.setpgrp
            )
        server = ServerProcess(process, log)
        try:
            _wait(server, "--grpc-port" in arguments)
            yield server
            process.send_signal(signal.SIGINT)
            assert process.wait(40) == 0, server.messages()
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _wait(server: ServerProcess, grpc: bool) -> None:
    """Reads the addresses, which are printed when the server is ready."""
    assert server.process.stdout is not None
    while len(server.urls) < 1 + grpc:
        line = server.process.stdout.readline()
        assert line, server.messages()
        server.urls.append(line.strip())
