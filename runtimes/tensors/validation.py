"""Checks of feeds against specifications: names, dtypes and shapes. All backends share these checks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from runtimes.arguments import is_count, require_not_too_large
from runtimes.errors import CheckFailedError, InputError, IntegrityError, quote
from runtimes.tensors.dlpack import DeviceTensor, device_tensor, is_on_device
from runtimes.tensors.finiteness import first_non_finite, is_finite
from runtimes.tensors.spec import Array, Arrays, TensorSpec


def check_feeds(specs: tuple[TensorSpec, ...], feeds: Mapping[str, object], finite: bool = True) -> Arrays:
    """Return the feeds as C-ordered arrays of the specified dtypes, in the order of ``specs``.

    The caller's arrays are not changed. A C-ordered array is passed through without a copy. An array of another dtype
    is an error, because a cast would hide a missing or repeated normalisation. A list of numbers is converted to the
    specified dtype, except fractions for an integer input and lists of uint8 arrays for another input.

    NaN and infinity are errors, because a library may answer them with finite numbers: a maximum of NaN and 0 may be 0.

    Args:
        specs: The specifications of the inputs.
        feeds: The arrays by name.
        finite: Whether NaN and infinity are errors.

    Raises:
        InputError: A name is unknown or missing, a dtype, byte order, rank or size is wrong, or a number is not finite.
    """
    _check_names(specs, feeds)
    sizes: dict[str, int] = {}
    arrays = {spec.name: _check_array(spec, feeds[spec.name], sizes) for spec in specs}
    if finite:
        for spec in specs:
            _check_finite(spec, arrays[spec.name])
    return arrays


def _check_finite(spec: TensorSpec, array: Array) -> None:
    if is_finite(array):
        return
    position = first_non_finite(array)
    raise InputError(
        f"{spec}: the array holds {array[position]} at {position}; all numbers must be finite",
        code="input-not-finite",
        hint="mend the images, or open the model with check_finite=False",
    )


def make_fast_check(specs: tuple[TensorSpec, ...], finite: bool = True) -> Callable[[object], TypeGuard[Arrays]]:
    """Return a function that recognises feeds for ``specs`` that ``check_feeds`` would return as they are, faster.

    The function returns true for a dict with one C-ordered array of the right dtype and shape that is not empty and,
    with ``finite``, holds neither NaN nor infinity. False means that ``check_feeds`` has to decide. For networks with
    several inputs, the function always returns false.

    Args:
        specs: The specifications of the inputs.
        finite: Whether NaN and infinity are errors.
    """
    if len(specs) != 1 or not specs[0].shape or any(isinstance(size, str) for size in specs[0].shape[1:]):
        return _always_false
    (spec,) = specs
    name, dtype, rank, (first, *rest) = spec.name, _dtype(spec.dtype), len(spec.shape), spec.shape
    image_shape, batches = tuple(rest), () if isinstance(first, str) else (first,)
    checks_numbers = finite and dtype.kind not in "iub"

    def passes(feeds: object) -> TypeGuard[Arrays]:
        if type(feeds) is not dict or len(feeds) != 1:
            return False
        value = feeds.get(name)
        return (
            type(value) is np.ndarray
            and value.dtype == dtype
            and value.ndim == rank
            and value.shape[1:] == image_shape
            and (not batches or value.shape[0] in batches)
            and value.size > 0
            and value.flags.c_contiguous
            and (not checks_numbers or is_finite(value))
        )

    return passes


def _always_false(_: object) -> TypeGuard[Arrays]:
    return False


def on_device(feeds: Mapping[str, object]) -> bool:
    """Return whether any of the feeds is a tensor on a CUDA device."""
    return isinstance(feeds, Mapping) and True in [is_on_device(value) for value in feeds.values()]


def check_tensors(
    specs: tuple[TensorSpec, ...], feeds: Mapping[str, object], stream: int | None = None
) -> dict[str, DeviceTensor]:
    """Check feeds that are tensors on a CUDA device, without a copy.

    Args:
        specs: The specifications of the inputs.
        feeds: The tensors by name. All of them must be on a CUDA device.
        stream: The handle of a stream that is to wait for the tensors, or ``None``.

    Returns:
        The tensors by name, in the order of ``specs``.

    Raises:
        InputError: A name is unknown or missing, a tensor is not on a CUDA device or not C-ordered, or a dtype, rank or
            size is wrong.
    """
    _check_names(specs, feeds)
    sizes: dict[str, int] = {}
    return {spec.name: _check_tensor(spec, feeds[spec.name], sizes, stream) for spec in specs}


def _check_tensor(spec: TensorSpec, value: Any, sizes: dict[str, int], stream: int | None) -> DeviceTensor:
    if not is_on_device(value):
        raise InputError(
            f"{spec}: the {type(value).__name__} is not on a CUDA device, but another input is",
            code="feeds-mixed-devices",
            hint="pass all inputs as tensors on one device, or all as NumPy arrays",
        )
    try:
        tensor = device_tensor(value, stream)
    except InputError as error:
        raise InputError(f"{spec}: {error.what}", code=error.code, hint=error.hint) from error
    if tensor.dtype != spec.dtype:
        raise InputError(f"{spec}: expected dtype {spec.dtype}, got {tensor.dtype}", code="input-dtype-mismatch")
    _check_shape(spec, tensor, sizes)
    return tensor


def _check_names(specs: tuple[TensorSpec, ...], feeds: Mapping[str, object]) -> None:
    if not isinstance(feeds, Mapping):
        raise InputError(
            f"feeds must be a mapping from input names to arrays, not {type(feeds).__name__}",
            code="feeds-not-mapping",
            hint=f"pass {{{specs[0].name!r}: array}}" if specs else None,
        )
    if len(feeds) != len(specs) or [spec.name for spec in specs if spec.name not in feeds]:
        names = [spec.name for spec in specs]
        got = ", ".join(repr(quote(name)) for name in feeds) or "nothing"
        raise InputError(
            f"the model's inputs are {', '.join(map(repr, names))}, but feeds has {got}", code="input-names-mismatch"
        )


def _check_array(spec: TensorSpec, value: object, sizes: dict[str, int]) -> Array:
    if isinstance(value, (list, tuple)):
        value = _from_list(spec, value)
    if not isinstance(value, np.ndarray):
        hint = "copy the tensor to the host, for example with tensor.cpu().numpy()" if is_on_device(value) else None
        raise InputError(
            f"{spec}: expected a NumPy array, got {type(value).__name__}", code="input-not-array", hint=hint
        )
    expected = _dtype(spec.dtype)
    if value.dtype != expected:
        given = value.dtype.str if value.dtype.newbyteorder() == expected else quote(value.dtype)
        raise InputError(
            f"{spec}: expected dtype {spec.dtype}, got {given}",
            code="input-dtype-mismatch",
            hint=_dtype_hint(spec, value.dtype),
        )
    _check_shape(spec, value, sizes)
    return value if value.flags.c_contiguous else np.ascontiguousarray(value)


@functools.cache
def _dtype(name: str) -> np.dtype[np.generic]:
    """Return NumPy's dtype by its name, from a cache: the lookup is expensive for each call of a model."""
    return np.dtype(name)


