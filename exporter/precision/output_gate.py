"""The check of a precision on the outputs besides the logits: features, maps of stages and class maps.

Each output is held to the error of its numbers. For real images, features are also held to the nearest neighbour of
each image among the images of the check, as in a search for similar images, and class maps to their peak: the place of
the largest value in the map of the best class. As for predictions, only confident changes count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exporter.models.outputs import CAM, FEATURES
from exporter.precision.table import Bounds
from exporter.proportions import wilson
from runtimes.artifacts.manifest import OutputGate
from runtimes.errors import Reason

NEIGHBOUR, PEAK = "nearest neighbour", "peak"
"""The names of the comparisons besides the numbers."""

COMPARED = {FEATURES: NEIGHBOUR, CAM: PEAK}
"""The comparison of each output besides its numbers. The maps of stages have only numbers."""

NEAR_NEIGHBOUR = 0.02
"""The limit for a borderline change: in fp32, the cosine similarity of the old neighbour exceeds that of the new one by
less."""

NEAR_PEAK = 0.1
"""The limit for a borderline change: in fp32, the value at the old peak exceeds that at the new one by less than this
share of it."""

Values = NDArray[np.float32]
"""One output for several images, float32 (n, ...)."""


@dataclass
class _Sums:
    """The sums of one output over the images so far."""

    difference: float = 0.0
    reference: float = 0.0
    flips: int = 0
    near_ties: int = 0
    expected: list[Values] = field(default_factory=list)
    given: list[Values] = field(default_factory=list)

    @property
    def error(self) -> float:
        """The root mean square of the differences, divided by that of the reference."""
        error = np.sqrt(self.difference / self.reference) if self.reference else np.sqrt(self.difference)
        return float(error) if np.isfinite(error) else float(np.finfo(np.float32).max)


class OutputComparison:
    """The comparison of outputs batch by batch, so that the maps of all images need not be in memory.

    Args:
        names: The names of the outputs. The logits are not among them.
        real: Whether the images are real, not noise.
    """

    def __init__(self, names: Sequence[str], real: bool) -> None:
        self._sums = {name: _Sums() for name in names}
        self._real = real

    def add(self, expected: Mapping[str, Values], given: Mapping[str, Values]) -> None:
        """Add a batch: the ``expected`` outputs of PyTorch in fp32, and those ``given`` by the artifact."""
        for name, sums in self._sums.items():
            reference = expected[name].astype(np.float64)
            sums.difference += float(np.square(given[name] - reference).sum())
            sums.reference += float(np.square(reference).sum())
            if self._real and name == CAM:
                flips, ties = compare_peaks(expected[name], given[name])
                sums.flips, sums.near_ties = sums.flips + flips, sums.near_ties + ties
            elif self._real and name == FEATURES:
                sums.expected.append(expected[name])
                sums.given.append(given[name])

    def records(self, bounds: Bounds) -> tuple[OutputGate, ...]:
        """Return the figures of each output, whether they pass or not.

        Args:
            bounds: The limits of the precision.
        """
        result = []
        for name, sums in self._sums.items():
            compared = COMPARED.get(name) if self._real else None
            flips, ties = sums.flips, sums.near_ties
            if compared == NEIGHBOUR:
                flips, ties = compare_neighbours(np.concatenate(sums.expected), np.concatenate(sums.given))
            limits = {"error": bounds.error} | ({} if compared is None else {"agreement": bounds.agreement})
            result.append(OutputGate(name, sums.error, compared, flips, ties, limits))
        return tuple(result)


def compare_peaks(expected: Values, given: Values) -> tuple[int, int]:
    """Return the numbers of confident and borderline changes of the peak in the map of the best class.

    Args:
        expected: The class maps of fp32, float32 (n, classes, h, w). Their means determine the best class.
        given: The class maps of the artifact, of the same shape. One map is that of the second of two classes, and
            the first has the negative one.
    """
    if expected.shape[1] == 1:
        expected, given = (np.concatenate([-maps, maps], axis=1) for maps in (expected, given))
    rows = np.arange(len(expected))
    best = expected.mean((2, 3)).argmax(1)
    reference = expected[rows, best].reshape(len(rows), -1).astype(np.float64)  # (n, h * w)
    old, new = reference.argmax(1), given[rows, best].reshape(len(rows), -1).argmax(1)
    near = reference[rows, old] - reference[rows, new] < NEAR_PEAK * np.abs(reference[rows, old])
    return int(((old != new) & ~near).sum()), int(((old != new) & near).sum())


def compare_neighbours(expected: Values, given: Values) -> tuple[int, int]:
    """Return the numbers of images with a confident and with a borderline change of their nearest neighbour.

    Args:
        expected: The features of fp32, float32 (n, d).
        given: The features of the artifact, of the same shape.
    """
    if len(expected) < 2:
        return 0, 0
    reference, similarity = _similarity(expected), _similarity(given)
    old, new, rows = reference.argmax(1), similarity.argmax(1), np.arange(len(expected))
    near = reference[rows, old] - reference[rows, new] < NEAR_NEIGHBOUR
    return int(((old != new) & ~near).sum()), int(((old != new) & near).sum())


def _similarity(features: Values) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of rows, (n, n), with -2 on the diagonal."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    unit = np.nan_to_num(features) / np.where(lengths > 0, np.nan_to_num(lengths, nan=1.0), 1.0)
    result: NDArray[np.float64] = unit @ unit.T
    np.fill_diagonal(result, -2.0)
    return result


def output_failures(records: Sequence[OutputGate], images: int) -> list[Reason]:
    """Return the reasons why outputs fail their limits. An empty list means that they pass.

    A share fails only if its entire 95 % interval exceeds the limit.

    Args:
        records: The figures.
        images: The number of images.
    """
    reasons = []
    for record in records:
        limit = record.bounds["error"]
        if not record.error <= limit:
            error = _percent(record.error)
            reasons.append(Reason("output-error", f"the error of {record.name} is {error} (limit {_percent(limit)})"))
        agreement = record.bounds.get("agreement", 0.0)
        if wilson(images - record.flips, images)[1] < agreement:
            reasons.append(
                Reason(
                    "output-moved",
                    f"the {record.compared} in {record.name} changed for {record.flips} of {images:,} images although "
                    f"fp32 was confident (limit {_percent(1 - agreement)})",
                )
            )
    return reasons


def describe_output(record: OutputGate, images: int) -> str:
    """Return the figures of one output as text.

    Args:
        record: The figures.
        images: The number of images.
    """
    text = f"{record.name} error {_percent(record.error)}"
    if record.compared is None:
        return text
    same = 1 - (record.flips + record.near_ties) / images
    return f"{text}, same {record.compared} {_percent(same)} ({record.flips} confident changes)"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
