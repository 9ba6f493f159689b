"""The load shapes of ``rbench load --url``: requests to a server over many connections, from their intended starts.

In an open loop each request is sent at its intended start, whether or not those before it were answered. Its response
time counts from the intended start, so that a stall shows in every request that comes during it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from benchmarks.machine.monitor import MachineMonitor
from benchmarks.process import isolated
from benchmarks.records.plan import ArrivalPlan, Plan
from benchmarks.records.samples import HostKind, LoadResult, ServedLoad
from benchmarks.worker.calls import LOOKED_AT, MOST_LOOKED_AT, REPEAT_TOLERANCE, close
from benchmarks.worker.clocks import OpenedArtifact
from benchmarks.worker.load_generator import FIRST_CALLS, LEAST_CALLS, plan_starts
from benchmarks.worker.remote_session import RemoteSession
from benchmarks.worker.senders import RawAnswer, SendError
from benchmarks.worker.timer import TimedCall, garbage_collector_at_rest
from runtimes.errors import CheckFailedError, quote
from runtimes.protocol import Arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

NULL_S = 0.5
"""The longest duration of the load at the server of rbench that answers at once."""

PAUSE_S = 0.01
"""The pause of a closed loop after a failed request. A server that refuses at once would get nothing but retries."""

FIRST_CONNECTIONS = 8
"""The connections that an open loop has before it begins."""


@dataclass
class LoadLog:
    """The requests of a load so far.

    Attributes:
        spans: The intended start, the start and the end of each answered request, in seconds.
        failures: The numbers of failed requests by code.
        last_failure: The message of the last one.
        answers: Some of the answers, each with the number of its feed.
        sent: The number of requests.
        last_sent_s: The time when the last one was sent.
    """

    spans: list[tuple[float, float, float]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    last_failure: str = ""
    answers: list[tuple[int, RawAnswer]] = field(default_factory=list)
    sent: int = 0
    last_sent_s: float = 0.0


class ServedClient:
    """Sends the requests of a load and records them.

    Args:
        session: The session of the served model.
        requests: The encoded requests, which are sent in rotation.
        plan: How the requests arrive.
    """

    def __init__(self, session: RemoteSession, requests: Sequence[bytes], plan: ArrivalPlan) -> None:
        self._session, self._requests, self._plan = session, requests, plan
        self._each = LOOKED_AT
        self.log = LoadLog()

    async def run(self) -> None:
        """Apply the load. The coroutine ends when each request has its answer or has failed."""
        parallel = self._plan.clients if self._plan.rate_per_s is None else FIRST_CONNECTIONS
        for _ in range(FIRST_CALLS):
            first = (self._session.send(self._requests[0]) for _ in range(parallel))
            await asyncio.gather(*first, return_exceptions=True)  # a server may refuse so many at once
        if self._plan.rate_per_s is None:
            await asyncio.gather(*(self._run_closed_loop() for _ in range(self._plan.clients)))
        else:
            await self._run_open_loop(self._plan.rate_per_s)

    async def _run_open_loop(self, rate_per_s: float) -> None:
        plan = self._plan
        arrivals: Literal["fixed", "poisson"] = "poisson" if plan.shape == "server" else "fixed"
        starts = plan_starts(arrivals, rate_per_s, plan.duration_s, plan.seed, plan.max_requests)
        running: set[asyncio.Task[bool]] = set()
        began_s = time.perf_counter()
        for start_s in starts:
            intended_s = began_s + start_s
            await asyncio.sleep(max(0.0, intended_s - time.perf_counter()))
            task = asyncio.create_task(self._ask(intended_s))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running)

    async def _run_closed_loop(self) -> None:
        plan, made = self._plan, 0
        least, most = max(1, LEAST_CALLS // plan.clients), max(1, plan.max_requests // plan.clients)
        end_s = time.perf_counter() + plan.duration_s
        while made < most and (made < least or time.perf_counter() < end_s):
            made += 1
            if not await self._ask(time.perf_counter()):
                await asyncio.sleep(PAUSE_S)

    async def _ask(self, intended_s: float) -> bool:
        """Send the next request, record it, and return whether it was answered."""
        log, number = self.log, self.log.sent
        log.sent += 1
        feed = number % len(self._requests)
        log.last_sent_s = sent_s = time.perf_counter()
        try:
            left_s = self._session.endpoint.timeout_s - (sent_s - intended_s)
            async with asyncio.timeout(left_s):
                answer = await self._session.sender.send(self._requests[feed])
        except SendError as error:
            log.failures[error.code] += 1
            log.last_failure = str(error)
            return False
        except TimeoutError:
            log.failures["timeout"] += 1
            return False
        log.spans.append((intended_s, sent_s, answer.ended_s))
        if number % self._each == 0 or not log.answers:
            log.answers.append((feed, answer))
            if len(log.answers) > MOST_LOOKED_AT:
                del log.answers[1::2]
                self._each *= 2
        return True


@dataclass(frozen=True)
class ServedRun:
    """The circumstances of a load.

    Attributes:
        step: Called with each step.
        watcher: The monitor of the machine.
        tolerance: The limit of the relative difference of an output from the expected one.
    """

    step: Callable[[str], None]
    watcher: MachineMonitor
    tolerance: float


def run(session: RemoteSession, opened: OpenedArtifact, plan: ArrivalPlan, about: ServedRun) -> LoadResult:
    """Apply a load to a served model after a warm-up, and return its times.

    The call blocks for the duration of the plan, and for the time limit of a request at most after it.

    Args:
        session: The session of the served model, whose outputs are checked.
        opened: The feeds that the requests use in rotation, with their expected outputs.
        plan: How requests arrive.
        about: The callback for steps, the monitor and the tolerance.

    Raises:
        CheckFailedError: No request was answered, or the output of a request under load differs from the output for
            the same input before.
    """
    requests = [session.encode(arrays) for arrays in opened.feeds]
    client = ServedClient(session, requests, plan)
    with garbage_collector_at_rest():
        about.step("warm-up")
        warm = TimedCall(_ignore_failures(session.bind(opened.feeds[0])), Plan())
        warm.warm_up()
        about.step(plan.shape)
        with about.watcher.turn():
            session.wait_for(client.run())
    log = client.log
    if not log.spans:
        raise CheckFailedError(
            f"none of {log.sent:,} requests was answered ({describe_failures(log.failures)}; the last one: "
            f"{quote(log.last_failure)})",
            code="load-unanswered",
        )
    _check_answers(session, log, opened.expected, max(REPEAT_TOLERANCE, about.tolerance))
    about.step("client alone")
    null_s = _measure_client(session, log.answers[0][1], requests, plan)
    warmup, spans = warm.series(), sorted(log.spans)
    wall_s = max(log.last_sent_s, *(end for _, _, end in spans)) - spans[0][0]
    return LoadResult(
        shape=plan.shape,
        services_s=tuple(round(end - sent, 9) for _, sent, end in spans),
        responses_s=tuple(round(end - intended, 9) for intended, _, end in spans),
        achieved_per_s=len(spans) / wall_s,
        rate_per_s=plan.rate_per_s,
        clients=plan.clients,
        warmup_s=warmup.warmup_s,
        settled=warmup.settled,
        conditions=about.watcher.conditions(),
        served=_describe_server(session, log, null_s),
    )


def _ignore_failures(call: Callable[[], None]) -> Callable[[], None]:
    """Return a call for the warm-up, in which a busy server may refuse a request."""

    def warm() -> None:
        with contextlib.suppress(CheckFailedError):
            call()

    return warm


def describe_failures(failures: Counter[str]) -> str:
    """Return the numbers of failures in words."""
    return ", ".join(f"{number:,} {code}" for code, number in failures.most_common())


def _check_answers(session: RemoteSession, log: LoadLog, expected: Sequence[Arrays], tolerance: float) -> None:
    """Raise ``CheckFailedError`` if an answer that was kept is not the one for its input."""
    for feed, answer in log.answers:
        for name, values in session.decode(answer).items():
            if not close(values, expected[feed][name], tolerance):
                raise CheckFailedError(
                    f"output {name!r} of a request under load differs from the output for the same input before",
                    code="served-output-changed",
                )


def _describe_server(session: RemoteSession, log: LoadLog, null_s: tuple[float, ...]) -> ServedLoad:
    endpoint, sender = session.endpoint, session.sender
    return ServedLoad(
        protocol=endpoint.protocol,
        host=find_host_kind(urlsplit(endpoint.url).hostname or ""),
        server=endpoint.server,
        model=endpoint.model,
        model_version=endpoint.version or ", ".join(endpoint.versions),
        timeout_s=endpoint.timeout_s,
        limit_s=endpoint.limit_s,
        failures=dict(sorted(log.failures.items())),
        connections=sender.most_connections,
        connections_limit=sender.connections_limit,
        null_s=null_s,
    )


def find_host_kind(host: str) -> HostKind:
    """Return where a host is, by its address. An address of this machine counts as ``loopback``."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        address = ipaddress.ip_address(place[0])
    except (OSError, ValueError):
        return "public"
    with socket.socket(family, socket.SOCK_DGRAM) as own, contextlib.suppress(OSError):
        own.connect(place)  # sends nothing, and chooses the address of this machine that reaches the place
        if own.getsockname()[0] == place[0]:
            return "loopback"
    return "loopback" if address.is_loopback else "private" if address.is_private else "public"


