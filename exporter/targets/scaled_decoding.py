"""The check of scaled decoding: whether it changes the predictions of an artifact on the user's images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from exporter.data.opening import open_dataset
from exporter.export_request import ExportListener
from exporter.network import Network
from runtimes import Runtime
from runtimes.artifacts.manifest import DecodingCheck
from runtimes.errors import CheckFailedError, Reason, UsageError
from runtimes.images.preprocessing import Pixels, Preprocessing
from runtimes.network_io import LOGITS, NetworkInput
from runtimes.parity import logits_of
from runtimes.tensors.activation import class_probabilities

BATCH = 20
"""The number of images in a batch, unless the artifact has a fixed batch."""

MOST_IMAGES = 1_000
"""The largest number of images that are compared."""

LEAST_AGREEMENT = 0.99
"""The least share of images whose top-1 class may not change."""


def check(runtime: Runtime, network: Network, listener: ExportListener) -> DecodingCheck | None:
    """Compare the predictions of an artifact after scaled and after full decoding of the images of the network.

    Args:
        runtime: The opened artifact.
        network: The network, with preprocessing and data.
        listener: Receives the progress and the result.

    Returns:
        The record of the passed check, or ``None`` if the decoding is not scaled.

    Raises:
        UsageError: The network has no logits.
        CheckFailedError: Too many predictions change. The message has their number.
        RexportError: An image cannot be read.
    """
    view = network.preprocessing
    if view is None or not view.scaled_decoding:
        return None
    if not any(spec.name == LOGITS for spec in runtime.outputs):
        raise UsageError(
            f"scaled decoding needs predictions to compare, and the network has no output {LOGITS}",
            code="scaled-decoding-without-logits",
            hint=f"--output {LOGITS} exports it, --full-decoding changes nothing",
        )
    data = network.data
    assert data is not None
    dataset = open_dataset(data, MOST_IMAGES)
    listener.step(f"comparing scaled with full decoding on {len(dataset):,} images of {dataset.name}")
    network_input = NetworkInput.find(runtime, view)
    batch = runtime.inputs[0].fixed_batch or BATCH

    def probabilities(pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        arrays = network_input.from_pixels(pixels, view, fill=False)
        return class_probabilities(logits_of(runtime, arrays, batch), network.activation)

    def pairs() -> Iterator[tuple[Pixels, Pixels]]:
        full = _read(data, replace(view, scaled_decoding=False))
        yield from zip(_read(data, view), full, strict=True)

    images = scaled = same = 0
    largest = 0.0
    for reduced, whole in pairs():
        differ = (reduced != whole).reshape(len(whole), -1).any(axis=1)
        images, scaled = images + len(whole), scaled + int(differ.sum())
        if not differ.any():
            same += len(whole)
            continue
        found, expected = probabilities(reduced), probabilities(whole)
        same += int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
        largest = max(largest, float(np.abs(found - expected).max()))
    description = runtime.description
    record = DecodingCheck(
        runtime=f"{description.backend} {description.version}",
        data=dataset.name,
        images=images,
        scaled=scaled,
        agreement=same / images,
        max_difference=largest,
        least=LEAST_AGREEMENT,
    )
    return _judge(record, listener)


def _read(data: str, view: Preprocessing) -> Iterator[Pixels]:
    """Yield batches of prepared images."""
    return (pixels for _, pixels in open_dataset(data, MOST_IMAGES).pixels(view, BATCH))


def _judge(record: DecodingCheck, listener: ExportListener) -> DecodingCheck:
    """Return a record that passes.

    Raises:
        CheckFailedError: Too many predictions change.
    """
    words = (
        f"scaled decoding changes {record.images - round(record.agreement * record.images):,} of {record.images:,} "
        f"predictions on {record.data}, and a probability by at most {record.max_difference:.2g}"
    )
    if record.agreement < record.least:
        raise CheckFailedError(
            f"{words}; at least {record.least:.0%} must stay the same",
            code="scaled-decoding-differs",
            hint="--full-decoding decodes all images in full",
        )
    if not record.scaled:
        listener.notice(
            Reason(
                "scaled-decoding-untested",
                f"scaled decoding changes none of the {record.images:,} images of {record.data}; its effect on larger "
                "images is unknown",
            )
        )
        return record
    listener.notice(f"{words}; {record.scaled:,} images were decoded at a fraction of their size")
    return record
