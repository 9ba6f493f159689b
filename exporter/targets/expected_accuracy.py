"""The comparison of an artifact's top-1 accuracy with the one that the user expects, and the causes of a difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.data.class_matching import targets_for
from exporter.data.dataset import Dataset
from exporter.data.opening import open_dataset
from exporter.export_request import ExpectedAccuracy, ExportListener
from exporter.network import Network, reference_logits
from exporter.preprocessing.alternatives import alternatives
from runtimes import Runtime
from runtimes.artifacts.manifest import Accuracy
from runtimes.errors import CheckFailedError
from runtimes.images.preprocessing import Preprocessing
from runtimes.parity import logits_of

BATCH = 20
"""The number of images in a batch, unless the artifact has a fixed batch."""

TRIED_IMAGES = 1_000
"""The largest number of images on which other preprocessings are tried."""

SHOWN = 3
"""The number of other preprocessings in a message, at least: those nearest to the expected accuracy."""

Classes = NDArray[np.int64]
"""Classes, int64 (n,)."""


def check(runtime: Runtime, network: Network, expected: ExpectedAccuracy, listener: ExportListener) -> Accuracy:
    """Compare the top-1 accuracy of an artifact on the data of the network with the expected one.

    If it differs, other preprocessings, channel orders and orders of labels are tried with the fp32 network in PyTorch.

    Args:
        runtime: The opened artifact.
        network: The network, with preprocessing and data.
        expected: The expected accuracy.
        listener: Receives the progress and the result.

    Returns:
        The record of the passed check.

    Raises:
        CheckFailedError: The accuracy differs by more than the tolerance. The message has what alternatives give.
        RexportError: An image cannot be read, or the classes do not fit.
    """
    assert network.data is not None
    assert network.preprocessing is not None
    dataset = open_dataset(network.data)
    targets = targets_for(dataset, network.labels, network.classes)
    listener.step(f"measuring top-1 accuracy on {len(dataset):,} images of {dataset.name}")
    correct = _predict_with_artifact(runtime, network, network.preprocessing, dataset) == targets
    top1 = float(correct.mean())
    description = runtime.description
    record = Accuracy(
        runtime=f"{description.backend} {description.version}",
        data=dataset.name,
        images=len(dataset),
        top1=top1,
        expected=expected.top1,
        tolerance=expected.tolerance,
    )
    if abs(top1 - expected.top1) > expected.tolerance + 1e-9:
        raise _explain(record, network, network.preprocessing, listener)
    listener.notice(
        f"top-1 accuracy {_percent(top1)} on {len(dataset):,} images of {dataset.name}, as expected "
        f"({_percent(expected.top1)}, tolerance {100 * expected.tolerance:g} pp)"
    )
    return record


def _predict_with_artifact(
    runtime: Runtime, network: Network, preprocessing: Preprocessing, dataset: Dataset
) -> Classes:
    batch = runtime.inputs[0].fixed_batch or BATCH
    batches = dataset.pixels(preprocessing, BATCH) if network.raw else dataset.batches(preprocessing, BATCH)
    return np.concatenate([logits_of(runtime, images, batch).argmax(1) for _, images in batches])


@dataclass(frozen=True)
class _Trial:
    """The accuracy with another preprocessing or order of labels in PyTorch, and the options that choose it.

    A message always has the trials that are ``shown`` or give the expected accuracy, besides the nearest ones.
    """

    words: str
    options: str
    top1: float
    shown: bool

    def __str__(self) -> str:
        return f"with {self.words} {_percent(self.top1)}"


def _explain(
    record: Accuracy, network: Network, preprocessing: Preprocessing, listener: ExportListener
) -> CheckFailedError:
    """Return the error with what the alternatives give on the same images, at most ``TRIED_IMAGES`` of them."""
    assert network.data is not None
    dataset = open_dataset(network.data, min(record.images, TRIED_IMAGES))
    targets = targets_for(dataset, network.labels, network.classes)

    def predict(tried: Preprocessing) -> Classes:
        batches = dataset.batches(tried, BATCH)
        return np.concatenate([reference_logits(network.model, images).argmax(1) for _, images in batches])

    listener.step("trying other preprocessings in PyTorch")
    same = predict(preprocessing)
    ordered = _best_order(same, targets, network.classes)
    trials = [_Trial("another order of the labels", "--labels FILE", ordered, True)]
    for other in alternatives(preprocessing):
        listener.step(f"trying {other.words} in PyTorch")
        top1 = float((predict(other.preprocessing) == targets).mean())
        trials.append(_Trial(other.words, other.options, top1, other.words.startswith("channel order")))
    trials.sort(key=lambda trial: abs(trial.top1 - record.expected))
    found = [trial for trial in trials if abs(trial.top1 - record.expected) <= record.tolerance]
    told = [trial for number, trial in enumerate(trials) if number < max(SHOWN, len(found)) or trial.shown]
    images = "the same images" if len(dataset) == record.images else f"{len(dataset):,} of the images"
    return CheckFailedError(
        f"top-1 accuracy is {_percent(record.top1)} on {record.images:,} images of {record.data}, but "
        f"{_percent(record.expected)} was expected (tolerance {100 * record.tolerance:g} pp); preprocessing, channel "
        f"order or label order may be wrong: PyTorch in fp32 on {images} has "
        f"{_percent(float((same == targets).mean()))}, {', '.join(map(str, told))}",
        code="top1-differs",
        hint=f"{' or '.join(trial.options for trial in found)} gives the expected accuracy" if found else None,
    )


def _best_order(predicted: Classes, targets: Classes, classes: int) -> float:
    """Return the top-1 accuracy with the outputs in the order that fits the predictions best.

    Pairs of output and class are matched greedily, those with the most images first.
    """
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (targets, predicted), 1)
    correct = 0
    for _ in range(classes):
        target, output = np.unravel_index(counts.argmax(), counts.shape)
        correct += int(counts[target, output])
        counts[target], counts[:, output] = -1, -1
    return correct / len(targets)


def describe_accuracy(record: Accuracy) -> str:
    """Return the record as one line of text."""
    return (
        f"top-1 {_percent(record.top1)} on {record.images:,} images of {record.data} with {record.runtime}, expected "
        f"{_percent(record.expected)} (tolerance {100 * record.tolerance:g} pp)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
