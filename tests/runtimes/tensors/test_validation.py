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
from runtimes.tensors.validation import check_feeds, empty_outputs, plainly_right, reconcile_specs

IMAGE = TensorSpec("input", "float32", ("batch", 3, 4, 5))
FIXED = TensorSpec("input", "float32", (2, 3, 4, 5))
LOGITS = TensorSpec("logits", "float32", ("batch", 10))


def array(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def refusal(spec: TensorSpec, feeds: object) -> str:
    with pytest.raises(InputError) as caught:
        check_feeds((spec,), feeds)  # type: ignore[arg-type]
    return str(caught.value)


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
def test_what_is_plainly_right_is_what_checking_gives_back(
    specs: tuple[TensorSpec, ...], feeds: Any, expected: bool
) -> None:
    assert plainly_right(specs)(feeds) is expected
    if expected:
        found = check_feeds(specs, feeds)
        assert found["input"] is feeds["input"]
        assert empty_outputs(specs, (LOGITS,), found) is None


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "the inputs are 'input'; got nothing"),
        ({"x": array(1, 3, 4, 5)}, "the inputs are 'input'; got 'x'"),
        ({"input": array(1, 3, 4, 5), "y\n": 1}, "the inputs are 'input'; got 'input', 'y\\\\n'"),
        (array(1, 3, 4, 5), "feeds must map input names to arrays, not be ndarray (pass {'input': array})"),
        ([1], "feeds must map input names to arrays, not be list (pass {'input': array})"),
    ],
)
def test_names(feeds: object, message: str) -> None:
    assert message in refusal(IMAGE, feeds)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (array(1, 3, 4, 5).astype(np.float64), "got dtype float64 (pass array.astype(numpy.float32))"),
        (array(1, 3, 4, 5).astype(np.float16), "got dtype float16 (pass"),
        (array(1, 3, 4, 5).astype(">f4"), "got dtype >f4 (pass array.astype(numpy.float32))"),
        (np.zeros((1, 3, 4, 5), np.uint8), "got dtype uint8 (raw pixels must be normalised first"),
        (np.zeros((1, 3, 4, 5), np.int64), "got dtype int64"),
        (np.zeros((1, 3, 4, 5), bool), "got dtype bool"),
        (np.zeros((1, 3, 4, 5), complex), "got dtype complex128"),
        (np.zeros((1, 3, 4, 5), object), "got dtype object"),
        (np.zeros((1, 3, 4, 5), "U3"), "got dtype <U3"),
        (array(3, 4, 5), "got 3 dimensions, shape (3, 4, 5) (one image needs a batch axis: pass array[None])"),
        (array(1, 1, 3, 4, 5), "got 5 dimensions, shape (1, 1, 3, 4, 5)"),
        (np.float32(1), "expected a NumPy array, got float32"),
        (array(), "got 0 dimensions, shape ()"),
        (array(1, 4, 5, 3), "got shape (1, 4, 5, 3) (it looks like channels last: pass array.transpose(0, 3, 1, 2))"),
        (array(1, 1, 4, 5), "got shape (1, 1, 4, 5)"),
        (array(1, 3, 5, 4), "got shape (1, 3, 5, 4)"),
        ("text", "expected a NumPy array, got str"),
        (None, "expected a NumPy array, got NoneType"),
        ([[1, 2], [3]], "the list is not an array of numbers"),
        ([["a"]], "the list is not an array of numbers: could not convert string"),
        ([1, 2], "got 1 dimensions, shape (2,)"),
    ],
)
def test_wrong_arrays(value: object, message: str) -> None:
    text = refusal(IMAGE, {"input": value})
    assert message in text
    assert text.startswith("input: float32 (batch, 3, 4, 5): ")
    assert "\n" not in text


def test_channels_first_for_a_channels_last_model() -> None:
    spec = TensorSpec("x", "float32", ("n", 4, 5, 3))
    assert "it looks like channels first: pass array.transpose(0, 2, 3, 1)" in refusal(spec, {"x": array(1, 3, 4, 5)})
    assert check_feeds((spec,), {"x": array(1, 3, 4, 5).transpose(0, 2, 3, 1)})["x"].shape == (1, 4, 5, 3)


PIXELS = TensorSpec("input", "uint8", ("batch", 4, 5, 3))


def test_floats_for_raw_pixels_are_told_what_is_wanted() -> None:
    message = "this artifact takes raw pixels, 0 to 255, and normalises them itself: pass them as they were decoded"
    normalised = array(1, 4, 5, 3)
    for value in (normalised, normalised.astype(np.float64), normalised.astype(np.float16), normalised.tolist()):
        assert message in refusal(PIXELS, {"input": value})
    assert message in refusal(PIXELS, {"input": list(normalised)})
    assert "got dtype float64 (pass array.astype(numpy.uint8))" in refusal(
        TensorSpec("x", "uint8", ("n",)), {"x": np.zeros(1)}
    )
    assert "got dtype int64 (pass array.astype(numpy.uint8))" in refusal(
        PIXELS, {"input": np.zeros((1, 4, 5, 3), np.int64)}
    )


def test_raw_pixels_are_taken_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    assert check_feeds((PIXELS,), {"input": pixels})["input"] is pixels
    for value in (list(pixels), pixels.tolist()):
        result = check_feeds((PIXELS,), {"input": value})["input"]
        np.testing.assert_array_equal(result, pixels, strict=True)
    first = pixels.transpose(0, 3, 1, 2)
    assert "it looks like channels first: pass array.transpose(0, 2, 3, 1)" in refusal(PIXELS, {"input": first})


def test_a_list_hides_no_missing_normalisation() -> None:
    pixels = np.zeros((3, 4, 5), np.uint8)
    assert "got dtype uint8 (raw pixels must be normalised first" in refusal(IMAGE, {"input": [pixels]})
    fractions = refusal(TensorSpec("x", "int64", ("n",)), {"x": [0.5, 1.5]})
    assert "got dtype float64 (pass array.astype(numpy.int64))" in fractions


def test_a_fixed_batch_is_named() -> None:
    message = "the model was exported for batches of 2: export it with --batch dynamic"
    assert message in refusal(FIXED, {"input": array(3, 3, 4, 5)})
    assert message in refusal(FIXED, {"input": array(0, 3, 4, 5)})
    assert check_feeds((FIXED,), {"input": array(2, 3, 4, 5)})["input"].shape == (2, 3, 4, 5)


def test_numbers_too_large_for_a_list() -> None:
    spec = TensorSpec("x", "uint8", ("n",))
    assert "the list is not an array of numbers" in refusal(spec, {"x": [300]})
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
    with pytest.raises(InputError, match=r"b: float32 \(n, 3\): got shape \(5, 3\)"):
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
    result = check_feeds((IMAGE,), {"input": view})["input"]
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
    with pytest.raises(InputError, match=r"empty arrays were passed, and y: .* does not follow"):
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
        with pytest.raises(IntegrityError, match=r"its manifest says input: float32 \(batch, 3, 4, 5\), the model has"):
            reconcile_specs((IMAGE,), (other,))
    with pytest.raises(IntegrityError, match="its manifest says"):
        reconcile_specs((IMAGE,), ())


@pytest.mark.parametrize(("shape", "batch"), [((8, 3, 4, 4), 8), (("batch", 3, 4, 4), None), ((), None)])
def test_a_fixed_batch_is_the_first_size(shape: tuple[int | str, ...], batch: int | None) -> None:
    assert TensorSpec("input", "float32", shape).fixed_batch == batch
