"""The comparison that every artifact must pass: its logits against those of the PyTorch network that it came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtimes.artifacts.artifact import Vectors
from runtimes.artifacts.manifest import Parity
from runtimes.errors import CheckFailedError
from runtimes.protocol import Array
from runtimes.runtime import Runtime

IMAGES = 7
BATCHES = (1, 2, 3, 7)
"""A network whose batch was frozen, or that mixes images, answers rightly at one of these and not at the others."""


@dataclass(frozen=True)
class LogitComparison:
    """Logits of two runs over the same images. ``agreement`` is the share of images with the same top-1."""

    max_difference: float
    max_logit: float
    agreement: float

    @property
    def relative_difference(self) -> float:
        """The largest difference over the largest absolute logit of the reference."""
        return self.max_difference / self.max_logit if self.max_logit else self.max_difference

    @classmethod
    def compare(cls, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> LogitComparison:
        """Compares (n, classes) with (n, classes); what is not finite differs by infinity."""
        difference = np.abs(logits.astype(np.float64) - reference)
        return cls(
            float(np.where(np.isfinite(difference), difference, np.inf).max(initial=0.0)),
            float(np.abs(reference).max(initial=0.0)),
            float((logits.argmax(1) == reference.argmax(1)).mean()) if len(logits) else 1.0,
        )


def logits_of(runtime: Runtime, inputs: Array, batch: int) -> NDArray[np.float32]:
    """The first output for ``inputs`` (n, ...) as the artifact takes them, ``batch`` at a time.

    The last batch is filled by repeating.
    """
    name, output = runtime.inputs[0].name, runtime.outputs[0].name
    rows = []
    for start in range(0, len(inputs), batch):
        chosen = np.arange(start, start + batch) % len(inputs)
        rows.append(runtime.infer({name: inputs[chosen]})[output][: len(inputs) - start])
    return np.concatenate(rows).astype(np.float32)


def compare(runtime: Runtime, vectors: Vectors) -> tuple[LogitComparison, tuple[int, ...]]:
    """The worst comparison over the batches that the runtime's input takes, and these batches."""
    first = runtime.inputs[0].shape[0]
    batches = (first,) if isinstance(first, int) else BATCHES
    results = [LogitComparison.compare(logits_of(runtime, vectors.inputs, batch), vectors.logits) for batch in batches]
    worst = max(results, key=lambda result: result.max_difference)
    return LogitComparison(worst.max_difference, worst.max_logit, min(result.agreement for result in results)), batches


def check(runtime: Runtime, vectors: Vectors, tolerance: float, reference: str, images: str) -> Parity:
    """The record of a passed comparison. ``reference`` and ``images`` are words for it.

    Raises:
        CheckFailedError: a logit differs by more than ``tolerance`` of the largest, or is not finite.
    """
    result, batches = compare(runtime, vectors)
    about = runtime.description
    if not result.relative_difference <= tolerance:
        raise CheckFailedError(
            f"parity failed on {about.backend} {about.version}: the logits differ from {reference} by "
            f"{result.relative_difference:.2e} of the largest logit, {tolerance:.0e} is allowed; the same top-1 on "
            f"{result.agreement:.0%} of {len(vectors.inputs)} images ({images}) at batches "
            f"{', '.join(map(str, batches))}",
            code="parity-failed",
        )
    return Parity(
        reference=reference,
        runtime=f"{about.backend} {about.version}",
        images=images,
        batches=batches,
        max_difference=result.max_difference,
        relative_difference=result.relative_difference,
        tolerance=tolerance,
        agreement=result.agreement,
    )
