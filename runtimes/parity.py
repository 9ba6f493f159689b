"""The parity check: the outputs of an artifact compared with those of the PyTorch network it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtimes.artifacts.artifact import Vectors
from runtimes.artifacts.manifest import OutputParity, Parity
from runtimes.artifacts.rebuild_command import EXPORT_AGAIN
from runtimes.errors import ArtifactError, CheckFailedError
from runtimes.runtime import Runtime
from runtimes.tensors.activation import Activation, top_classes
from runtimes.tensors.spec import Array
from runtimes.tensors.validation import check_rows

IMAGES = 7
"""The number of images in the test vectors of an artifact."""

LOGITS = "logits"
"""The name of the output of a classifier."""

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
    def compare(
        cls, logits: NDArray[np.float32], reference: NDArray[np.float32], activation: Activation | None = None
    ) -> LogitComparison:
        """Compare ``logits`` with ``reference``, both float32 (n, classes).

        Args:
            logits: The logits.
            reference: The reference.
            activation: The step from one output to a probability, which decides its class. ``None`` is the sigmoid.
        """
        difference = np.abs(logits.astype(np.float64) - reference)
        return cls(
            float(np.where(np.isfinite(difference), difference, np.inf).max(initial=0.0)),
            float(np.abs(reference).max(initial=0.0)),
            float((top_classes(logits, activation) == top_classes(reference, activation)).mean())
            if len(logits)
            else 1.0,
        )


@dataclass(frozen=True)
class OutputDifference:
    """The difference of one output from a reference.

    Attributes:
        max_difference: The largest absolute difference of two numbers; infinite if one is not finite.
        relative_difference: Of logits, the largest difference divided by the largest absolute logit of the reference.
            Of another output, the largest distance of two images' values, divided by the root mean square of the
            lengths of the reference's values: a map has so many numbers that a single one says little.
        agreement: The share of images with the same top-1 class, 0 to 1. ``None`` if the output is not the logits.
    """

    max_difference: float
    relative_difference: float
    agreement: float | None

    @classmethod
    def compare(
        cls,
        name: str,
        values: NDArray[np.float32],
        reference: NDArray[np.float32],
        activation: Activation | None = None,
    ) -> OutputDifference:
        """Compare the ``values`` of the output ``name`` with their ``reference``, both float32 (n, ...).

        Args:
            name: The name of the output.
            values: The values.
            reference: The reference.
            activation: As for ``LogitComparison.compare``.
        """
        if name == LOGITS:
            logits = LogitComparison.compare(values, reference, activation)
            return cls(logits.max_difference, logits.relative_difference, logits.agreement)
        expected = reference.astype(np.float64).reshape(len(reference), -1)
        difference = values.reshape(len(values), -1) - expected
        difference = np.where(np.isfinite(difference), np.abs(difference), np.inf)
        distance = float(np.linalg.norm(difference, axis=1).max(initial=0.0))
        length = float(np.sqrt(np.square(expected).sum() / max(1, len(expected))))
        return cls(float(difference.max(initial=0.0)), distance / length if length else distance, None)

    @classmethod
    def worst(cls, results: Sequence[OutputDifference]) -> OutputDifference:
        """Return the largest differences and the lowest agreement of several comparisons of one output."""
        agreements = [result.agreement for result in results if result.agreement is not None]
        return cls(
            max(result.max_difference for result in results),
            max(result.relative_difference for result in results),
            min(agreements) if agreements else None,
        )


def outputs_of(
    runtime: Runtime, inputs: Array, batch: int, names: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return outputs of the runtime for all inputs by name, each as float32 (n, ...).

    Args:
        runtime: The runtime, which has one input.
        inputs: The inputs (n, ...), of the dtype that the artifact takes. At least one is needed.
        batch: The number of inputs in one call. The last batch is filled with inputs from the beginning.
        names: The names of the outputs, or ``None`` for all.

    Raises:
        CheckFailedError: An output has not one row for each input of a call.
    """
    entry, names = runtime.inputs[0].name, names or [spec.name for spec in runtime.outputs]
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for start in range(0, len(inputs), batch):
        values = runtime.infer({entry: inputs[np.arange(start, start + batch) % len(inputs)]})
        check_rows(values, names, batch)
        for name in names:
            rows[name].append(values[name][: len(inputs) - start])
    return {name: np.concatenate(parts).astype(np.float32) for name, parts in rows.items()}


