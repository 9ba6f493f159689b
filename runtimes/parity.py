"""The parity check: the logits of an artifact compared with those of the PyTorch network it was exported from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtimes.artifacts.artifact import Vectors
from runtimes.artifacts.manifest import Parity
from runtimes.errors import CheckFailedError
from runtimes.runtime import Runtime
from runtimes.tensors.spec import Array

IMAGES = 7
"""The number of images in the test vectors of an artifact."""

BATCHES = (1, 2, 3, 7)
"""The batch sizes of the check. A network that mixes images or has a frozen batch fails at some of them."""


@dataclass(frozen=True)
class LogitComparison:
    """The differences between the logits of two runs over the same images.

    Attributes:
        max_difference: The largest absolute difference of two logits; infinite if a difference is not finite.
        max_logit: The largest absolute logit of the reference.
        agreement: The share of images with the same top-1 class, 0 to 1; 1 for no images.
    """

    max_difference: float
    max_logit: float
    agreement: float

    @property
    def relative_difference(self) -> float:
        """The largest difference divided by the largest absolute logit of the reference."""
        return self.max_difference / self.max_logit if self.max_logit else self.max_difference

    @classmethod
    def compare(cls, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> LogitComparison:
        """Compare ``logits`` with ``reference``, both float32 (n, classes)."""
        difference = np.abs(logits.astype(np.float64) - reference)
        return cls(
            float(np.where(np.isfinite(difference), difference, np.inf).max(initial=0.0)),
            float(np.abs(reference).max(initial=0.0)),
            float((logits.argmax(1) == reference.argmax(1)).mean()) if len(logits) else 1.0,
        )


def logits_of(runtime: Runtime, inputs: Array, batch: int) -> NDArray[np.float32]:
    """Return the first output of the runtime for all inputs, as float32 (n, classes).

    Args:
        runtime: The runtime, which has one input.
        inputs: The inputs (n, ...), of the dtype that the artifact takes. At least one is needed.
        batch: The number of inputs in one call. The last batch is filled with inputs from the beginning.
    """
    name, output = runtime.inputs[0].name, runtime.outputs[0].name
    rows = []
    for start in range(0, len(inputs), batch):
        indices = np.arange(start, start + batch) % len(inputs)
        rows.append(runtime.infer({name: inputs[indices]})[output][: len(inputs) - start])
    return np.concatenate(rows).astype(np.float32)


def compare(runtime: Runtime, vectors: Vectors) -> tuple[LogitComparison, tuple[int, ...]]:
    """Compare the logits of the runtime with its test vectors at each batch size that it takes.

    Returns:
        The comparison, with the largest difference and the lowest agreement over all batch sizes, and the batch sizes.
    """
    fixed = runtime.inputs[0].fixed_batch
    batches = BATCHES if fixed is None else (fixed,)
    results = [LogitComparison.compare(logits_of(runtime, vectors.inputs, batch), vectors.logits) for batch in batches]
    worst = max(results, key=lambda result: result.max_difference)
    return LogitComparison(worst.max_difference, worst.max_logit, min(result.agreement for result in results)), batches


def check(runtime: Runtime, vectors: Vectors, tolerance: float, reference: str, images: str) -> Parity:
    """Check the logits of a runtime against test vectors and return the record for the manifest.

    Args:
        runtime: The opened artifact.
        vectors: The inputs and the expected logits.
        tolerance: The largest difference allowed, as a share of the largest absolute logit of the reference.
        reference: A description of the reference, for the record and the message.
        images: A description of the images, for the record and the message.

    Raises:
        CheckFailedError: The largest difference exceeds ``tolerance``, or a logit is not finite.
    """
    result, batches = compare(runtime, vectors)
    description = runtime.description
    if not result.relative_difference <= tolerance:
        raise CheckFailedError(
            f"parity failed on {description.backend} {description.version}: the logits differ from {reference} by "
            f"{result.relative_difference:.2e} of the largest logit (limit {tolerance:.0e}); top-1 agrees on "
            f"{result.agreement:.0%} of {len(vectors.inputs)} images ({images}) at batch sizes "
            f"{', '.join(map(str, batches))}",
            code="parity-failed",
        )
    return Parity(
        reference=reference,
        runtime=f"{description.backend} {description.version}",
        images=images,
        batches=batches,
        max_difference=result.max_difference,
        relative_difference=result.relative_difference,
        tolerance=tolerance,
        agreement=result.agreement,
    )