def _from_list(spec: TensorSpec, value: list[object] | tuple[object, ...]) -> Array:
    expected = np.dtype(spec.dtype)
    try:
        array: Array = np.asarray(value)
        fractions = array.dtype.kind == "f" and expected.kind in "iu"
        pixels = array.dtype == np.uint8  # a list of uint8 arrays: plain numbers never become this dtype
        return array if array.size and (fractions or pixels) else np.asarray(value, dtype=expected)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{spec}: the list cannot be converted to an array of numbers: {quote(error)}", code="input-list-invalid"
        ) from error


def _dtype_hint(spec: TensorSpec, given: np.dtype[np.generic]) -> str:
    expected = np.dtype(spec.dtype)
    if given == np.uint8 and expected.kind == "f":
        return "normalise raw pixels first; runtimes.Classifier does this by the manifest"
    if given.kind == "f" and expected == np.uint8 and len(spec.shape) == 4:
        return "pass raw pixels from 0 to 255: this network normalises them itself"
    return f"pass array.astype(numpy.{expected.name})"


def _check_shape(spec: TensorSpec, value: Array | DeviceTensor, sizes: dict[str, int]) -> None:
    if value.ndim != len(spec.shape):
        hint = "pass array[None], which adds a batch axis" if value.ndim == len(spec.shape) - 1 else None
        raise InputError(
            f"{spec}: expected {len(spec.shape)} dimensions, got {value.ndim} (shape {value.shape})",
            code="input-rank-mismatch",
            hint=hint,
        )
    for size, expected in zip(value.shape, spec.shape, strict=True):
        if size != expected and (not isinstance(expected, str) or size != sizes.setdefault(expected, size)):
            raise InputError(
                f"{spec}: got the shape {value.shape}, which does not fit",
                code="input-shape-mismatch",
                hint=_shape_hint(spec, value),
            )