def logits_of(runtime: Runtime, inputs: Array, batch: int) -> NDArray[np.float32]:
    """Return the first output of the runtime for all inputs, as float32 (n, classes).

    Args:
        runtime: As for ``outputs_of``.
        inputs: As for ``outputs_of``.
        batch: As for ``outputs_of``.
    """
    name = runtime.outputs[0].name
    return outputs_of(runtime, inputs, batch, (name,))[name]


def compare(
    runtime: Runtime, vectors: Vectors, largest_batch: int | None = None
) -> tuple[dict[str, OutputDifference], tuple[int, ...]]:
    """Compare the outputs of the runtime with its test vectors at each batch size that it takes.

    Args:
        runtime: The opened artifact.
        vectors: The inputs and the expected outputs.
        largest_batch: The largest batch of one call, at least 1, if there is a limit beside the artifact's own.

    Returns:
        The comparison of each output by name, in the order of the runtime, with the largest difference and the lowest
        agreement over all batch sizes; and the batch sizes.

    Raises:
        ArtifactError: As for ``compare_at``.
    """
    fixed = runtime.inputs[0].fixed_batch
    most = largest_batch or max(BATCHES)
    batches = tuple(batch for batch in BATCHES if batch <= most) if fixed is None else (fixed,)
    runs = [compare_at(runtime, vectors, batch) for batch in batches]
    return {name: OutputDifference.worst([run[name] for run in runs]) for name in runs[0]}, batches


def compare_at(runtime: Runtime, vectors: Vectors, batch: int) -> dict[str, OutputDifference]:
    """Compare the outputs of the runtime with its test vectors at one batch size.

    Returns:
        The comparison of each output by name, in the order of the runtime.

    Raises:
        ArtifactError: The test vectors have other outputs than the runtime.
    """
    names = [spec.name for spec in runtime.outputs]
    if set(names) != set(vectors.outputs):
        raise ArtifactError(
            f"the test vectors have the outputs {', '.join(vectors.outputs)}, but the model has {', '.join(names)}",
            code="vectors-other-outputs",
            path=runtime.artifact.path,
            hint=EXPORT_AGAIN,
        )
    values, manifest = outputs_of(runtime, vectors.inputs, batch), runtime.artifact.manifest
    activation = None if manifest is None else manifest.activation
    return {name: OutputDifference.compare(name, values[name], vectors.outputs[name], activation) for name in names}


def check(
    runtime: Runtime,
    vectors: Vectors,
    tolerance: float,
    reference: str,
    images: str,
    *,
    largest_batch: int | None = None,
) -> Parity:
    """Check the outputs of a runtime against test vectors and return the record for the manifest.

    Args:
        runtime: The opened artifact.
        vectors: The inputs and the expected outputs.
        tolerance: The largest relative difference allowed in each output, as in ``OutputDifference``.
        reference: A description of the reference, for the record and the message.
        images: A description of the images, for the record and the message.
        largest_batch: As for ``compare``.

    Raises:
        CheckFailedError: The largest difference of an output exceeds ``tolerance``, or a number is not finite.
        ArtifactError: As for ``compare``.
    """
    results, batches = compare(runtime, vectors, largest_batch)
    description = runtime.description
    for name, result in results.items():
        if result.relative_difference <= tolerance:
            continue
        top1 = "" if result.agreement is None else f"; top-1 agrees on {result.agreement:.0%} of the images"
        raise CheckFailedError(
            f"parity failed on {description.backend} {description.version}: output {name} differs from {reference} by "
            f"{result.relative_difference:.2e} of its size (limit {tolerance:.0e}) on {len(vectors.inputs)} "
            f"images ({images}) at batch sizes {', '.join(map(str, batches))}{top1}",
            code="parity-failed",
        )
    (first, result), *others = results.items()
    return Parity(
        reference=reference,
        runtime=f"{description.backend} {description.version}",
        images=images,
        batches=batches,
        max_difference=result.max_difference,
        relative_difference=result.relative_difference,
        tolerance=tolerance,
        agreement=result.agreement,
        output=first,
        others=tuple(
            OutputParity(name, each.max_difference, each.relative_difference, tolerance) for name, each in others
        ),
    )
