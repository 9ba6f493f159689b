"""Results of every kind that a page shows, each with samples drawn with a seed."""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy import packing
from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis.figures import Figures
from benchmarks.records.plan import ShapeName
from benchmarks.records.result import RoofInputs
from benchmarks.records.samples import LoadResult
from runtimes.errors import Reason
from tests.benchmarks.results import EMPTY, FASTER, REFERENCE, SKIPPED, change, estimate, processes

CLASSES = ("shirt", "shoe", "bag", "coat")
IMAGES = 400

SPEEDS = {  # milliseconds at batch 1, and what eight images take of eight times that
    ("pytorch", "fp32"): (2.5, 0.4),
    ("onnxruntime", "fp32"): (0.72, 0.8),
    ("openvino", "fp32"): (0.65, 0.7),
    ("onnxruntime", "int8"): (0.412, 0.8),
    ("openvino", "int8"): (0.41, 0.6),
}


def _predictions(seed: int, wrong: int) -> packing.PackedPredictions:
    """Of all images, but for ``wrong`` of them, the truth."""
    random = np.random.default_rng(seed)
    targets = np.arange(IMAGES, dtype=np.int64) % len(CLASSES)
    best = np.tile(np.arange(len(CLASSES), dtype=np.int64), (IMAGES, 1))
    best = (best + targets[:, None]) % len(CLASSES)
    missed = random.choice(IMAGES, wrong, replace=False)
    best[missed] = np.roll(best[missed], 1, axis=1)
    margins = random.uniform(0.5, 4, IMAGES).astype(np.float32)
    return packing.pack_predictions(Predictions(np.arange(IMAGES), targets, best, margins, len(CLASSES)), CLASSES)


def _measured(backend: str, precision: str, batch: int, number: int) -> Figures:
    milliseconds, saved = SPEEDS[backend, precision]
    p50_s = milliseconds / 1e3 * (1 if batch == 1 else batch * saved)
    wrong = 24 if precision == "fp32" else 28
    right = 1 - wrong / IMAGES
    figures = change(
        REFERENCE if backend == "pytorch" else FASTER,
        backend=backend,
        precision=precision,
        arithmetic="int8" if precision == "int8" else "float32",
        batch=batch,
        samples=processes(p50_s, 1.08 * p50_s, 1.3 * p50_s, 0.95 * p50_s, seed=100 * number),
        image_p50=estimate(p50_s + 0.0011),
        top1=estimate(right, (right - 0.02, right + 0.02)),
        images=IMAGES,
        predictions=_predictions(7 if precision == "fp32" else 8, wrong),
        roof=_roof(precision, batch),
        group=batch,
    )
    p50 = Figures(figures.result).p50
    assert p50 is not None
    return change(figures, p50=estimate(p50.value, (0.985 * p50.value, 1.015 * p50.value)))


def _roof(precision: str, batch: int) -> RoofInputs:
    peak, weight_bytes = (400e9, 1) if precision == "int8" else (110e9, 4)
    return RoofInputs(41_000_000 * batch, 270_000 * weight_bytes + 3100 * 4 * batch, peak, 2e10)


COMPARED: tuple[Figures, ...] = (
    *(_measured(*of, batch, number) for batch in (1, 8) for number, of in enumerate(SPEEDS)),
    change(SKIPPED, backend="onnxruntime", precision="bf16", reason="it has no bf16 convolution for processors"),
)

DISTURBED = change(
    COMPARED[1],
    disturbances=(Reason("others-busy", "others used 0.93 of 2 processors while it was timed; up to 0.10 is quiet"),),
    warnings=(Reason("latency-drifted", "the latency rose by 6 % from the first third to the last"),),
)


def stalled(shape: ShapeName, count: int = 12_000) -> Figures:
    """A load in which each 500th call takes 200 ms; a server answers what came meanwhile late."""
    random = np.random.default_rng(3)
    services = 0.004 * random.lognormal(sigma=0.05, size=count)
    services[499::500] = 0.2
    responses = services
    if shape == "server":
        ends, free = np.empty(count), 0.0
        intended = np.arange(count) / 120
        for i in range(count):
            free = max(free, intended[i]) + services[i]
            ends[i] = free
        responses = ends - intended
    load = LoadResult(
        shape=shape,
        services_s=tuple(map(float, services)),
        responses_s=tuple(map(float, responses)),
        achieved_per_s=120.0 if shape == "server" else count / float(services.sum()),
        rate_per_s=120.0 if shape == "server" else None,
    )
    return change(EMPTY, load=load, disturbances=(), warnings=())


def clients(count: int) -> Figures:
    """So many threads that call at once; two processors are enough for two of them."""
    per_s = 240.0 * min(count, 2) / 1.1 ** (count > 1)
    samples = tuple(count / per_s * x for x in np.random.default_rng(count).lognormal(sigma=0.1, size=1500).tolist())
    load = LoadResult(shape="clients", services_s=samples, responses_s=samples, achieved_per_s=per_s, clients=count)
    return change(EMPTY, load=load, warnings=())


COLD = change(
    EMPTY,
    p50=estimate(0.31),
    load=LoadResult(
        shape="cold",
        services_s=(0.004, 0.004, 0.004),
        responses_s=(0.31, 0.3, 0.33),
        achieved_per_s=3.2,
        steps_s=(
            ("start Python", 0.04),
            ("import runtimes", 0.12),
            ("open", 0.13),
            ("first call", 0.02),
            ("steady call", 0.004),
        ),
        disk_bytes=1_200_000,
    ),
)

LOADS: tuple[Figures, ...] = (stalled("single-stream"), stalled("server"), *map(clients, (1, 2, 4)), COLD)
EVERYTHING: tuple[Figures, ...] = (COMPARED[0], DISTURBED, *COMPARED[2:], *LOADS)
