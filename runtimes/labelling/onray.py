"""``RayExecutor``: labels shards in actors of a Ray cluster.

Ray places the actors, restarts nothing by itself and holds no data: an actor gets the number of a shard, reads its
images from where they are, and writes the part.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runtimes.errors import BackendUnavailableError, CompatibilityError, ResourceError, RexportError, quote
from runtimes.labelling.labeller import ShardLabeller
from runtimes.labelling.raycluster import RaySettings, connect
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath, WorkerSettings

OPENING_ATTEMPTS = 3
"""The number of workers in a row that may die while they open the artifact."""

ASK_S = 1.0
"""Seconds between two questions to a worker about its progress. With many workers the questions are rarer."""


class LabellingActor:
    """The side of a worker: a process on a node of the cluster, which labels one work after the other."""

    def __init__(self) -> None:
        self._labeller: ShardLabeller | None = None
        self._at: tuple[ShardWork | None, int] = (None, 0)

    def open(self, settings: WorkerSettings) -> str:
        """Open the artifact, whose digest is compared with that of the job. Returns the version of rexport."""
        self._labeller = ShardLabeller.open(settings)
        return _version()

    def label(self, work: ShardWork) -> ShardReport:
        """Label the images of a work."""
        if self._labeller is None:
            raise RuntimeError("the actor has not opened an artifact")

        def record(done: int) -> None:
            self._at = (work, done)

        record(0)
        return self._labeller.label(work, record)

    def progress(self) -> tuple[ShardWork | None, int]:
        """Return the work at hand and how many of its images are done. Another thread than that of ``label`` asks."""
        return self._at


@dataclass(eq=False)
class _RayWorker:
    """The driver's view of one actor.

    Attributes:
        handle: Ray's handle of the actor.
        opening: The result of ``open`` to come, or ``None`` once the actor is ready.
        works: The works given to the actor with their results to come. It has begun the first of them alone.
        answer: An answer about progress to come, or ``None``.
        done: The number of images of the first work that are done.
    """

    handle: Any
    opening: Any
    works: deque[tuple[Any, ShardWork]] = field(default_factory=deque)
    answer: Any = None
    done: int = 0

    def next_result(self) -> Any:
        """Return the next result to come, or ``None``."""
        return self.opening if self.opening is not None else self.works[0][0] if self.works else None


class RayExecutor:
    """Workers that are Ray actors, as ``runtimes.labelling.executor.Executor`` describes.

    ``RayExecutor.start`` connects and starts them; the caller closes it. Up to two works wait in an actor, so that it
    never waits for the driver; near the end of a job each has one, so that no worker idles while another has two.

    Attributes:
        capacity: The number of works that may be submitted.
    """

    @classmethod
    def start(cls, settings: WorkerSettings, ray_settings: RaySettings) -> RayExecutor:
        """Connect to the cluster, or start one, and create the workers. They open the artifact while this returns.

        Starting a local cluster takes about ten seconds. If this process is connected to a cluster already, that
        connection is used and stays open.

        Args:
            settings: What each worker opens. ``threads`` is also the number of CPUs that Ray reserves for a worker;
                ``None`` means 1.
            ray_settings: Where the workers run.

        Raises:
            BackendUnavailableError: Ray is not installed, or no cluster answers.
            UsageError: The cluster is reached over the network and asks for no token, or the token is missing.
        """
        with ExitStack() as stack:
            threads = settings.threads or 1
            ray, workers = stack.enter_context(connect(ray_settings, threads))
            decoding_threads = threads if settings.decoding_threads is None else settings.decoding_threads
            settings = replace(settings, threads=threads, decoding_threads=decoding_threads)
            return cls(ray, settings, (workers, ray_settings.gpus_per_worker), stack.pop_all())

    def __init__(self, ray: Any, settings: WorkerSettings, size: tuple[int, float], connection: ExitStack) -> None:
        self._ray = ray
        self._settings = settings
        self._connection = connection
        count, self._gpus = size
        self.capacity = 2 * count + 1
        # Ray's worker process unpickles the class by its name, so rexport must be installed on each node.
        self._actor = ray.remote(
            num_cpus=settings.threads,
            num_gpus=self._gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"watch": 1},
            scheduling_strategy="SPREAD",
        )(LabellingActor)
        self._waiting: deque[ShardWork] = deque()
        self._opening_deaths = 0
        self._asked_s = time.monotonic()
        self._workers = [self._create() for _ in range(count)]

    @property
    def ready(self) -> int:
        """The number of workers that have opened the artifact. ``wait`` updates it."""
        return sum(worker.opening is None for worker in self._workers)

    def submit(self, work: ShardWork) -> None:
        """Queue a work, as ``Executor.submit``."""
        self._waiting.append(work)
        self._dispatch()

    def wait(self, timeout_s: float) -> ShardReport | WorkerDeath | None:
        """Return the next finished work, as ``Executor.wait``.

        Raises:
            RexportError: As for ``Executor.wait``.
            BackendUnavailableError: ``OPENING_ATTEMPTS`` workers in a row died before they were ready.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if time.monotonic() - self._asked_s >= max(ASK_S, len(self._workers) / 100):
                self._asked_s = time.monotonic()
                self._check_nodes()
                self._ask()
            self._take_answers()
            expected = {ref: worker for worker in self._workers if (ref := worker.next_result()) is not None}
            left_s = max(0.0, deadline - time.monotonic())
            if not expected:
                time.sleep(left_s)
                return None
            ready, _ = self._ray.wait(list(expected), num_returns=1, timeout=left_s)
            if not ready:
                return None
            outcome = self._receive(expected[ready[0]])
            self._dispatch()
            if outcome is not None:
                return outcome

    def images_in_progress(self) -> int:
        """Return how many images of unfinished works are done, as of the last answers of the workers."""
        return sum(worker.done for worker in self._workers)

    def describe_workers(self) -> str:
        """Return how many workers run and wait, and what they need and the cluster has."""
        there, free = self._ray.cluster_resources(), self._ray.available_resources()
        need = _resources({"CPU": float(self._settings.threads or 1), "GPU": self._gpus}, self._gpus)
        return (
            f"{self.ready} of {len(self._workers)} Ray workers are ready, and each needs {need}; the cluster has "
            f"{_resources(there, self._gpus)} (free: {_resources(free, self._gpus)})"
        )

    def close(self) -> None:
        """End the workers, and the cluster if it was started here. A second call does nothing."""
        for worker in self._workers:
            self._kill(worker)
        self._workers = []
        self._connection.close()

    def _create(self) -> _RayWorker:
        handle = self._actor.remote()
        return _RayWorker(handle, handle.open.remote(self._settings))

    def _kill(self, worker: _RayWorker) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.handle, no_restart=True)

    def _dispatch(self) -> None:
        """Give works to workers: first one to each idle worker, then a second one while more are waiting."""
        ready = [worker for worker in self._workers if worker.opening is None]
        for given in (0, 1):
            for worker in ready:
                if len(self._waiting) > given and len(worker.works) == given:
                    work = self._waiting.popleft()
                    worker.works.append((worker.handle.label.remote(work), work))

    def _receive(self, worker: _RayWorker) -> ShardReport | WorkerDeath | None:
        """Take the next result of a worker. A dead worker is replaced."""
        try:
            result = self._ray.get(worker.next_result())
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        except self._ray.exceptions.RayError as error:
            return self._replace(worker, _reason(error))
        if worker.opening is not None:
            worker.opening = None
            self._opening_deaths = 0
            _check_version(result)
            return None
        worker.works.popleft()
        worker.done = 0
        report: ShardReport = result
        return report

    def _replace(self, worker: _RayWorker, reason: str) -> WorkerDeath | None:
        """Put another worker in the place of a dead one. It had begun the first of its works; the others wait again."""
        self._kill(worker)
        works = [work for _, work in worker.works]
        self._waiting.extendleft(reversed(works[1:]))
        if worker.opening is not None:
            self._opening_deaths += 1
            if self._opening_deaths >= OPENING_ATTEMPTS:
                raise BackendUnavailableError(
                    f"{self._opening_deaths} Ray workers in a row ended before they had opened the artifact: {reason}",
                    code="ray-workers-die",
                    hint="rexport, the artifact's backend and enough memory are needed on each node",
                )
        self._workers[self._workers.index(worker)] = self._create()
        return WorkerDeath(works[0], reason) if works else None

    def _check_nodes(self) -> None:
        """Raise ``ResourceError`` if the cluster has lost all nodes that could run a worker."""
        if not self.ready and not any(node["Alive"] for node in self._ray.nodes()):
            raise ResourceError(
                "the Ray cluster has lost its last node",
                code="ray-nodes-lost",
                hint="the same command continues the job",
            )

    def _ask(self) -> None:
        """Ask the workers about their progress."""
        for worker in self._workers:
            if worker.works and worker.answer is None:
                worker.answer = worker.handle.progress.options(concurrency_group="watch").remote()

    def _take_answers(self) -> None:
        """Record the answers about progress that are there."""
        asked = {worker.answer: worker for worker in self._workers if worker.answer is not None}
        if not asked:
            return
        for ref in self._ray.wait(list(asked), num_returns=len(asked), timeout=0)[0]:
            worker, asked[ref].answer = asked[ref], None
            with contextlib.suppress(self._ray.exceptions.RayError):  # the result of its work reports the death
                work, done = self._ray.get(ref)
                if worker.works and worker.works[0][1] == work:
                    worker.done = done


