"""Results to test with: each has the samples that its figures say, drawn with a seed."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.figures import Figures
from benchmarks.machine.environment import Environment
from benchmarks.machine.gpu import Gpu, GpuState
from benchmarks.machine.monitor import Conditions
from benchmarks.records.result import Asked, Estimate, Evaluation, GpuUse, Identity, Ran, Result
from benchmarks.records.samples import ConcurrentSeries, ProcessSamples, Series, Transfers
from exporter.proportions import wilson
from runtimes.errors import Reason

PROCESSES, ROUNDS = 3, 4

LATENCIES, COMPUTES = 1001, 301
"""Samples in all; odd, so that the median is one of them, and the first so that p90 and p99 are too."""

QUIET = Conditions(
    wall_s=0.84,
    cpu_s=1.66,
    involuntary_switches=3,
    sentinel=0.998,
    foreign_cores=0.02,
    steal_share=0.0,
    pressure_share=0.001,
    mhz=(3500.0, 3500.0),
    throttled=0,
    clock_resolution_s=1e-9,
    clock_cost_s=4e-8,
)
"""A machine that does nothing else."""


def processes(
    p50_s: float,
    p90_s: float,
    p99_s: float,
    compute_s: float,
    device_s: float | None = None,
    *,
    load_s: float = 2.25,
    first_s: float = 0.031,
    peak_bytes: int | None = 312_400_000,
    seed: int = 0,
) -> tuple[ProcessSamples, ...]:
    """Three processes of four rounds, whose samples together have these quantiles to the digit. Seeded; what drifts is
    the same for all seeds, as if they had taken turns."""
    slower, slowest = p90_s / p50_s, p99_s / p50_s
    latency = _series((0.88 * p50_s, p50_s, p90_s, p99_s, 1.3 * p99_s), LATENCIES, seed)
    compute = _series(tuple(compute_s * x for x in (0.9, 1.0, slower, slowest, 1.2 * slowest)), COMPUTES, seed + 1)
    device: tuple[Series | None, ...] = (None,) * PROCESSES
    enqueue, transfers, throughput = device, None, tuple[ConcurrentSeries, ...]()
    if device_s is not None:
        device = _series(tuple(device_s * x for x in (0.99, 1.0, 1.002, 1.01, 1.02)), COMPUTES, seed + 2)
        enqueue = _series(tuple(0.1 * device_s * x for x in (0.99, 1.0, 1.002, 1.01, 1.02)), COMPUTES, seed + 2)
        transfers = Transfers((0.2 * device_s,) * 20, (0.01 * device_s,) * 20)
        throughput = tuple(
            ConcurrentSeries(streams, (speed / p50_s,) * ROUNDS) for streams, speed in ((1, 1.0), (2, 1.5), (4, 1.25))
        )
    return tuple(
        ProcessSamples(
            load_s=load_s + 0.01 * process,
            first_s=first_s + 0.001 * process,
            peak_bytes=peak_bytes,
            baseline_bytes=None if peak_bytes is None else 120_000_000,
            starts_s=tuple(10.0 * process + 1.5 * number for number in range(ROUNDS)),
            latency=latency[process],
            compute=compute[process],
            device=device[process],
            conditions=QUIET,
            enqueue=enqueue[process],
            transfers=transfers,
            throughput=throughput,
        )
        for process in range(PROCESSES)
    )


def _series(quantiles: tuple[float, ...], count: int, seed: int) -> tuple[Series, ...]:
    """A series for each process. ``quantiles``: the least, p50, p90, p99 and the largest."""
    random = np.random.default_rng(seed)
    order = np.argsort(np.argsort(_noise(count, random))) / (count - 1)
    values = np.exp(np.interp(order, (0.0, 0.5, 0.9, 0.99, 1.0), np.log(quantiles)))
    rounds = [_rounded(part) for part in np.array_split(values, PROCESSES * ROUNDS)]
    return tuple(
        Series(
            warmup_s=_rounded(quantiles[1] * np.linspace(1.5, 1.0, 6)),
            settled=True,
            rounds_s=tuple(rounds[process * ROUNDS : (process + 1) * ROUNDS]),
        )
        for process in range(PROCESSES)
    )


def _noise(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Neighbours are alike, each process has its own offset, and the machine drifts for all rows alike."""
    jitter = random.normal(size=count)
    for i in range(1, count):
        jitter[i] += 0.3 * jitter[i - 1]
    offsets = random.normal(scale=0.4, size=PROCESSES)
    drift = np.random.default_rng(99).normal(scale=0.2, size=PROCESSES * ROUNDS)
    parts = np.array_split(np.arange(count), PROCESSES * ROUNDS)
    common = [np.full(len(part), drift[i] + offsets[i // ROUNDS]) for i, part in enumerate(parts)]
    return np.asarray(jitter + np.concatenate(common), dtype=np.float64)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 9) for value in values)


MACHINE = Environment(
    cpu="Fast Processor 9",
    architecture="x86_64",
    processors=4,
    usable_processors=2,
    instruction_sets=("avx2", "avx512f"),
    memory_bytes=8 << 30,
    system="Some System 12",
    kernel="Linux 6.1",
    python="CPython 3.11.7",
    packages={"numpy": "2.4.6"},
    variables={},
    governor="unknown",
    frequency_mhz=None,
    load_average=(0.5, 0.25, 0.12),
)


class StatedFigures(Figures):
    """Figures of which some are stated in place of being derived, so that tests of tables need no samples."""

    def __init__(self, result: Result, stated: dict[str, object]) -> None:
        super().__init__(result)
        self.stated = stated
        vars(self).update(stated)


_PARTS = {
    "identity": [field.name for field in dataclasses.fields(Identity)],
    "asked": [field.name for field in dataclasses.fields(Asked) if field.name not in ("threads", "device")],
    "ran": [field.name for field in dataclasses.fields(Ran)],
}
_FACTS = [field.name for field in dataclasses.fields(Result)]


def change_facts(result: Result, **changes: Any) -> Result:
    """The result with other facts, each named without its part: ``batch=8``. ``threads`` and ``device`` are what ran;
    what was asked for is ``asked_threads`` and ``asked_device``."""
    facts = {name: changes.pop(name) for name in list(changes) if name in _FACTS}
    if isinstance(facts.get("reason"), str):
        facts["reason"] = Reason("stated", facts["reason"])
    for part, names in _PARTS.items():
        inner = {name: changes.pop(name) for name in list(changes) if name in names}
        if part == "asked":
            asked = {f"asked_{name}": name for name in ("threads", "device")}
            inner |= {name: changes.pop(word) for word, name in asked.items() if word in changes}
        facts[part] = replace(facts.get(part, getattr(result, part)), **inner)
    assert not changes, f"a result has no {', '.join(changes)}"
    return replace(result, **facts)


def change(of: Figures | Result, **changes: Any) -> Figures:
    """The same with other facts, as ``change_facts`` takes them, and with figures stated, as ``p50=Estimate(...)``."""
    figures = Figures(of) if isinstance(of, Result) else of
    stated = dict(figures.stated) if isinstance(figures, StatedFigures) else {}
    names = [name for name in changes if name not in _FACTS and hasattr(Figures, name)]
    stated |= {name: changes.pop(name) for name in names}
    return StatedFigures(change_facts(figures.result, **changes), stated)


def estimate(value: float, interval: tuple[float, float] | None = None) -> Estimate:
    """Without an interval where none is named."""
    return Estimate(value, *(interval or ()))


EMPTY = Result(
    status="ok",
    reason=None,
    run="0123456789ab",
    time="2026-01-02T03:04:05+00:00",
    identity=Identity(
        subject="resnet20.onnx",
        artifact="resnet20.onnx",
        sha256="ab" * 32,
        variant="resnet20",
        weights="bundled",
        trained=True,
        precision="fp32",
        backend="onnxruntime",
        batch=1,
        data="fashion-mnist",
    ),
    asked=Asked(
        threads=2,
        device="cpu",
        cuda_graphs=None,
        duration_s=1.0,
        processes=PROCESSES,
        rounds=ROUNDS,
        seed=0,
        group=0,
        command=("rbench", "run", "resnet20.onnx", "-o", "results"),
    ),
    ran=Ran("cpu", 2),
    environment=MACHINE,
)

SKIPPED = Figures(
    change_facts(EMPTY, status="skipped", reason=Reason("missing", "openvino is not installed"), backend="openvino")
)

_FAST = (0.00041, 0.00044, 0.00052, 0.00039)

REFERENCE = change(
    EMPTY,
    backend="pytorch",
    backend_version="2.13.0",
    provider="eager",
    arithmetic="float32",
    samples=processes(0.0025, 0.0027, 0.0031, 0.0024),
    evaluation=Evaluation(0, (), 1480.0),
    p50=estimate(0.0025, (0.00245, 0.00256)),
    top1=estimate(0.9361, wilson(9361, 10_000)),
    top5=estimate(0.9981),
    images=10_000,
    agreement=estimate(1.0),
    top1_change=estimate(0.0, (-0.0002, 0.0002)),
)

FASTER = change(
    REFERENCE,
    backend="onnxruntime",
    backend_version="1.32.0",
    provider="CPUExecutionProvider",
    arithmetic="int8 (53 of 54), float32 (1 of 54)",
    precision="int8",
    samples=processes(*_FAST, load_s=0.21, first_s=0.004, peak_bytes=187_200_000, seed=10),
    evaluation=Evaluation(0, (), 5210.0),
    p50=estimate(0.00041, (0.000405, 0.000416)),
    ratio=estimate(6.0976, (5.95, 6.21)),
    verdict="faster",
    agreement=estimate(0.9999),
    top1=estimate(0.9349, wilson(9349, 10_000)),
    top1_change=estimate(-0.0012, (-0.0029, 0.0005)),
)

H200 = Gpu("NVIDIA H200", "GPU-0", "580.159.03", "13.0", "9.0", 150_754_820_096, 1980, 700.0)

IDLE = GpuState("NVIDIA H200", "GPU-0", 345, 3201, 76.5, 31, ("idle",), 1000.0, 600 << 20)
BUSY = GpuState("NVIDIA H200", "GPU-0", 1755, 3201, 695.25, 55, ("power cap", "sync boost"), 1500.0, 1600 << 20)

ON_A_GPU = change(
    FASTER,
    device="cuda",
    asked_device="cuda",
    group=1,
    provider="CUDAExecutionProvider",
    precision="fp16",
    arithmetic="float16",
    environment=replace(MACHINE, gpus=(replace(H200, name="Another GPU", uuid="GPU-1"), H200)),
    samples=processes(*_FAST, 0.000321, load_s=3.1, first_s=0.4, seed=20),
    cuda_graphs=True,
    device_p50=estimate(0.000321, (0.00032, 0.000322)),
    gpu=GpuUse(IDLE, BUSY, 1_048_576_000, 0.0123),
)
