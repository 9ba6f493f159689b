"""One process of a server: ``python -m runtimes.serving.worker CONTROL``.

CONTROL is the number of a socket. The first line on it is a ``WorkerOrder``; later lines are ``drain`` (say that the
server is not ready) and ``retire`` (accept nothing more, finish, and end). The process replies with one line when it
accepts connections, or when it cannot. If the socket closes, the supervisor is gone, and the process retires.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtimes import codec
from runtimes.errors import RexportError
from runtimes.serving.settings import ServingSettings

if TYPE_CHECKING:
    from runtimes.serving.grpc_server import GrpcServer

DRAIN, RETIRE = "drain", "retire"

FINISH_S = 30.0
"""The seconds that calls of gRPC in work have, at most, once the server stops."""

LINGER_S = 1.0
"""The seconds that idle connections stay open when the supervisor is gone or a signal came."""


@dataclass(frozen=True)
class ModelSource:
    """A model to open.

    Attributes:
        name: The name of the model in requests.
        path: The model file.
    """

    name: str
    path: str


@dataclass(frozen=True)
class WorkerOrder:
    """The work of a process.

    Attributes:
        models: The models.
        backend: As for ``runtimes.open``.
        device: As for ``runtimes.open``.
        threads: The number of processors of each process.
        settings: The limits.
        log_format: As ``RequestLog``.
        listener: The number of the socket that accepts connections.
        grpc_address: The address for gRPC, or ``None``.
        linger_s: The seconds that idle connections stay open after ``retire``.
        gpu_mem_limit: As for ``runtimes.open``, of each model in each process.
    """

    models: tuple[ModelSource, ...]
    backend: str | None
    device: str | None
    threads: int | None
    settings: ServingSettings
    log_format: str
    listener: int
    grpc_address: str | None
    linger_s: float
    gpu_mem_limit: int | None = None


@dataclass(frozen=True)
class WorkerReply:
    """The message of a process that has started, or cannot.

    Attributes:
        descriptions: A line about each opened model.
        error_class: The name of the class of the error in ``runtimes.errors``, or ``None`` if it has started.
        code: The code of the error.
        what: The sentence of the error.
        hint: The hint of the error.
        path: The file of the error.
    """

    descriptions: tuple[str, ...] = ()
    error_class: str | None = None
    code: str = ""
    what: str = ""
    hint: str | None = None
    path: str | None = None


def main(arguments: list[str]) -> int:
    """Serve until the supervisor says otherwise."""
    with socket.socket(fileno=int(arguments[0])) as control:
        lines = control.makefile("r", encoding="utf-8")
        order = codec.loads(WorkerOrder, lines.readline())
        try:
            return asyncio.run(_Worker(order, control).serve())
        except RexportError as error:
            _reply(control, _as_reply(error))
            return error.exit_code


def _reply(control: socket.socket, reply: WorkerReply) -> None:
    control.setblocking(True)
    control.sendall((codec.dumps(reply) + "\n").encode())


def _as_reply(error: RexportError) -> WorkerReply:
    path = None if error.path is None else str(error.path)
    return WorkerReply((), type(error).__name__, error.code, error.what, error.hint, path)


class _Worker:
    """The process at work."""

    def __init__(self, order: WorkerOrder, control: socket.socket) -> None:
        self._order = order
        self._control = control
        self._retiring: asyncio.Task[None] | None = None
        self._grpc: GrpcServer | None = None

    async def serve(self) -> int:
        """Open the models, answer requests, and return the exit code in the end."""
        from runtimes.serving.app import app_of
        from runtimes.serving.http_server import HttpServer, UvicornNotices
        from runtimes.serving.metrics import ServingMetrics
        from runtimes.serving.model import ServedModel
        from runtimes.serving.request_log import RequestLog
        from runtimes.serving.service import Service

        order = self._order
        log = RequestLog(order.log_format)  # type: ignore[arg-type]
        for name in ("uvicorn", "rexport"):
            logging.getLogger(name).addHandler(UvicornNotices(log.event))
        logging.getLogger("rexport").setLevel(logging.INFO)
        with ExitStack() as stack:
            models = []
            for source in order.models:
                model = ServedModel.open(
                    source.path, source.name, order.backend, order.device, order.threads, order.gpu_mem_limit
                )
                stack.callback(model.close)
                models.append(model)
            self._service = Service(models, order.settings, ServingMetrics())
            stack.callback(self._service.close)
            self._descriptions = tuple(f"{model.name}: {model.runtime!r}" for model in models)
            self._http = HttpServer(app_of(self._service, log), self._on_signal, self._on_start)
            self._loop = asyncio.get_running_loop()
            if order.grpc_address is not None:
                from runtimes.serving.grpc_server import GrpcServer

                self._grpc = GrpcServer(self._service, log, order.grpc_address)
                await self._grpc.start()
            await self._http.serve([socket.socket(fileno=order.listener)])
            if self._retiring is not None:
                await self._retiring
        return 0

    def _on_start(self) -> None:
        # What is there now stays until the end, so the collector need not look at it again.
        gc.collect()
        gc.freeze()
        _reply(self._control, WorkerReply(self._descriptions))
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._on_control)

    def _on_control(self) -> None:
        text = self._control.recv(1024).decode()
        if not text:
            self._loop.remove_reader(self._control)
            self._retire(LINGER_S)
        for line in text.split():
            self._service.draining = True
            if line == RETIRE:
                self._retire(self._order.linger_s)

    def _on_signal(self, number: int) -> None:
        if self._retiring is not None:
            os._exit(128 + number)
        self._retire(LINGER_S)

    def _retire(self, linger_s: float) -> None:
        self._service.draining = True
        if self._retiring is None:
            self._retiring = self._loop.create_task(self._finish(linger_s))

    async def _finish(self, linger_s: float) -> None:
        stops = [self._http.retire(linger_s), *(() if self._grpc is None else (self._grpc.stop(FINISH_S),))]
        await asyncio.gather(*stops)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