def _version() -> str:
    """Return the version of rexport in this process."""
    try:
        return version("rexport")
    except PackageNotFoundError:
        return "unknown"


def _check_version(theirs: str) -> None:
    if theirs != _version():
        raise CompatibilityError(
            f"a worker has rexport {theirs}, and this command is of {_version()}",
            code="ray-worker-version",
            hint="install the same version on each node",
        )


def _cause(error: Any) -> BaseException:
    """Return the error that was raised in a worker, without Ray's traceback."""
    cause = error.cause
    return cause if isinstance(cause, (RexportError, MemoryError)) else error


def _reason(error: Exception) -> str:
    """Return why a worker died. Ray tells it in the text of its error alone, with ids that differ from run to run."""
    text = str(error)
    if "creation task" in text:  # the class cannot be imported there: rexport is missing, or another version
        return quote(text.strip().splitlines()[-1])
    if "memory" in type(error).__name__.lower() or "running low on memory" in text:
        return "its node ran out of memory"
    return "its node was lost" if "node has died" in text else "it ended unexpectedly"


def _resources(amounts: dict[str, float], gpus: float) -> str:
    """Return CPUs in words, and GPUs if any are wanted, for example "4 CPUs and 1 GPU"."""
    kinds = ("CPU", "GPU") if gpus else ("CPU",)
    numbers = [(amounts.get(kind, 0.0), kind) for kind in kinds]
    return " and ".join(f"{number:g} {kind}{'' if number == 1 else 's'}" for number, kind in numbers)
