"""What was sampled: raw durations, by process and by round. Every figure is derived from these.

A sitting is one process of a configuration. The processes of the configurations that are compared are open at the same
time, and take turns: in each round every one has its turn, in shuffled order, while the others wait. So what the
machine does meanwhile meets them all alike, and sitting ``i`` of the one is compared with sitting ``i`` of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.machine.monitor import Conditions


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
