"""``rexport serve`` as a process, and its clients."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 60


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the refusal."""
        code: str = self.json["code"]
        return code


@dataclass(frozen=True)
class Address:
    """Where a server answers; each call opens a connection of its own."""

    host: str
    port: int

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=LIMIT_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.call("GET", path)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return self.call("POST", path, body, headers)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), LIMIT_S)


class ServeProcess:
    """``rexport serve`` at work."""

    def __init__(self, process: subprocess.Popen[str], stderr: Path, urls: list[str]) -> None:
        self.process = process
        self._stderr = stderr
        host, port = urls[0].removeprefix("http://").rsplit(":", 1)
        self.address = Address(host, int(port))
        self.grpc = urls[1].removeprefix("grpc://") if len(urls) > 1 else None

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The complete lines of the log, which is JSON. The last one may be half written."""
        lines = self._stderr.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Stops the server as Ctrl-C does, and returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


def serve_command(*arguments: str | Path) -> list[str]:
    code = "from exporter.cli import main; main()"
    return [sys.executable, "-c", code, "serve", *map(str, arguments)]


@contextmanager
def serve_process(folder: Path, *arguments: str | Path) -> Iterator[ServeProcess]:
    """Starts the command at a free port with a log of JSON, and ends it. ``folder`` holds its standard error."""
    command = [*serve_command(*arguments), "--port", "0", "--log-format", "json"]
    stderr = folder / "serve.stderr"
    paths = filter(None, (str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH")))
    with stderr.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    assert process.stdout is not None
    try:
        count = 2 if "--grpc-port" in arguments else 1
        urls = [process.stdout.readline().strip() for _ in range(count)]
        assert all(urls), stderr.read_text()
        yield ServeProcess(process, stderr, urls)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)
        process.stdout.close()
