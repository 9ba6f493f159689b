from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

import runtimes
from runtimes import Artifact, Runtime, parity
from runtimes.artifacts.artifact import Vectors
from runtimes.errors import CheckFailedError
from runtimes.parity import BATCHES, LogitComparison
from tests.conftest import FakeFactory
from tests.refusals import refuses

Logits = NDArray[np.float32]


def logits(*rows: tuple[float, ...]) -> Logits:
    return np.array(rows, np.float32)


def open_runtime(artifact: Artifact) -> Runtime:
    return runtimes.open_artifact(artifact)


def shift_logit(vectors: Vectors, image: int, by: float) -> Vectors:
    """The vectors with one logit of one image moved by a share of the largest logit."""
    moved = vectors.logits.copy()
    moved[image, 0] += by * np.abs(vectors.logits).max()
    return dataclasses.replace(vectors, outputs={"logits": moved})


def test_a_comparison_by_hand() -> None:
    result = LogitComparison.compare(logits((1, 4, 0), (0, 1, 2)), logits((1, 5, 0), (3, 1, 2)))
    assert (result.max_difference, result.max_logit, result.agreement) == (3, 5, 0.5)
    assert result.relative_difference == pytest.approx(0.6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_differs_by_infinity(bad: float) -> None:
    result = LogitComparison.compare(logits((1, bad)), logits((1, 2)))
    assert result.max_difference == np.inf
    assert not result.relative_difference <= 1e9


def test_logits_of_zero_compare_absolutely() -> None:
    assert LogitComparison.compare(logits((0.5, 0)), logits((0, 0))).relative_difference == 0.5


def test_differences_are_taken_in_double() -> None:
    assert LogitComparison.compare(logits((3e38,)), logits((-3e38,))).max_difference == pytest.approx(6e38)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 9])
def test_logits_are_the_same_for_every_batch(fake_artifact: FakeFactory, batch: int) -> None:
    artifact = fake_artifact()
    vectors = artifact.vectors()
    with open_runtime(artifact) as runtime:
        result = parity.logits_of(runtime, vectors.inputs, batch)
    assert result.shape == vectors.logits.shape
    np.testing.assert_allclose(result, vectors.logits, rtol=1e-6)


def test_a_sound_artifact_passes_and_is_recorded(fake_artifact: FakeFactory) -> None:
    artifact = fake_artifact()
    with open_runtime(artifact) as runtime:
        record = parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise")
    assert record.batches == BATCHES == (1, 2, 3, 7)
    assert record.relative_difference <= 5e-5
    assert (record.reference, record.images, record.tolerance, record.agreement) == ("PyTorch", "noise", 5e-5, 1.0)
    assert record.runtime.startswith("fake ")


def test_a_largest_batch_limits_the_batches(fake_artifact: FakeFactory) -> None:
    artifact = fake_artifact()
    with open_runtime(artifact) as runtime:
        for largest, batches in ((1, (1,)), (4, (1, 2, 3)), (64, BATCHES)):
            record = parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise", largest_batch=largest)
            assert record.batches == batches


@pytest.mark.parametrize("image", range(7))
def test_one_wrong_logit_of_any_image_is_caught(fake_artifact: FakeFactory, image: int) -> None:
    artifact = fake_artifact()
    with open_runtime(artifact) as runtime, refuses(CheckFailedError, "parity-failed", "fake", "5e-05"):
        parity.check(runtime, shift_logit(artifact.vectors(), image, 1e-4), 5e-5, "PyTorch", "noise")


def test_what_is_within_the_tolerance_passes(fake_artifact: FakeFactory) -> None:
    artifact = fake_artifact()
    with open_runtime(artifact) as runtime:
        parity.check(runtime, shift_logit(artifact.vectors(), 2, 1e-5), 5e-5, "PyTorch", "noise")


class Spoilt:
    """A runtime that answers wrongly for batches of one size."""

    def __init__(self, runtime: Runtime, batch: int, value: float) -> None:
        self.inputs, self.outputs, self.description = runtime.inputs, runtime.outputs, runtime.description
        self.artifact, self._runtime, self._batch, self._value = runtime.artifact, runtime, batch, value

    def infer(self, feeds: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        outputs = self._runtime.infer(feeds)
        if len(feeds[self.inputs[0].name]) == self._batch:
            outputs[self.outputs[0].name][-1, -1] = self._value
        return outputs


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("value", [np.nan, 1e3])
def test_a_fault_at_one_batch_alone_is_caught(fake_artifact: FakeFactory, batch: int, value: float) -> None:
    artifact = fake_artifact()
    with open_runtime(artifact) as runtime, refuses(CheckFailedError, "parity-failed"):
        parity.check(Spoilt(runtime, batch, value), artifact.vectors(), 5e-5, "PyTorch", "noise")  # type: ignore[arg-type]
