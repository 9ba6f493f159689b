"""Feeds against specs: names, dtypes, shapes. Done here once, so that every backend gives the same verdict."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import numpy as np

from runtimes.errors import InputError, IntegrityError, quote
from runtimes.protocol import Array, Arrays, TensorSpec
from runtimes.tensors.dlpack import DeviceTensor, device_tensor, is_on_device


def check_feeds(specs: tuple[TensorSpec, ...], feeds: Mapping[str, object]) -> Arrays:
    """The feeds as C-ordered arrays of the specs' dtypes, in the specs' order; the caller's arrays are untouched.

    An array that is C-ordered already is passed through, not copied. A list of numbers is taken as the spec's dtype,
    but not fractions as whole numbers; an array of another dtype is refused, alone and in a list, since a cast would
    hide a missing normalisation, or one too many.

    Raises:
        InputError: an unknown or missing name, a wrong dtype, byte order, rank or size.
    """
    _check_names(specs, feeds)
    sizes: dict[str, int] = {}
    return {spec.name: _check_array(spec, feeds[spec.name], sizes) for spec in specs}


def plainly_right(specs: tuple[TensorSpec, ...]) -> Callable[[object], TypeGuard[Arrays]]:
    """A test of feeds that are as ``check_feeds`` would give them, and not empty: a dict with the one array of the one
    input. It costs a fraction of that, which is to be seen beside a small network. Of others it says nothing."""
    if len(specs) != 1 or not specs[0].shape or any(isinstance(size, str) for size in specs[0].shape[1:]):
        return _says_nothing
    (spec,) = specs
    name, dtype, rank, (first, *rest) = spec.name, _dtype(spec.dtype), len(spec.shape), spec.shape
    each, sizes = tuple(rest), () if isinstance(first, str) else (first,)

    def passes(feeds: object) -> TypeGuard[Arrays]:
        if type(feeds) is not dict or len(feeds) != 1:
            return False
        value = feeds.get(name)
        return (
            type(value) is np.ndarray
            and value.dtype == dtype
            and value.ndim == rank
            and value.shape[1:] == each
            and (not sizes or value.shape[0] in sizes)
            and value.size > 0
            and value.flags.c_contiguous
        )

    return passes


def _says_nothing(_: object) -> TypeGuard[Arrays]:
    return False


def on_device(feeds: Mapping[str, object]) -> bool:
    """Whether there is a tensor among them that lies on a CUDA device."""
    return isinstance(feeds, Mapping) and True in [is_on_device(value) for value in feeds.values()]


def check_tensors(specs: tuple[TensorSpec, ...], feeds: Mapping[str, object]) -> dict[str, DeviceTensor]:
    """As ``check_feeds`` for tensors on a CUDA device, which stay where they are: all of them, or none.

    Raises:
        InputError: as ``check_feeds``; or one is not on a CUDA device, or not C-ordered.
    """
    _check_names(specs, feeds)
    sizes: dict[str, int] = {}
    return {spec.name: _check_tensor(spec, feeds[spec.name], sizes) for spec in specs}


def _check_tensor(spec: TensorSpec, value: Any, sizes: dict[str, int]) -> DeviceTensor:
    if not is_on_device(value):
        raise InputError(
            f"{spec}: {type(value).__name__} is not on a CUDA device, as another input is",
            code="feeds-mixed-devices",
            hint="pass all of them as tensors of one device, or all as NumPy arrays",
        )
    try:
        tensor = device_tensor(value)
    except InputError as error:
        raise InputError(f"{spec}: {error.what}", code=error.code, hint=error.hint) from error
    if tensor.dtype != spec.dtype:
        raise InputError(f"{spec}: got dtype {tensor.dtype}", code="input-dtype-mismatch")
    _check_shape(spec, tensor, sizes)
    return tensor


def _check_names(specs: tuple[TensorSpec, ...], feeds: Mapping[str, object]) -> None:
    if not isinstance(feeds, Mapping):
        raise InputError(
            f"feeds must map input names to arrays, not be {type(feeds).__name__}",
            code="feeds-not-mapping",
            hint=f"pass {{{specs[0].name!r}: array}}" if specs else None,
        )
    if len(feeds) != len(specs) or [spec.name for spec in specs if spec.name not in feeds]:
        names = [spec.name for spec in specs]
        got = ", ".join(repr(quote(name)) for name in feeds) or "nothing"
        raise InputError(f"the inputs are {', '.join(map(repr, names))}; got {got}", code="input-names-mismatch")


def _check_array(spec: TensorSpec, value: object, sizes: dict[str, int]) -> Array:
    if isinstance(value, (list, tuple)):
        value = _from_list(spec, value)
    if not isinstance(value, np.ndarray):
        hint = "pass tensor.cpu().numpy()" if is_on_device(value) else None
        raise InputError(
            f"{spec}: expected a NumPy array, got {type(value).__name__}", code="input-not-array", hint=hint
        )
    wanted = _dtype(spec.dtype)
    if value.dtype != wanted:
        raise InputError(
            f"{spec}: got dtype {value.dtype.str if value.dtype.newbyteorder() == wanted else quote(value.dtype)}",
            code="input-dtype-mismatch",
            hint=_dtype_hint(spec, value.dtype),
        )
    _check_shape(spec, value, sizes)
    return value if value.flags.c_contiguous else np.ascontiguousarray(value)


@functools.cache
def _dtype(name: str) -> np.dtype[np.generic]:
    """NumPy's own, which is dear to look up by its name for each call of a model."""
    return np.dtype(name)


