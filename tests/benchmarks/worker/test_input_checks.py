from __future__ import annotations

import numpy as np
import pytest

from benchmarks.worker.input_checks import oddities, subnormals
from exporter.data.dataset import noise, noise_pixels
from runtimes.protocol import Array, Arrays


def feeds(*arrays: Array) -> list[Arrays]:
    return [{"input": array} for array in arrays]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_noise_is_not_odd(dtype: str) -> None:
    """Of half-precision noise some values are subnormal by nature."""
    arrays = [noise((2, 3, 64, 64), seed).astype(dtype) for seed in range(16)]
    assert (sum(map(subnormals, arrays)) > 0) is (dtype == "float16")
    assert oddities(feeds(*arrays)) == ()


def test_pixels_are_not_odd() -> None:
    assert oddities(feeds(*(noise_pixels((1, 8, 8, 3), seed) for seed in range(4)))) == ()


def test_subnormal_inputs_are_counted() -> None:
    one, other = noise((1, 4), 0), noise((1, 4), 1)
    one[0, :3] = (1e-40, -1e-45, 0.0)
    (reason,) = oddities(feeds(one, other))
    assert (reason.code, reason.sentence.startswith("2 of 8 ")) == ("inputs-subnormal", True)


@pytest.mark.parametrize(
    ("value", "dtype", "count"),
    [
        (np.finfo(np.float32).tiny, "float32", 0),
        (np.nextafter(np.finfo(np.float32).tiny, np.float32(0)), "float32", 1),
        (-1e-310, "float64", 1),
        (6e-8, "float16", 1),
        (0.0, "float32", 0),
        (np.nan, "float32", 0),
        (np.inf, "float32", 0),
        (1, "uint8", 0),
    ],
)
def test_what_counts_as_subnormal(value: float, dtype: str, count: int) -> None:
    assert subnormals(np.array([value], dtype)) == count


def test_constant_inputs_are_told() -> None:
    flat = np.full((1, 3, 8, 8), 0.5, np.float32)
    for other, count in ((noise(flat.shape, 0), 1), (flat + 1, 2)):
        (reason,) = oddities(feeds(flat, other))
        assert (reason.code, reason.sentence.startswith(f"{count} of 2 ")) == ("inputs-flat", True)


def test_inputs_that_are_all_the_same_are_told() -> None:
    array = noise((1, 8), 0)
    assert [reason.code for reason in oddities(feeds(array, array.copy(), array.copy()))] == ["inputs-equal"]
    assert oddities(feeds(array, array.copy(), array + 1)) == ()
    assert oddities(feeds(array)) == ()  # one input is not several


def test_fewer_different_inputs_than_are_wanted_are_told() -> None:
    arrays = [noise((1, 8), seed) for seed in range(16)]
    assert oddities(feeds(*arrays), 16) == ()
    (reason,) = oddities(feeds(*arrays[:3]), 16)
    assert (reason.code, reason.sentence[0], "16" in reason.sentence) == ("inputs-too-few", "3", True)
    assert oddities(feeds(*(arrays[number % 3] for number in range(16))), 16) == (reason,)
    assert [same.code for same in oddities(feeds(*arrays[:1] * 2), 16)] == ["inputs-equal"]


def test_inputs_without_values_or_with_one_are_no_oddity() -> None:
    assert oddities(feeds(np.empty((0, 3), np.float32), np.ones((1,), np.float32))) == ()
