"""``ProcessExecutor``: shards are labelled by processes on this machine, which may die without harm to the job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from runtimes.errors import ResourceError
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath, WorkerSettings

PROGRAM = (sys.executable, "-P", "-m", "runtimes.labelling.worker")
"""The command of a worker, to which the number of its end of the pipe is appended."""

STARTS = 3
"""The number of workers in a row that may die before they are ready."""

END_S = 5.0
"""The time that a worker may take to end by itself."""


class _LabellingProcess:
    """A worker process and what it is doing."""

    def __init__(self, number: int, settings: WorkerSettings) -> None:
        self.number = number
        self.ready = False
        self.work: ShardWork | None = None
        self.done = 0
        self.pipe, theirs = Pipe()
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        with theirs:
            self._process = subprocess.Popen(
                [*PROGRAM, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )
        self.pipe.send(settings)

    def begin(self, work: ShardWork) -> None:
        self.work, self.done = work, 0
        self.pipe.send(work)

    def reason(self) -> str:
        """Return why the process ended, in words."""
        code = self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def end(self) -> None:
        self.pipe.close()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class ProcessExecutor:
    """Worker processes on this machine. One that dies is replaced.

    Args:
        settings: The settings of each worker.
        workers: The number of processes.
    """

    def __init__(self, settings: WorkerSettings, workers: int) -> None:
        self.capacity = workers
        self._settings = settings
        self._waiting: deque[ShardWork] = deque()
        self._failed_starts = 0
        self._workers: list[_LabellingProcess] = []
        try:
            for number in range(workers):
                self._workers.append(_LabellingProcess(number, settings))
        except OSError as error:
            self.close()
            raise ResourceError(f"cannot start a worker: {error}", code="worker-not-started") from error

    def submit(self, work: ShardWork) -> None:
        """Give a work to a worker that is free, or to the next one."""
        self._waiting.append(work)
        self._assign()

    def _assign(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.ready and worker.work is None:
                try:
                    worker.begin(self._waiting[0])
                except OSError:  # it has just died; wait() replaces it
                    worker.work = None
                else:
                    self._waiting.popleft()

    def wait(self, timeout_s: float) -> ShardReport | WorkerDeath | None:
        """Return the next report or death, or ``None`` after ``timeout_s`` seconds.

        Raises:
            RexportError: A worker reported an error, or several workers in a row died before they were ready.
        """
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), timeout_s):
            worker = pipes[pipe]  # type: ignore[index]
            outcome = self._receive(worker)
            if outcome is not None:
                return outcome
        self._assign()
        return None

    def _receive(self, worker: _LabellingProcess) -> ShardReport | WorkerDeath | None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return self._replace(worker)
        if isinstance(message, Exception):
            raise message
        if message is True:
            worker.ready, self._failed_starts = True, 0
        elif isinstance(message, int):
            worker.done = message
        elif isinstance(message, ShardReport):
            worker.work, worker.done = None, 0
            return message
        return None

    def _replace(self, worker: _LabellingProcess) -> WorkerDeath | None:
        reason = worker.reason()
        worker.pipe.close()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise ResourceError(
                    f"{STARTS} workers in a row died before they were ready: {reason}",
                    code="workers-not-ready",
                    hint="fewer --workers need less memory",
                )
        self._workers[worker.number] = _LabellingProcess(worker.number, self._settings)
        return None if worker.work is None else WorkerDeath(worker.work, reason)

    def images_in_progress(self) -> int:
        """Return how many images of the submitted works are done."""
        return sum(worker.done for worker in self._workers)

    def describe_workers(self) -> str:
        """Return what each worker is doing."""
        return "; ".join(
            f"worker {worker.number} is opening the artifact"
            if not worker.ready
            else f"worker {worker.number} is at no shard"
            if worker.work is None
            else f"worker {worker.number} is at shard {worker.work.shard} after {worker.done:,} of "
            f"{worker.work.images:,} images"
            for worker in self._workers
        )

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()


def serve(pipe: Connection) -> None:
    """Be a worker: receive settings and works, and send progress and reports. Returns when the driver is gone."""
    from runtimes.labelling.labeller import ShardLabeller

    try:
        settings: WorkerSettings = pipe.recv()
        with ShardLabeller.open(settings) as labeller:
            pipe.send(True)
            while True:
                pipe.send(labeller.label(pipe.recv(), pipe.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the driver has ended
    except Exception as error:
        pipe.send(error)