def _from_list(spec: TensorSpec, value: list[object] | tuple[object, ...]) -> Array:
    wanted = np.dtype(spec.dtype)
    try:
        found: Array = np.asarray(value)
        fractions = found.dtype.kind == "f" and wanted.kind in "iu"
        pixels = found.dtype == np.uint8  # arrays: plain numbers never become this dtype
        return found if found.size and (fractions or pixels) else np.asarray(value, dtype=wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{spec}: the list is not an array of numbers: {quote(error)}", code="input-list-invalid"
        ) from error


def _dtype_hint(spec: TensorSpec, got: np.dtype[np.generic]) -> str:
    wanted = np.dtype(spec.dtype)
    if got == np.uint8 and wanted.kind == "f":
        return "raw pixels must be normalised first: runtimes.Classifier does it as the manifest says"
    if got.kind == "f" and wanted == np.uint8 and len(spec.shape) == 4:
        return "this artifact takes raw pixels, 0 to 255, and normalises them itself: pass them as they were decoded"
    return f"pass array.astype(numpy.{wanted.name})"


def _check_shape(spec: TensorSpec, value: Array | DeviceTensor, sizes: dict[str, int]) -> None:
    if value.ndim != len(spec.shape):
        hint = "one image needs a batch axis: pass array[None]" if value.ndim == len(spec.shape) - 1 else None
        raise InputError(
            f"{spec}: got {value.ndim} dimensions, shape {value.shape}", code="input-rank-mismatch", hint=hint
        )
    for size, wanted in zip(value.shape, spec.shape, strict=True):
        if size != wanted and (not isinstance(wanted, str) or size != sizes.setdefault(wanted, size)):
            raise InputError(
                f"{spec}: got shape {value.shape}", code="input-shape-mismatch", hint=_shape_hint(spec, value)
            )


def _shape_hint(spec: TensorSpec, value: Array | DeviceTensor) -> str | None:
    for order, words in (((0, 3, 1, 2), "channels last"), ((0, 2, 3, 1), "channels first")):
        if value.ndim == 4 and _fits(spec, tuple(value.shape[axis] for axis in order)):
            return f"it looks like {words}: pass array.transpose{order}"
    first = spec.shape[0]
    if isinstance(first, int) and value.ndim == len(spec.shape) and _fits(spec, (first, *value.shape[1:])):
        return f"the model was exported for batches of {first}: export it with --batch dynamic"
    return None


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return all(isinstance(wanted, str) or wanted == size for wanted, size in zip(spec.shape, shape, strict=True))


def reconcile_specs(stated: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The manifest's specs, which name the dimensions that may vary, when the model's own do not contradict them.

    Raises:
        IntegrityError: they do.
    """
    same = len(stated) == len(found) and all(
        (one.name, one.dtype, len(one.shape)) == (other.name, other.dtype, len(other.shape))
        and all(isinstance(b, str) or a == b for a, b in zip(one.shape, other.shape, strict=True))
        for one, other in zip(stated, found, strict=True)
    )
    if not same:
        raise IntegrityError(
            f"its manifest says {'; '.join(map(str, stated))}, the model has {quote('; '.join(map(str, found)))}",
            code="manifest-specs-mismatch",
            hint="export it again",
        )
    return stated


def empty_outputs(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], arrays: Mapping[str, Array | DeviceTensor]
) -> Arrays | None:
    """What a batch of no images gives, which no library need be asked for; ``None`` if there are images.

    Raises:
        InputError: another dimension than a named one is empty, or an output's size does not follow from the inputs.
    """
    if not [array for array in arrays.values() if 0 in array.shape]:
        return None
    sizes = {
        wanted: size
        for spec in inputs
        for wanted, size in zip(spec.shape, arrays[spec.name].shape, strict=True)
        if isinstance(wanted, str)
    }
    results = {}
    for spec in outputs:
        shape = tuple(sizes.get(wanted, -1) if isinstance(wanted, str) else wanted for wanted in spec.shape)
        if -1 in shape or 0 not in shape:
            raise InputError(
                f"empty arrays were passed, and {spec} does not follow from them", code="output-size-unknown"
            )
        results[spec.name] = np.zeros(shape, spec.dtype)
    return results
