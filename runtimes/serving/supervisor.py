"""The process above the workers: it holds the socket, starts workers, replaces those that end, and stops all.

Workers accept from the same socket, so that none is lost while one of them is replaced: connections wait in the
socket's queue, and another worker takes them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import runtimes
from runtimes import codec, errors
from runtimes.errors import ResourceError, RexportError
from runtimes.serving.listening import address_of, listen, refuse_new_connections, reserve
from runtimes.serving.metrics_folder import metrics_folder
from runtimes.serving.worker import DRAIN, RETIRE, WorkerOrder, WorkerReply

FINISH_S = 35.0
"""The seconds that a worker has to end after it was told to retire. It is killed then."""

STEADY_S = 10.0
"""A worker that lived for so long is replaced at once. One that ended sooner is replaced after a pause."""

MAX_PAUSE_S = 30.0

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class ServerAddresses:
    """The addresses that a server listens at.

    Attributes:
        host: The host.
        port: The port for HTTP. 0 means any free one.
        grpc_port: The port for gRPC, or ``None`` for none. 0 means any free one.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None


class _WorkerProcess:
    """A worker and the socket to talk to it."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self.started_s = time.monotonic()
        self._control = control
        self._control.setblocking(False)

    async def reply(self) -> WorkerReply:
        """Return what the worker says when it has started, or cannot.

        Raises:
            ResourceError: It ended without a word.
        """
        loop, text = asyncio.get_running_loop(), b""
        while not text.endswith(b"\n"):
            try:
                chunk = await loop.sock_recv(self._control, 1 << 16)
            except ConnectionError:  # it ended before it read its order
                chunk = b""
            if not chunk:
                await self.process.wait()
                raise ResourceError(
                    f"a worker {describe_end(self.process.returncode)} before it was ready",
                    code="worker-ended-early",
                    hint="the lines above have its last words",
                )
            text += chunk
        return codec.loads(WorkerReply, text)

    def tell(self, line: str) -> None:
        """Send a command or an order, unless the worker is gone."""
        with suppress(OSError):
            self._control.sendall(f"{line}\n".encode())

    def close(self) -> None:
        """Close the socket, which tells a living worker to retire."""
        self._control.close()


def describe_end(code: int | None) -> str:
    """Return how a process ended, in words."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class Supervisor:
    """The process above the workers.

    Args:
        order: What each worker serves. Its ``listener`` and ``grpc_address`` are filled in here.
        addresses: Where the server listens.
        workers: The number of workers.
        drain_s: The seconds in which the server says that it is not ready, and still accepts requests, before it stops
            after SIGTERM.
        event: Writes a line to the log.
        announce: Takes the addresses and the descriptions of the models, once, when all workers accept requests.
    """

    def __init__(
        self,
        order: WorkerOrder,
        addresses: ServerAddresses,
        workers: int,
        drain_s: float,
        event: Callable[..., None],
        announce: Callable[[list[str], tuple[str, ...]], None],
    ) -> None:
        self._order = order
        self._addresses = addresses
        self._count = workers
        self._drain_s = drain_s
        self._event = event
        self._announce = announce
        self._workers: dict[int, _WorkerProcess] = {}
        self._leaving: set[_WorkerProcess] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._signals: list[int] = []
        self._replacing = False
        self._ready = False

    def serve(self) -> int:
        """Serve until a signal, and return the exit code. The call blocks, and takes over the signals of the process.

        Raises:
            RexportError: As for ``run``.
        """
        return asyncio.run(self.run())

    async def run(self) -> int:
        """Serve until a signal, and return the exit code.

        Raises:
            ResourceError: An address cannot be used, or a worker ended early.
            RexportError: A model cannot be opened.
        """
        with ExitStack() as stack:
            self._socket = stack.enter_context(listen(self._addresses.host, self._addresses.port))
            grpc = self._addresses.grpc_port
            reserved = None if grpc is None else stack.enter_context(reserve(self._addresses.host, grpc))
            self._order = replace(
                self._order,
                listener=self._socket.fileno(),
                grpc_address=None if reserved is None else address_of(reserved),
            )
            self._metrics = stack.enter_context(metrics_folder())
            stack.callback(self._kill_all)
            self._watch_signals()
            replies = await self._start_all()
            if self._stopping.is_set():
                return 128 + self._signals[0]
            self._ready = True
            if replies:
                urls = [f"http://{address_of(self._socket)}"]
                urls += [] if reserved is None else [f"grpc://{address_of(reserved)}"]
                self._announce(urls, replies[0].descriptions)
            await self._stopping.wait()
            return await self._stop()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as in a shell's background
                loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop_signal(self, number: int) -> None:
        self._signals.append(number)
        self._stopping.set()
        if len(self._signals) > 1 or not self._ready:
            self._kill_all()

    def _on_hangup(self) -> None:
        if self._replacing or self._stopping.is_set():
            return
        self._replacing = True
        self._keep(asyncio.get_running_loop().create_task(self._replace_all()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _start_all(self) -> list[WorkerReply]:
        started = [await self._spawn() for _ in range(self._count)]
        replies = []
        for slot, worker in enumerate(started):
            self._workers[slot] = worker
        if self._stopping.is_set():
            self._kill_all()
        for slot, worker in enumerate(started):
            try:
                replies.append(_raise_failure(await worker.reply()))
            except RexportError:
                if self._stopping.is_set():
                    return []
                raise
            self._keep(asyncio.get_running_loop().create_task(self._watch(slot, worker)))
        return replies

    async def _spawn(self) -> _WorkerProcess:
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "runtimes.serving.worker", str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(), self._socket.fileno()),
                start_new_session=True,  # a signal of the terminal reaches the supervisor alone
                env=_environment(self._metrics),
            )  # fmt: skip
        finally:
            theirs.close()
        worker = _WorkerProcess(process, ours)
        worker.tell(codec.dumps(self._order))
        return worker

    async def _watch(self, slot: int, worker: _WorkerProcess) -> None:
        """Wait for the end of a worker, and put another one in its place if it was not told to end."""
        code = await worker.process.wait()
        worker.close()
        self._forget_metrics(worker.process.pid)
        self._leaving.discard(worker)
        if self._stopping.is_set() or self._workers.get(slot) is not worker:
            return
        pause_s = 0.0
        self._event("worker-ended", pid=worker.process.pid, reason=describe_end(code))
        while not self._stopping.is_set():
            lived_s = time.monotonic() - worker.started_s
            pause_s = 0.0 if lived_s >= STEADY_S and not pause_s else min(MAX_PAUSE_S, max(1.0, 2 * pause_s))
            await self._pause(pause_s)
            if self._stopping.is_set() or await self._fill(slot):
                return

    async def _pause(self, pause_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _fill(self, slot: int) -> bool:
        """Start a worker for a slot. Returns whether it accepts requests; if not, the log has the reason."""
        fresh = await self._spawn()
        self._leaving.add(fresh)  # it is killed with the others if the server stops meanwhile
        try:
            _raise_failure(await fresh.reply())
        except RexportError as error:
            fresh.close()
            self._leaving.discard(fresh)
            self._event("worker-not-started", code=error.code, reason=str(error))
            return False
        self._leaving.discard(fresh)
        self._workers[slot] = fresh
        self._keep(asyncio.get_running_loop().create_task(self._watch(slot, fresh)))
        self._event("worker-started", pid=fresh.process.pid)
        return True

    async def _replace_all(self) -> None:
        """Replace one worker after the other: each goes on until its successor accepts requests."""
        try:
            for slot, worker in list(self._workers.items()):
                if self._stopping.is_set() or not await self._fill(slot):
                    return
                self._leaving.add(worker)
                worker.tell(RETIRE)
                self._keep(asyncio.get_running_loop().create_task(self._kill_late(worker)))
            self._event("workers-replaced", workers=len(self._workers))
        finally:
            self._replacing = False

    async def _kill_late(self, worker: _WorkerProcess) -> None:
        try:
            await asyncio.wait_for(worker.process.wait(), FINISH_S + self._order.linger_s)
        except TimeoutError:
            _kill(worker)

    async def _stop(self) -> int:
        """Stop all workers without losing a request that was accepted, and return the exit code."""
        workers = [*self._workers.values(), *self._leaving]
        for worker in workers:
            worker.tell(DRAIN)
        self._event("draining", workers=len(workers))
        first = self._signals[0] if self._signals else signal.SIGTERM
        end_s = time.monotonic() + (self._drain_s if first == signal.SIGTERM else 0)
        while time.monotonic() < end_s and len(self._signals) < 2 and _any_alive(workers):
            await asyncio.sleep(0.02)
        await self._refuse_connections()
        for worker in workers:
            worker.tell(RETIRE)
        ends = asyncio.gather(*(worker.process.wait() for worker in workers))
        try:
            await asyncio.wait_for(ends, FINISH_S + self._order.linger_s)
        except TimeoutError:
            self._event("workers-killed", reason="they did not end in time")
            self._kill_all()
            return 1
        if len(self._signals) > 1:
            return 128 + self._signals[1]
        self._event("stopped")
        return 0

    async def _refuse_connections(self) -> None:
        """Let the system answer no more connections, and wait until the workers have taken those that it accepted."""
        with suppress(OSError):
            refuse_new_connections(self._socket)
            await asyncio.sleep(_TAKE_S)
        self._socket.close()

    def _forget_metrics(self, pid: int) -> None:
        """Remove the gauges of a process that ended; its counters stay."""
        for file in Path(self._metrics).glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    def _kill_all(self) -> None:
        for worker in (*self._workers.values(), *self._leaving):
            _kill(worker)


_TAKE_S = 0.1
"""The seconds in which workers take the connections that the system accepted before."""


def _any_alive(workers: list[_WorkerProcess]) -> bool:
    return any(worker.process.returncode is None for worker in workers)


def _kill(worker: _WorkerProcess) -> None:
    with suppress(ProcessLookupError):
        worker.process.kill()


def _raise_failure(reply: WorkerReply) -> WorkerReply:
    """Return the reply of a worker that has started, or raise the error of one that has not."""
    if reply.error_class is None:
        return reply
    kind: type[RexportError] = getattr(errors, reply.error_class)
    raise kind(reply.what, code=reply.code, path=reply.path, hint=reply.hint)


HEAP_VARIABLES = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""The variables of the C library with which the memory of a worker does not grow with the number of its requests.

It keeps one heap, and no lists of freed pieces for each thread. With them, what images and bodies of many sizes leave
behind cannot be joined and used again: the heap grew by 70 bytes a request, of which none were in use.
"""


def _environment(metrics: str) -> dict[str, str]:
    """Return the variables of a worker, which finds rexport where this process did."""
    root = str(Path(next(iter(runtimes.__path__))).parent)
    path = os.environ.get("PYTHONPATH")
    return {
        **HEAP_VARIABLES,
        **os.environ,
        "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root,
        METRICS_VARIABLE: metrics,
    }
