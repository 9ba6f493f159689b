"""The accuracy gate of a precision: predictions of an artifact compared with PyTorch in fp32 over many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporter.export_request import ExportListener
from exporter.format import count
from exporter.models.outputs import LOGITS
from exporter.network import Network, reference_logits
from exporter.precision import calibration_images
from exporter.precision.acceptance import DropLimit, describe_resolution, images_to_resolve, resolution
from exporter.precision.calibration_images import Examples
from exporter.precision.output_gate import COMPARED, OutputComparison, describe_output, output_failures
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import Bounds
from exporter.proportions import difference_interval, wilson
from runtimes import Runtime
from runtimes.artifacts.manifest import Gate, OutputGate
from runtimes.errors import CheckFailedError, Reason
from runtimes.parity import outputs_of
from runtimes.tensors.activation import Activation, class_probabilities, top_classes

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
        activation: The step from logits to probabilities, as for ``class_probabilities``.
    """

    words: str
    real: bool
    targets: NDArray[np.int64] | None
    reference: Logits
    logits: Logits
    activation: Activation | None = None


class AccuracyGate:
    """The accuracy gate of an export. The images and their fp32 logits are computed once, for all its candidates.

    Args:
        network: The network in fp32.
        precision_spec: The precision.
        bounds: The limits of the precision.
        listener: Receives the progress and the figures.

    Attributes:
        records: The records of the last candidate, whether it passed or not. Empty if it was not measured.
    """

    def __init__(
        self, network: Network, precision_spec: PrecisionSpec, bounds: Bounds, listener: ExportListener
    ) -> None:
        self.records: tuple[Gate, ...] = ()
        self._network = network
        self._spec = precision_spec
        self._bounds = bounds
        self._listener = listener

    def begin(self) -> None:
        """Begin the next candidate, which has no records yet."""
        self.records = ()

    @cached_property
    def examples(self) -> Examples:
        """The images.

        Raises:
            RexportError: The images cannot be read.
        """
        spec = self._spec
        calibration = spec.calibration if spec.row.calibrated else None
        return calibration_images.for_gate(self._network, calibration, spec.calibration_count, spec.gate_images)

    @cached_property
    def _reference(self) -> Logits:
        examples, model = self.examples, self._network.model
        starts = range(0, len(examples), BATCH)
        return np.concatenate(
            [reference_logits(model, examples.floats(start, min(start + BATCH, len(examples)))) for start in starts]
        )

    def measure(self, runtime: Runtime) -> Gate:
        """Return the figures of an opened artifact, whether they pass or not.

        Args:
            runtime: The artifact.

        Raises:
            RexportError: The images cannot be read.
        """
        description, examples, names = runtime.description, self.examples, self._network.outputs
        self._listener.step(f"comparing {description.backend} with fp32 on {examples.description}")
        batch = runtime.inputs[0].fixed_batch or BATCH
        others = OutputComparison([name for name in names if name != LOGITS], examples.real)
        logits: list[Logits] = []
        for start in range(0, len(examples), BATCH):
            stop = min(start + BATCH, len(examples))
            given = outputs_of(runtime, examples.feeds(start, stop, self._network.raw), batch)
            if len(given) > 1 or LOGITS not in given:
                others.add(self._reference_outputs(start, stop), given)
            if LOGITS in given:
                logits.append(given[LOGITS])
        records, title = others.records(self._bounds), f"{description.backend} {description.version}"
        if not logits:
            return _without_logits(records, examples, title)
        samples = GateSamples(
            examples.description,
            examples.real,
            examples.targets,
            self._reference,
            np.concatenate(logits),
            self._network.activation,
        )
        return replace(summarise_gate(samples, self._bounds, title, self._spec.max_drop is not None), others=records)

    def _reference_outputs(self, start: int, stop: int) -> dict[str, Logits]:
        """Return all outputs of PyTorch. They are not kept, because the maps of all images may not fit in memory."""
        from exporter.models.several_outputs import reference_outputs, with_outputs

        names = self._network.outputs
        return reference_outputs(with_outputs(self._network.model, names), names, self.examples.floats(start, stop))

    def failures(self, record: Gate) -> list[Reason]:
        """Return the figures of a record that exceed their limits."""
        others = output_failures(record.others, record.images)
        if record.output == LOGITS:
            return failures(record, self._bounds, self.examples.real) + others
        return output_failures([_first_output(record)], record.images) + others

    def check(self, records: Sequence[Gate]) -> None:
        """Keep the records of a candidate, and send their figures to the listener if all pass.

        Args:
            records: The figures on each backend, at least one.

        Raises:
            CheckFailedError: A figure exceeds its limit. The message has the figures.
        """
        self.records = tuple(records)
        name = self._spec.precision
        for record in records:
            exceeded = self.failures(record)
            if exceeded:
                raise CheckFailedError(
                    f"{name} failed its accuracy gate on {record.runtime}: {'; '.join(map(str, exceeded))}; "
                    f"{describe_gate(record)}",
                    code="gate-failed",
                )
        first, *others = records
        self._listener.notice(f"{name}: {describe_gate(first)}")
        for record in others:
            self._listener.notice(f"{name} on {record.runtime}: {describe_gate(record)}")
        unresolved = announce_resolution(records)
        if unresolved is not None:
            self._listener.notice(unresolved)


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