def _shape_hint(spec: TensorSpec, value: Array | DeviceTensor) -> str | None:
    for order, layout in (((0, 3, 1, 2), "last"), ((0, 2, 3, 1), "first")):
        if value.ndim == 4 and _fits(spec, tuple(value.shape[axis] for axis in order)):
            return f"if the array has its channels {layout}, pass array.transpose{order}"
    fixed = spec.fixed_batch
    if fixed is not None and value.ndim == len(spec.shape) and _fits(spec, (fixed, *value.shape[1:])):
        return f"pass batches of {fixed}, or export the model again with the option --batch dynamic of rexport"
    return None


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return all(isinstance(expected, str) or expected == size for expected, size in zip(spec.shape, shape, strict=True))


def reconcile_specs(
    recorded: tuple[TensorSpec, ...], actual: tuple[TensorSpec, ...], path: Path | None = None
) -> tuple[TensorSpec, ...]:
    """Return the manifest's specifications, which name the dimensions that may vary, checked against the model.

    Args:
        recorded: The specifications in the manifest.
        actual: The specifications that the library reports for the model.
        path: The model file, for the message.

    Raises:
        IntegrityError: The manifest contradicts the model.
    """
    same = len(recorded) == len(actual) and all(
        (left.name, left.dtype, len(left.shape)) == (right.name, right.dtype, len(right.shape))
        and all(isinstance(b, str) or a == b for a, b in zip(left.shape, right.shape, strict=True))
        for left, right in zip(recorded, actual, strict=True)
    )
    if not same:
        raise IntegrityError(
            f"the manifest says {quote('; '.join(map(str, recorded)))}, but the model has "
            f"{quote('; '.join(map(str, actual)))}",
            code="manifest-specs-mismatch",
            path=path,
            hint="export the model again with rexport",
        )
    return recorded


def outputs_with_rows(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """Return the names of the outputs that have one row for each image, according to the specifications.

    These are the outputs whose first dimension varies under the same name as that of the only input. Of networks with
    several inputs or a fixed batch there are none.
    """
    first = inputs[0].shape[0] if len(inputs) == 1 and inputs[0].shape else None
    return tuple(spec.name for spec in outputs if isinstance(first, str) and spec.shape and spec.shape[0] == first)


def check_rows(outputs: Mapping[str, Any], names: Iterable[str], images: int) -> None:
    """Check that outputs have one row for each image.

    Args:
        outputs: The outputs by name, on the host or on a device.
        names: The names of the outputs to check.
        images: The number of images in the call.

    Raises:
        CheckFailedError: An output has another number of rows.
    """
    for name in names:
        shape = outputs[name].shape
        if not shape or shape[0] != images:
            raise CheckFailedError(
                f"output {quote(name)} has the shape {tuple(shape)} for {images} images; one row for each image was "
                "expected",
                code="output-rows-mismatch",
                hint="the network mixes the images of a batch: export one that computes each image by itself",
            )


def batch_shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    """Return the shape of the input ``spec`` for a batch.

    Raises:
        InputError: The network takes another batch, or another dimension than the first may vary.
        UsageError: The batch is too large.
    """
    fixed = spec.fixed_batch
    if not is_count(batch) or (fixed is not None and fixed != batch):
        expected = "at least 1" if fixed is None else str(fixed)
        raise InputError(f"{spec}: the batch must be {expected}, not {quote(repr(batch))}", code="batch-mismatch")
    require_not_too_large(batch=batch)
    sizes = tuple(size for size in spec.shape[1:] if isinstance(size, int))
    if not spec.shape or len(sizes) != len(spec.shape) - 1:
        raise InputError(
            f"{spec}: more dimensions than the batch may vary",
            code="input-size-unknown",
            hint="make the arrays with numpy.empty",
        )
    return (batch, *sizes)


def empty_outputs(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], arrays: Mapping[str, Array | DeviceTensor]
) -> Arrays | None:
    """Return the outputs for a batch of 0 images, or ``None`` if no input is empty. No library is called.

    Args:
        inputs: The specifications of the inputs.
        outputs: The specifications of the outputs.
        arrays: The checked inputs by name.

    Raises:
        InputError: An input is empty, but the shape of an output does not follow from the shapes of the inputs or is
            not empty.
    """
    if not [array for array in arrays.values() if 0 in array.shape]:
        return None
    sizes = {
        dimension: size
        for spec in inputs
        for dimension, size in zip(spec.shape, arrays[spec.name].shape, strict=True)
        if isinstance(dimension, str)
    }
    results = {}
    for spec in outputs:
        shape = tuple(sizes.get(size, -1) if isinstance(size, str) else size for size in spec.shape)
        if -1 in shape or 0 not in shape:
            raise InputError(
                f"the inputs are empty, and the shape of output {spec} does not follow from them",
                code="output-size-unknown",
                hint="pass at least one image",
            )
        results[spec.name] = np.zeros(shape, spec.dtype)
    return results
