"""The samples of measured processes: raw durations by process and round. Every figure is derived from these.

The processes of the compared configurations are open at the same time and take turns. In each round every process has
one turn, in shuffled order, while the others wait. Changes of the machine therefore affect all configurations alike,
and process ``i`` of one configuration is compared with process ``i`` of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from benchmarks.machine.monitor import Conditions
from benchmarks.records.plan import ShapeName
from runtimes.codec import OMIT_DEFAULT

HostKind: TypeAlias = Literal["loopback", "private", "public"]
"""The place of a server: the machine of the client, a private network, or elsewhere."""


@dataclass(frozen=True)
class Series:
    """The samples of one clock in one process, in seconds and in the order of the calls.

    Attributes:
        warmup_s: The samples of the warm-up, before the first round.
        settled: Whether the warm-up stabilised.
        rounds_s: The samples of each round.
    """

    warmup_s: tuple[float, ...]
    settled: bool
    rounds_s: tuple[tuple[float, ...], ...]

    @property
    def samples_s(self) -> tuple[float, ...]:
        """The samples of all rounds, without the warm-up."""
        return tuple(sample for samples in self.rounds_s for sample in samples)


@dataclass(frozen=True)
class ConcurrentSeries:
    """The rates of calls from several threads at once in one process, so that copies and runs overlap.

    Attributes:
        streams: The number of threads.
        rates_per_s: The calls of all threads per second, for each round.
    """

    streams: int
    rates_per_s: tuple[float, ...]


@dataclass(frozen=True)
class Transfers:
    """The copies of one call between pinned host memory and a device, by the device's own clock, in seconds.

    Attributes:
        to_device_s: The copies of all inputs.
        to_host_s: The copies of all outputs.
    """

    to_device_s: tuple[float, ...]
    to_host_s: tuple[float, ...]


@dataclass(frozen=True)
class ProcessSamples:
    """The samples of one process.

    Attributes:
        load_s: The time to open the artifact, with the import of the backend's library.
        first_s: The time of the first ``infer`` of the process.
        peak_bytes: The largest resident memory of the process up to the end of the timing; ``None`` if the system does
            not report it.
        baseline_bytes: The resident memory before the artifact was opened.
        starts_s: The start of the turn in each round, in seconds since the start of the run.
        latency: One ``infer`` of a whole batch, with inputs and outputs in host memory.
        compute: One run with the inputs already on the device, by the host's clock until the device has finished.
        device: The same run by the device's own clock, without the start of the run; ``None`` on a processor.
        image: From the bytes of one encoded image to its label; ``None`` if not measured.
        conditions: The state of the machine during the turns; ``None`` if not recorded.
        enqueue: The time of the host to queue each run of ``device``.
        transfers: The copies of one call; ``None`` on a processor, and without CUDA's Python bindings.
        throughput: The rates with several calls at once, by their number.
    """

    load_s: float
    first_s: float
    peak_bytes: int | None
    baseline_bytes: int | None
    starts_s: tuple[float, ...]
    latency: Series
    compute: Series
    device: Series | None = None
    image: Series | None = None
    conditions: Conditions | None = None
    enqueue: Series | None = field(default=None, metadata=OMIT_DEFAULT)
    transfers: Transfers | None = field(default=None, metadata=OMIT_DEFAULT)
    throughput: tuple[ConcurrentSeries, ...] = field(default=(), metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class ColdStart:
    """The steps of a cold start as one process measured them, in seconds.

    Attributes:
        python_s: From the parent's start of the process to the first statement.
        import_s: The import of ``runtimes``.
        open_s: ``runtimes.open``, with the import of the backend's library.
        first_s: The first ``infer``.
        steady_s: The median of the calls after the first.
        peak_bytes: The largest resident memory; ``None`` if the system does not report it.
    """

    python_s: float
    import_s: float
    open_s: float
    first_s: float
    steady_s: float
    peak_bytes: int | None

    @property
    def first_output_s(self) -> float:
        """From the start of the process to its first output."""
        return self.python_s + self.import_s + self.open_s + self.first_s


STEADY = "steady call"
"""The call after the first output. It is compared with the first call and is not part of the cold start."""

STEPS = ("Python start", "import", "open", "first call", STEADY)
"""The steps of a cold start, in their order, and the steady call."""


@dataclass(frozen=True)
class ServedLoad:
    """The server of a load test over the network, and the client's own part in the times.

    Attributes:
        protocol: The protocol.
        host: Where the server is.
        server: The name and version of the server, as it gives them.
        model: The name of the model on the server.
        model_version: The version of the model; empty if the server chose it and does not name it.
        timeout_s: The time limit of each request, from its intended start.
        limit_s: The limit of p99 in a search for the highest rate; ``None`` without a search.
        failures: The numbers of requests without a correct answer, by code: ``http-503``, ``grpc-unavailable``,
            ``timeout``, ``connection``. They are not among the samples.
        connections: The largest number of connections at the same time.
        connections_limit: The limit of the client; ``None`` if requests share one connection.
        null_s: The response times of the same client and load at a server of rbench that answers at once, on the
            client's machine.
    """

    protocol: Literal["http", "grpc"]
    host: HostKind
    server: str
    model: str
    model_version: str
    timeout_s: float
    limit_s: float | None
    failures: Mapping[str, int]
    connections: int
    connections_limit: int | None
    null_s: tuple[float, ...]

    @property
    def failed(self) -> int:
        """The number of requests without a correct answer."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class LoadResult:
    """The result of one load shape. The samples are in seconds and in the order of the requests.

    Attributes:
        shape: The load shape: ``single-stream``: the next call starts when the last one has ended. ``server``: requests
            arrive as a Poisson process, whether or not the last one has ended. The measured process answers them one at
            a time in order; a server over the network gets each at its intended start.
            ``fixed-rate``: requests arrive at a fixed rate, as from a camera, and the process sleeps between them.
            ``clients``: several threads, each a single stream. ``batches``: a single stream for each of several batch
            sizes. ``cold``: fresh processes with one request each.
        services_s: From the start of the call to its end.
        responses_s: From the intended arrival of the request to its end, which is the wait of a user. In a single
            stream these are ``services_s``.
        achieved_per_s: The calls finished per second.
        rate_per_s: The requested rate of ``server`` and ``fixed-rate``, in calls per second.
        rate_share: For ``server`` without a requested rate: ``rate_per_s`` divided by the rate of the single stream
            before.
        clients: The number of threads that call.
        steps_s: For ``cold``: the steps from the start of the process, of the median process.
        disk_bytes: For ``cold``: the size of the artifact with all its files.
        peak_bytes: For ``cold``: the largest resident memory of a process.
        unanswered: For ``server`` and ``fixed-rate``: the requests that were still waiting at the end, which are not
            among the samples.
        warmup_s: The calls of the warm-up, one after another.
        settled: Whether the warm-up stabilised.
        conditions: The state of the machine; ``None`` if not recorded.
        served: The server that answered; ``None`` if the model ran in the measured process.
    """

    shape: ShapeName
    services_s: tuple[float, ...]
    responses_s: tuple[float, ...]
    achieved_per_s: float
    rate_per_s: float | None = None
    rate_share: float | None = None
    clients: int = 1
    steps_s: tuple[tuple[str, float], ...] = ()
    disk_bytes: int | None = None
    peak_bytes: int | None = None
    unanswered: int = 0
    warmup_s: tuple[float, ...] = ()
    settled: bool = True
    conditions: Conditions | None = None
    served: ServedLoad | None = field(default=None, metadata=OMIT_DEFAULT)