def _first_output(record: Gate) -> OutputGate:
    """Return the figures of the first output of a graph without logits."""
    compared = None if record.agreement is None else COMPARED[record.output]
    return OutputGate(record.output, record.error, compared, record.flips, record.near_ties, record.bounds)


def gate_of(network: Network, precision_spec: PrecisionSpec, listener: ExportListener) -> AccuracyGate | None:
    """Return the accuracy gate of an export, or ``None`` if the precision has none.

    Args:
        network: The network in fp32.
        precision_spec: The precision.
        listener: Receives the progress and the figures.
    """
    bounds = precision_spec.bounds
    return None if bounds is None else AccuracyGate(network, precision_spec, bounds, listener)


def announce_resolution(records: Sequence[Gate]) -> Reason | None:
    """Return the warning that the images are too few for the limit that was asked for, or ``None`` if they are not.

    Args:
        records: The figures on each backend.
    """
    asked = [record for record in records if record.asked and record.drop_interval is not None]
    if not asked:
        return None
    widest = max(asked, key=lambda record: resolution(record.drop_interval or (0.0, 0.0)))
    interval, limit = widest.drop_interval or (0.0, 0.0), widest.bounds["drop"]
    if resolution(interval) <= limit:
        return None
    needed = images_to_resolve(limit, interval, widest.images)
    more = "no number of images resolves it" if needed is None else f"about {needed:,} images (--gate-images) would"
    return Reason(
        "limit-not-resolved",
        f"{describe_resolution(widest.images, interval)}, which does not prove a loss of at most {100 * limit:g} pp: "
        f"only the measured loss is within the limit; {more}",
    )


def summarise_gate(judged: GateSamples, bounds: Bounds, runtime: str, asked: bool = False) -> Gate:
    """Return the figures of the check, whether they pass or not.

    Args:
        judged: The logits of both networks.
        bounds: The limits, for the record.
        runtime: The backend of the artifact with its version.
        asked: Whether the user asked for the limit of the drop.
    """
    reference, logits = judged.reference.astype(np.float64), judged.logits.astype(np.float64)
    expected, given = (top_classes(outputs, judged.activation) for outputs in (reference, logits))
    changed = np.flatnonzero(expected != given)
    probabilities = class_probabilities(reference[changed], judged.activation)
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
        asked=asked,
    )


def failures(record: Gate, bounds: Bounds, real: bool) -> list[Reason]:
    """Return the figures that exceed their limits.

    Agreement fails only if its entire 95 % interval exceeds the limit, and accuracy by the rule of
    ``exporter.precision.acceptance``. Predictions for noise have no meaning, so for noise only the error of the logits
    counts.

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
    limit = DropLimit(bounds.drop, record.asked)
    if record.drop is not None and not limit.accepts(record.drop, record.drop_interval):
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
            f"95 % interval {low} to {high}; {describe_resolution(record.images, record.drop_interval)})"
        )
    return "; ".join([", ".join(parts), *(describe_output(other, record.images) for other in record.others)])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _change(drop: float) -> str:
    """Return a drop of accuracy as a change in percentage points."""
    return f"{0.0 - 100 * drop:+.2f}"
