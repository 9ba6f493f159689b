from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import runtimes
from benchmarks import feeds
from runtimes.errors import CompatibilityError, InputError
from runtimes.protocol import TensorSpec
from tests.benchmarks.scripts import JOB, SCRIPT, foreign, with_batch


def test_inputs_rotate_and_differ(tmp_path: Path) -> None:
    with runtimes.open(foreign(tmp_path), "fake") as runtime:
        found = feeds.rotation(JOB, runtime)
    assert len(found) == feeds.ROTATION
    assert len({arrays["input"].tobytes() for arrays in found}) == feeds.ROTATION
    assert all(arrays["input"].shape == (2, 3, 8, 8) for arrays in found)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TensorSpec("x", "float32", (4, 3)), "the model's batch is fixed at 4, and 1 was asked for"),
        (TensorSpec("x", "float32", ("n", 3, "height")), "only the first dimension may be open"),
        (TensorSpec("x", "float32", ()), "only the first dimension may be open"),
    ],
)
def test_shapes_that_no_input_can_be_made_for(spec: TensorSpec, message: str) -> None:
    with pytest.raises(CompatibilityError, match=message):
        feeds.concrete_shape(spec, 1)


def test_inputs_that_are_no_floats_are_refused() -> None:
    with pytest.raises(InputError, match=r"x: int64 \(n\): rbench feeds floating-point inputs alone"):
        feeds.as_input(TensorSpec("x", "int64", ("n",)), np.zeros(1, np.float32))


def test_large_inputs_rotate_less_but_still_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "INPUTS_LIMIT_BYTES", 1)
    with runtimes.open(foreign(tmp_path), "fake") as runtime:
        assert len(feeds.rotation(JOB, runtime)) == 2


def test_the_evaluations_batch() -> None:
    assert feeds.evaluation_batch(SCRIPT.inputs[0]) == 100
    assert feeds.evaluation_batch(with_batch(SCRIPT, 3).inputs[0]) == 3
    assert feeds.evaluation_batch(TensorSpec("x", "float32", ("n", 3, 224, 224))) == 13
    assert feeds.evaluation_batch(TensorSpec("x", "float32", ("n", 3, 4000, 4000))) == 1
