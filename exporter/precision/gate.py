"""The accuracy gate of a precision: predictions of an artifact compared with PyTorch in fp32 over many images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exporter.format import count
from exporter.models.outputs import LOGITS
from exporter.network import ExportListener, Network
from exporter.precision.calibration_images import Examples
from exporter.precision.output_gate import OutputComparison, describe_output, output_failures
from exporter.precision.table import Bounds
from exporter.proportions import difference_interval, wilson
from runtimes import Runtime
from runtimes.artifacts.manifest import Gate, OutputGate
from runtimes.classifier import softmax
from runtimes.errors import CheckFailedError, Reason
from runtimes.parity import outputs_of

NEAR_TIE = 0.1
"""The limit for a borderline change: fp32 gives the old class less than this probability above the new class."""

BATCH = 20
"""The number of images in a batch of the PyTorch network, and of an artifact without a fixed batch."""

Logits = NDArray[np.float32]
"""Logits, float32 (n, classes)."""


@dataclass(frozen=True)
class GateSamples:
    """The logits of both networks for the same images.

    Attributes:
        words: A description of the images.
        real: Whether the images are real, not noise.
        targets: The correct classes, int64 (n,), or ``None`` without labels.
        reference: The logits of PyTorch in fp32.
        logits: The logits of the artifact.
    """

    words: str
    real: bool
    targets: NDArray[np.int64] | None
    reference: Logits
    logits: Logits


def check(
    runtime: Runtime, network: Network, name: str, bounds: Bounds, examples: Examples, listener: ExportListener
) -> Gate:
    """Run the accuracy gate and return the record of the passed check. Its figures are sent to the listener.

    Args:
        runtime: The opened artifact.
        network: The network in fp32.
        name: The name of the precision.
        bounds: The limits of the precision.
        examples: The images.
        listener: Receives the progress and the figures.

    Raises:
        CheckFailedError: A figure exceeds its limit. The message has the figures.
    """
    listener.step(f"comparing with fp32 on {examples.description}")
    samples, others = _run_gate(runtime, network, examples)
    description = runtime.description
    title = f"{description.backend} {description.version}"
    records = others.records(bounds)
    exceeded = output_failures(records, len(examples))
    if samples is None:
        record = _without_logits(records, examples, title)
    else:
        record = replace(summarise_gate(samples, bounds, title), others=records)
        exceeded = failures(record, bounds, examples.real) + exceeded
    if exceeded:
        raise CheckFailedError(
            f"{name} failed its accuracy gate on {record.runtime}: {'; '.join(map(str, exceeded))}; "
            f"{describe_gate(record)}",
            code="gate-failed",
        )
    listener.notice(f"{name}: {describe_gate(record)}")
    return record


def _run_gate(runtime: Runtime, network: Network, examples: Examples) -> tuple[GateSamples | None, OutputComparison]:
    """Return the logits of both networks, if there are any, and the comparison of their other outputs."""
    from exporter.models.several_outputs import reference_outputs, with_outputs

    batch = runtime.inputs[0].fixed_batch or BATCH
    module, names = with_outputs(network.model, network.outputs), network.outputs
    others = OutputComparison([name for name in names if name != LOGITS], examples.real)
    reference: list[Logits] = []
    logits: list[Logits] = []
    for start in range(0, len(examples), BATCH):
        stop = min(start + BATCH, len(examples))
        expected = reference_outputs(module, names, examples.floats(start, stop))
        given = outputs_of(runtime, examples.feeds(start, stop, network.raw), batch)
        others.add(expected, given)
        if LOGITS in names:
            reference.append(expected[LOGITS])
            logits.append(given[LOGITS])
    if not logits:
        return None, others
    samples = GateSamples(
        examples.description, examples.real, examples.targets, np.concatenate(reference), np.concatenate(logits)
    )
    return samples, others


def _without_logits(records: tuple[OutputGate, ...], examples: Examples, runtime: str) -> Gate:
    """Return the record of a graph without logits: the figures of its first output, and the other outputs."""
    first, *others = records
    same = len(examples) - first.flips - first.near_ties
    return Gate(
        runtime=runtime,
        data=examples.description,
        images=len(examples),
        error=first.error,
        agreement=None if first.compared is None else same / len(examples),
        flips=first.flips,
        near_ties=first.near_ties,
        top1=None,
        reference_top1=None,
        drop=None,
        drop_interval=None,
        bounds=first.bounds,
        output=first.name,
        others=tuple(others),
    )


def summarise_gate(judged: GateSamples, bounds: Bounds, runtime: str) -> Gate:
    """Return the figures of the check, whether they pass or not.

    Args:
        judged: The logits of both networks.
        bounds: The limits, for the record.
        runtime: The backend of the artifact with its version.
    """
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
    """Return the figures that exceed their limits.

    Agreement and accuracy fail only if their entire 95 % interval exceeds the limit. Predictions for noise have no
    meaning, so for noise only the error of the logits counts.

    Args:
        record: The figures.
        bounds: The limits.
        real: Whether the images are real, not noise.
    """
    reasons = []
    if not record.error <= bounds.error:
        reasons.append(
            Reason("logits-error", f"the logit error is {_percent(record.error)} (limit {_percent(bounds.error)})")
        )
    if not real:
        return reasons
    if wilson(record.images - record.flips, record.images)[1] < bounds.agreement:
        reasons.append(
            Reason(
                "predictions-flipped",
                f"{record.flips} of {record.images:,} predictions changed although fp32 was confident "
                f"(limit {_percent(1 - bounds.agreement)})",
            )
        )
    if record.drop is not None and record.drop_interval is not None and record.drop_interval[0] > bounds.drop:
        reasons.append(
            Reason(
                "top1-dropped", f"top-1 accuracy changed by {_change(record.drop)} pp (limit {_change(bounds.drop)} pp)"
            )
        )
    return reasons


def describe_gate(record: Gate) -> str:
    """Return the figures as one line of text."""
    parts = [f"{'logit' if record.output == LOGITS else record.output} error {_percent(record.error)} on {record.data}"]
    if record.agreement is not None and (record.flips or record.near_ties or record.top1 is not None):
        changed = f"{count(record.flips + record.near_ties, 'changed prediction')}"
        kinds = f"{record.flips} confident, {record.near_ties} borderline"
        parts.append(f"agreement with fp32 {_percent(record.agreement)} ({changed}: {kinds})")
    if record.top1 is not None and record.drop is not None and record.drop_interval is not None:
        high, low = map(_change, record.drop_interval)
        parts.append(
            f"top-1 accuracy {_percent(record.top1)} (change {_change(record.drop)} pp from fp32, "
            f"95 % interval {low} to {high})"
        )
    return "; ".join([", ".join(parts), *(describe_output(other, record.images) for other in record.others)])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _change(drop: float) -> str:
    """Return a drop of accuracy as a change in percentage points."""
    return f"{0.0 - 100 * drop:+.2f}"