def _measure_client(
    session: RemoteSession, answer: RawAnswer, requests: Sequence[bytes], plan: ArrivalPlan
) -> tuple[float, ...]:
    """Return the response times of the same client and load, shortened, at a server that gives ``answer`` at once."""
    protocol = session.endpoint.protocol
    with null_server(protocol, answer) as port:
        endpoint = replace(session.endpoint, url=f"{protocol}://127.0.0.1:{port}")
        null = RemoteSession(session.inputs, session.outputs, endpoint, session.loop)
        try:
            client = ServedClient(null, requests, replace(plan, duration_s=min(NULL_S, plan.duration_s)))
            with garbage_collector_at_rest():
                null.wait_for(client.run())
        finally:
            null.close()
    return tuple(round(end - intended, 9) for intended, _, end in sorted(client.log.spans))


@contextlib.contextmanager
def null_server(protocol: str, answer: RawAnswer) -> Iterator[int]:
    """Run a server on loopback that gives one answer to every request at once, and yield its port.

    Args:
        protocol: ``http`` or ``grpc``.
        answer: The answer.

    Raises:
        CheckFailedError: The server did not start.
    """
    header_length = answer.headers.get("inference-header-content-length", "")
    program = (sys.executable, "-P", "-m", "benchmarks.worker.null_server")
    process = subprocess.Popen(
        [*program, protocol, str(len(answer.content)), header_length],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=isolated.environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(answer.content)
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise CheckFailedError("the server that measures the client did not start", code="null-server-failed")
        yield int(line)
    finally:
        process.kill()
        process.communicate()
