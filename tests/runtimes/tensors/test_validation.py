"""Feeds against specs: the matrix of wrong arrays, and the views that must all be as good as a plain copy."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.errors import InputError, IntegrityError
from runtimes.protocol import Array, TensorSpec
from runtimes.tensors.validation import check_feeds, empty_outputs, make_fast_check, reconcile_specs
from tests.refusals import refuses

IMAGE = TensorSpec("input", "float32", ("batch", 3, 4, 5))
FIXED = TensorSpec("input", "float32", (2, 3, 4, 5))
LOGITS = TensorSpec("logits", "float32", ("batch", 10))


def array(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def check_refusal(spec: TensorSpec, feeds: object, code: str, *values: object) -> None:
    """The feeds are refused with that code, in one line that names the values."""
    with refuses(InputError, code, *values) as caught:
        check_feeds((spec,), feeds)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


class Subclass(np.ndarray[Any, Any]):
    pass


RIGHT = {"input": array(2, 3, 4, 5)}


@pytest.mark.parametrize(
    ("specs", "feeds", "expected"),
    [
        ((IMAGE,), RIGHT, True),
        ((FIXED,), RIGHT, True),
        ((IMAGE,), {"input": array(9, 3, 4, 5)[1:3]}, True),
        ((FIXED,), {"input": array(1, 3, 4, 5)}, False),
        ((IMAGE,), {"input": array(0, 3, 4, 5)}, False),
        ((IMAGE,), {"x": array(2, 3, 4, 5)}, False),
        ((IMAGE,), {**RIGHT, "x": 1}, False),
        ((IMAGE,), {}, False),
        ((IMAGE,), [1], False),
        ((IMAGE,), MappingProxyType(RIGHT), False),
        ((IMAGE,), {"input": array(2, 3, 4, 5).tolist()}, False),
        ((IMAGE,), {"input": array(2, 3, 4, 5).view(Subclass)}, False),
        ((IMAGE,), {"input": array(2, 3, 4, 5).astype(">f4")}, False),
        ((IMAGE,), {"input": array(2, 3, 4, 5).astype(np.float64)}, False),
        ((IMAGE,), {"input": array(2, 4, 5, 3).transpose(0, 3, 1, 2)}, False),
        ((IMAGE,), {"input": array(2, 3, 4, 5)[:, :, ::2]}, False),
        ((IMAGE,), {"input": array(3, 4, 5)}, False),
        ((IMAGE,), {"input": array()}, False),
        ((TensorSpec("input", "float32", ("n", 3, "h", "w")),), RIGHT, False),
        ((TensorSpec("input", "float32", ()),), {"input": array()}, False),
        ((TensorSpec("input", "float32", ("n",)),), {"input": array(4)}, True),
        ((IMAGE, IMAGE), RIGHT, False),
        ((), {}, False),
    ],
)
def test_the_fast_check_accepts_only_unchanged_arrays(
    specs: tuple[TensorSpec, ...], feeds: Any, expected: bool
) -> None:
    assert make_fast_check(specs)(feeds) is expected
    if expected:
        found = check_feeds(specs, feeds)
        assert found["input"] is feeds["input"]
        assert empty_outputs(specs, (LOGITS,), found) is None


@pytest.mark.parametrize(
    ("feeds", "code", "values"),
    [
        ({}, "input-names-mismatch", ("'input',", "nothing")),
        ({"x": array(1, 3, 4, 5)}, "input-names-mismatch", ("'input',", "'x'")),
        ({"input": array(1, 3, 4, 5), "y\n": 1}, "input-names-mismatch", ("'input', 'y\\\\n'",)),
        (array(1, 3, 4, 5), "feeds-not-mapping", ("ndarray", "{'input': array}")),
        ([1], "feeds-not-mapping", ("list", "{'input': array}")),
    ],
)
def test_names(feeds: object, code: str, values: tuple[str, ...]) -> None:
    check_refusal(IMAGE, feeds, code, *values)


@pytest.mark.parametrize(
    ("value", "code", "values"),
    [
        (array(1, 3, 4, 5).astype(np.float64), "input-dtype-mismatch", ("float64", "array.astype(numpy.float32)")),
        (array(1, 3, 4, 5).astype(np.float16), "input-dtype-mismatch", ("float16", "array.astype(numpy.float32)")),
        (array(1, 3, 4, 5).astype(">f4"), "input-dtype-mismatch", (">f4", "array.astype(numpy.float32)")),
        (np.zeros((1, 3, 4, 5), np.uint8), "input-dtype-mismatch", ("uint8", "runtimes.Classifier")),
        (np.zeros((1, 3, 4, 5), np.int64), "input-dtype-mismatch", ("int64",)),
        (np.zeros((1, 3, 4, 5), bool), "input-dtype-mismatch", ("bool",)),
        (np.zeros((1, 3, 4, 5), complex), "input-dtype-mismatch", ("complex128",)),
        (np.zeros((1, 3, 4, 5), object), "input-dtype-mismatch", ("object",)),
        (np.zeros((1, 3, 4, 5), "U3"), "input-dtype-mismatch", ("<U3",)),
        (array(3, 4, 5), "input-rank-mismatch", (3, (3, 4, 5), "array[None]")),
        (array(1, 1, 3, 4, 5), "input-rank-mismatch", (5, (1, 1, 3, 4, 5))),
        (np.float32(1), "input-not-array", ("got float32",)),
        (array(), "input-rank-mismatch", (0, ())),
        (array(1, 4, 5, 3), "input-shape-mismatch", ((1, 4, 5, 3), f"array.transpose{(0, 3, 1, 2)}")),
        (array(1, 1, 4, 5), "input-shape-mismatch", ((1, 1, 4, 5),)),
        (array(1, 3, 5, 4), "input-shape-mismatch", ((1, 3, 5, 4),)),
        ("text", "input-not-array", ("got str",)),
        (None, "input-not-array", ("NoneType",)),
        ([[1, 2], [3]], "input-list-invalid", ()),
        ([["a"]], "input-list-invalid", ("to float: 'a'",)),
        ([1, 2], "input-rank-mismatch", (1, (2,))),
    ],
)
def test_wrong_arrays(value: object, code: str, values: tuple[object, ...]) -> None:
    check_refusal(IMAGE, {"input": value}, code, f"{IMAGE}: ", *values)


CHANNELS_FIRST = f"array.transpose{(0, 2, 3, 1)}"


def test_channels_first_for_a_channels_last_model() -> None:
    spec = TensorSpec("x", "float32", ("n", 4, 5, 3))
    check_refusal(spec, {"x": array(1, 3, 4, 5)}, "input-shape-mismatch", CHANNELS_FIRST)
    assert check_feeds((spec,), {"x": array(1, 3, 4, 5).transpose(0, 2, 3, 1)})["x"].shape == (1, 4, 5, 3)


PIXELS = TensorSpec("input", "uint8", ("batch", 4, 5, 3))


def test_floats_for_raw_pixels_are_told_what_is_wanted() -> None:
    normalised = array(1, 4, 5, 3)
    for value in (normalised, normalised.astype(np.float64), normalised.astype(np.float16), normalised.tolist()):
        check_refusal(PIXELS, {"input": value}, "input-dtype-mismatch", "pass raw pixels", "0 to 255")
    check_refusal(PIXELS, {"input": list(normalised)}, "input-dtype-mismatch", "pass raw pixels", "0 to 255")
    for spec, name, value in ((TensorSpec("x", "uint8", ("n",)), "x", np.zeros(1)), (PIXELS, "input", INTEGERS)):
        check_refusal(spec, {name: value}, "input-dtype-mismatch", value.dtype, "array.astype(numpy.uint8)")


INTEGERS = np.zeros((1, 4, 5, 3), np.int64)


def test_raw_pixels_are_taken_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    assert check_feeds((PIXELS,), {"input": pixels})["input"] is pixels
    for value in (list(pixels), pixels.tolist()):
        result = check_feeds((PIXELS,), {"input": value})["input"]
        np.testing.assert_array_equal(result, pixels, strict=True)
    first = pixels.transpose(0, 3, 1, 2)
    check_refusal(PIXELS, {"input": first}, "input-shape-mismatch", CHANNELS_FIRST)


def test_a_list_hides_no_missing_normalisation() -> None:
    pixels = np.zeros((3, 4, 5), np.uint8)
    check_refusal(IMAGE, {"input": [pixels]}, "input-dtype-mismatch", "uint8", "runtimes.Classifier")
    whole = TensorSpec("x", "int64", ("n",))
    check_refusal(whole, {"x": [0.5, 1.5]}, "input-dtype-mismatch", "float64", "array.astype(numpy.int64)")


def test_a_fixed_batch_is_named() -> None:
    for batch in (3, 0):
        feeds = {"input": array(batch, 3, 4, 5)}
        check_refusal(FIXED, feeds, "input-shape-mismatch", (batch, 3, 4, 5), "batches of 2", "--batch dynamic")
    assert check_feeds((FIXED,), {"input": array(2, 3, 4, 5)})["input"].shape == (2, 3, 4, 5)


def test_numbers_too_large_for_a_list() -> None:
    spec = TensorSpec("x", "uint8", ("n",))
    check_refusal(spec, {"x": [300]}, "input-list-invalid", 300)
    feeds: dict[str, Any] = {"x": [255]}
    np.testing.assert_array_equal(check_feeds((spec,), feeds)["x"], np.array([255], np.uint8))


def test_lists_are_taken_as_the_specs_dtype() -> None:
    values = array(1, 3, 4, 5)
    result = check_feeds((IMAGE,), {"input": values.tolist()})["input"]
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, values)


def test_one_name_is_one_size() -> None:
    specs = (TensorSpec("a", "float32", ("n", 2)), TensorSpec("b", "float32", ("n", 3)))
    assert list(check_feeds(specs, {"b": array(4, 3), "a": array(4, 2)})) == ["a", "b"]
    with refuses(InputError, "input-shape-mismatch", specs[1], (5, 3)):
        check_feeds(specs, {"a": array(4, 2), "b": array(5, 3)})


def test_a_plain_array_is_not_copied() -> None:
    value = array(2, 3, 4, 5)
    assert check_feeds((IMAGE,), {"input": value})["input"] is value


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.integers(1, 3),
    st.permutations(range(4)),
    st.tuples(*[st.sampled_from((1, 2, -1, -2))] * 4),
    st.booleans(),
    st.booleans(),
)
def test_views_equal_their_copy_and_stay_as_they_are(
    batch: int, order: list[int], steps: tuple[int, ...], read_only: bool, offset: bool
) -> None:
    shape = (batch, 3, 4, 5)
    wide = tuple(shape[axis] * abs(steps[axis]) for axis in order)
    memory = np.random.default_rng(1).integers(0, 256, 4 * int(np.prod(wide)) + 1, np.uint8)
    memory = memory[1:] if offset else memory[:-1]
    base = np.frombuffer(memory.tobytes(), np.float32).copy().reshape(wide) if not offset else memory.view(np.float32)
    view = base.reshape(wide).transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    view.flags.writeable = not read_only
    before, strides = view.tobytes(), view.strides
    result = check_feeds((IMAGE,), {"input": view}, finite=False)["input"]
    assert result.flags.c_contiguous
    assert result.tobytes() == np.array(view, order="C", copy=True).tobytes()
    assert (view.tobytes(), view.strides, view.flags.writeable) == (before, strides, not read_only)


def test_a_batch_of_nothing_follows_from_the_specs() -> None:
    result = empty_outputs((IMAGE,), (LOGITS,), {"input": array(0, 3, 4, 5)})
    assert result is not None
    assert result["logits"].shape == (0, 10)
    assert result["logits"].dtype == np.float32
    assert empty_outputs((IMAGE,), (LOGITS,), {"input": array(1, 3, 4, 5)}) is None


@pytest.mark.parametrize("shape", [("other", 10), (4, 10)])
def test_an_output_that_does_not_follow_is_refused(shape: tuple[int | str, ...]) -> None:
    output = TensorSpec("y", "float32", shape)
    with refuses(InputError, "output-size-unknown", output):
        empty_outputs((IMAGE,), (output,), {"input": array(0, 3, 4, 5)})


def test_a_model_must_be_what_its_manifest_says() -> None:
    found = (TensorSpec("input", "float32", ("dim0", 3, 4, 5)),)
    assert reconcile_specs((IMAGE,), found) == (IMAGE,)
    assert reconcile_specs((FIXED,), found) == (FIXED,)
    for other in (
        TensorSpec("x", "float32", ("n", 3, 4, 5)),
        TensorSpec("input", "float16", ("n", 3, 4, 5)),
        TensorSpec("input", "float32", ("n", 3, 4)),
        TensorSpec("input", "float32", ("n", 1, 4, 5)),
    ):
        with refuses(IntegrityError, "manifest-specs-mismatch", IMAGE, other):
            reconcile_specs((IMAGE,), (other,))
    with refuses(IntegrityError, "manifest-specs-mismatch", IMAGE):
        reconcile_specs((IMAGE,), ())


@pytest.mark.parametrize(("shape", "batch"), [((8, 3, 4, 4), 8), (("batch", 3, 4, 4), None), ((), None)])
def test_a_fixed_batch_is_the_first_size(shape: tuple[int | str, ...], batch: int | None) -> None:
    assert TensorSpec("input", "float32", shape).fixed_batch == batch
