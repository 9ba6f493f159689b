"""What a precision costs in answers, and whether that is within its bounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.network import ExportListener, Network, reference_logits
from exporter.precision.calibration_images import Examples
from exporter.precision.table import Bounds
from exporter.proportions import difference_interval, wilson
from runtimes import Runtime
from runtimes.artifacts.manifest import Gate
from runtimes.classifier import softmax
from runtimes.errors import CheckFailedError, Reason
from runtimes.parity import logits_of

NEAR_TIE = 0.1
"""Two classes whose probabilities in fp32 are nearer than this are a tie: either is a fair answer."""

BATCH = 20

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class GateSamples:
    """The words and labels of images, and both networks' logits (n, classes) for them."""

    words: str
    real: bool
    targets: NDArray[np.int64] | None
    reference: Logits
    logits: Logits


def check(
    runtime: Runtime, network: Network, name: str, bounds: Bounds, examples: Examples, listener: ExportListener
) -> Gate:
    """The record of a passed gate. What the user should know of it is noticed.

    Raises:
        CheckFailedError: it is out of its bounds; the message has the figures.
    """
    listener.step(f"comparing with fp32 on {examples.description}")
    judged = _run_gate(runtime, network, examples)
    about = runtime.description
    record = summarise_gate(judged, bounds, f"{about.backend} {about.version}")
    broken = failures(record, bounds, examples.real)
    if broken:
        raise CheckFailedError(
            f"{name} failed its gate on {record.runtime}: {'; '.join(map(str, broken))}; {describe_gate(record)}",
            code="gate-failed",
        )
    listener.notice(f"{name}: {describe_gate(record)}")
    return record


def _run_gate(runtime: Runtime, network: Network, examples: Examples) -> GateSamples:
    fixed = runtime.inputs[0].shape[0]
    batch = fixed if isinstance(fixed, int) else BATCH
    reference, logits = [], []
    for start in range(0, len(examples), BATCH):
        stop = min(start + BATCH, len(examples))
        reference.append(reference_logits(network.model, examples.floats(start, stop)))
        logits.append(logits_of(runtime, examples.feeds(start, stop, network.raw), batch))
    return GateSamples(
        examples.description, examples.real, examples.targets, np.concatenate(reference), np.concatenate(logits)
    )


def summarise_gate(judged: GateSamples, bounds: Bounds, runtime: str) -> Gate:
    """The gate's figures, whether they pass or not."""
    reference, logits = judged.reference.astype(np.float64), judged.logits.astype(np.float64)
    expected, given = reference.argmax(1), logits.argmax(1)
    changed = np.flatnonzero(expected != given)
    probabilities = softmax(reference[changed])
    rows = np.arange(len(changed))
    ties = int((probabilities[rows, expected[changed]] - probabilities[rows, given[changed]] < NEAR_TIE).sum())
    size = float(np.sqrt((reference**2).mean()))
    error = float(np.sqrt(((logits - reference) ** 2).mean()))
    top1 = reference_top1 = drop = interval = None
    if judged.targets is not None:
        right, reference_right = given == judged.targets, expected == judged.targets
        top1, reference_top1 = float(right.mean()), float(reference_right.mean())
        drop, interval = difference_interval(reference_right, right)
    return Gate(
        runtime=runtime,
        data=judged.words,
        images=len(logits),
        error=(error / size if size else error) if np.isfinite(error) else float(np.finfo(np.float32).max),
        agreement=1 - len(changed) / len(logits),
        flips=len(changed) - ties,
        near_ties=ties,
        top1=top1,
        reference_top1=reference_top1,
        drop=drop,
        drop_interval=interval,
        bounds=asdict(bounds),
    )


def failures(record: Gate, bounds: Bounds, real: bool) -> list[Reason]:
    """What is out of bounds. Predictions for noise mean nothing: there the logits' error alone counts."""
    found = []
    if not record.error <= bounds.error:
        found.append(Reason("logits-error", f"the logits' error is {record.error:.2%}, {bounds.error:.1%} is allowed"))
    if not real:
        return found
    if wilson(record.images - record.flips, record.images)[1] < bounds.agreement:
        found.append(
            Reason(
                "predictions-flipped",
                f"{record.flips} of {record.images:,} images flipped, {1 - bounds.agreement:.1%} is allowed",
            )
        )
    if record.drop is not None and record.drop_interval is not None and record.drop_interval[0] > bounds.drop:
        found.append(
            Reason("top1-dropped", f"top-1 dropped by {_points(record.drop)} points, {_points(bounds.drop)} is allowed")
        )
    return found


def describe_gate(record: Gate) -> str:
    """The figures in one line."""
    parts = [f"logits' error {record.error:.2%} on {record.data}"]
    if record.flips or record.near_ties or record.top1 is not None:
        parts.append(f"top-1 the same on {record.agreement:.2%} ({record.flips} flips, {record.near_ties} near-ties)")
    if record.top1 is not None and record.drop is not None and record.drop_interval is not None:
        low, high = map(_points, record.drop_interval)
        parts.append(
            f"top-1 {record.top1:.2%} against {record.reference_top1:.2%} in fp32, a drop of {_points(record.drop)} "
            f"points [{low}, {high}]"
        )
    return ", ".join(parts)


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
