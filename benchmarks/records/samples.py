"""What was sampled: raw durations, by process and by round. Every figure is derived from these.

A sitting is one process of a configuration. The processes of the configurations that are compared are open at the same
time, and take turns: in each round every one has its turn, in shuffled order, while the others wait. So what the
machine does meanwhile meets them all alike, and sitting ``i`` of the one is compared with sitting ``i`` of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.machine.monitor import Conditions
from benchmarks.records.plan import ShapeName


@dataclass(frozen=True)
class Series:
    """The samples of one clock in one process, in seconds and in the order of the calls.

    Attributes:
        warmup_s: what went before the first round.
        settled: whether the warm-up's windows came to agree.
        rounds_s: a tuple of samples for each round.
    """

    warmup_s: tuple[float, ...]
    settled: bool
    rounds_s: tuple[tuple[float, ...], ...]

    @property
    def samples_s(self) -> tuple[float, ...]:
        """All of them, the warm-up's not among them."""
        return tuple(sample for samples in self.rounds_s for sample in samples)


@dataclass(frozen=True)
class ProcessSamples:
    """What one process gave.

    Attributes:
        load_s: of opening, with the import of the runtime's library.
        first_s: of the process's first ``infer``.
        peak_bytes: the largest resident memory of the process up to the end of the timing; ``None`` where the system
            does not tell.
        baseline_bytes: what it had before the artifact was opened.
        starts_s: when each round's turn began, in seconds since the run began.
        latency: one ``infer`` of a whole batch, host arrays in and out.
        compute: one run with the inputs already on the device, by the host's clock until the device is done.
        device: the same by the device's own clock; ``None`` on a processor.
        image: from the bytes of an encoded image to its label, a batch of one; ``None`` where it was not measured.
        conditions: how the machine was in these turns; ``None`` where it was not looked at.
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


@dataclass(frozen=True)
class ColdStart:
    """What one process told of itself: how long its steps took, and its largest resident memory."""

    python_s: float
    import_s: float
    open_s: float
    first_s: float
    steady_s: float
    peak_bytes: int | None

    @property
    def first_output_s(self) -> float:
        """From the start of the process to its first answer."""
        return self.python_s + self.import_s + self.open_s + self.first_s


STEADY = "steady call"
"""The call after the first answer: to compare the first call with, and no step on the way to it."""

STEPS = ("Python start", "import", "open", "first call", STEADY)
"""Of a cold start, in their order."""


@dataclass(frozen=True)
class LoadResult:
    """What came of one load shape. The samples lie in the order of the requests, in seconds.

    Attributes:
        shape: ``single-stream``: the next call as soon as the last one has ended. ``server``: requests arrive as a
            Poisson process, whether or not the last one has ended; they are answered one at a time, in their order.
            ``fixed-rate``: requests come at equal distances, as from a camera, with idle gaps in which the process
            sleeps. ``clients``: several threads, each a single stream. ``batches``: a single stream, of one of several
            batch sizes. ``cold``: fresh processes, a request each.
        rate_per_s: of ``server`` and ``fixed-rate``: calls that were to come in a second.
        rate_share: of ``server`` where no rate was named: ``rate_per_s`` over what the single stream before it reached.
        clients: threads that call.
        achieved_per_s: calls that were finished in a second.
        services_s: from the start of the call to its end.
        responses_s: from the intended start to the end: what the user of the request waits. In a single stream nothing
            is intended before the last call has ended, so they are its services.
        steps_s: of ``cold``: the named steps from the start of the process on, the median process.
        disk_bytes: of ``cold``: the artifact and all its files.
        peak_bytes: of ``cold``: the largest resident memory of a process.
        unanswered: of ``server`` and ``fixed-rate``: requests that still waited when the load was ended, and are not
            among the samples.
        warmup_s: the calls before, one after another; settled: whether their windows came to agree.
        conditions: how the machine was meanwhile; ``None`` where it was not looked at.
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
