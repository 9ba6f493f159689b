"""The datatypes of the Open Inference Protocol, and tensors of bytes or numbers as arrays.

No array is made before the size of what is there is compared with the shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.errors import InputError, quote
from runtimes.tensors.spec import Array

DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
"""NumPy's name of each datatype that can be sent."""

DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()} | {"bfloat16": "BF16"}
"""The protocol's name of each dtype."""

MAX_RANK = 8
"""The number of dimensions of a tensor, at most."""

MAX_ELEMENTS = 1 << 40
"""The product of the other sizes of an empty tensor, at most. NumPy refuses much larger shapes, even empty ones."""

_TYPES: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}}
"""The types that the numbers of a JSON tensor may have, by the kind of the dtype."""


def dtype_of(datatype: object, name: str) -> np.dtype[Any]:
    """Return the dtype of a datatype.

    Args:
        datatype: The datatype, as the client sent it.
        name: The name of the tensor.

    Raises:
        InputError: The datatype is unknown, or has elements of different size (BYTES).
    """
    dtype = DTYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise InputError(
            f"input {quote(name)}: the datatype {quote(datatype)!r} is not one of {', '.join(DTYPES)}",
            code="datatype-unknown",
        )
    return np.dtype(dtype)


def check_shape(shape: object, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor, as the client sent it.

    Args:
        shape: The shape.
        name: The name of the tensor.

    Raises:
        InputError: The shape is no list of a few sizes of at least 0.
    """
    sizes = shape if isinstance(shape, Sequence) and not isinstance(shape, (str, bytes)) else [None]
    known = len(sizes) <= MAX_RANK and all(type(size) is int and 0 <= size < 1 << 31 for size in sizes)
    if not known or (0 in sizes and math.prod(size or 1 for size in sizes) > MAX_ELEMENTS):
        raise InputError(
            f"input {quote(name)}: the shape {quote(shape)} is too large, or not a list of up to {MAX_RANK} sizes",
            code="tensor-shape-invalid",
        )
    return tuple(sizes)


def from_bytes(content: memoryview | bytes, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Array:
    """Return an array of the bytes of a tensor, little-endian and C-ordered.

    Args:
        content: The bytes.
        dtype: The dtype.
        shape: The shape.
        name: The name of the tensor.

    Returns:
        An array that is aligned, and otherwise shares the memory of ``content``.

    Raises:
        InputError: The number of bytes differs from that of the shape.
    """
    expected = math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise InputError(
            f"input {quote(name)}: the shape {list(shape)} has {expected:,} bytes, but {len(content):,} came",
            code="tensor-size-mismatch",
        )
    array = np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)
    return np.require(array, dtype, "A")


def from_numbers(data: object, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Array:
    """Return an array of the numbers of a tensor in JSON: nested lists, or one list in C order.

    Args:
        data: The numbers.
        dtype: The dtype.
        shape: The shape.
        name: The name of the tensor.

    Raises:
        InputError: The numbers do not have the shape or the type, or are out of the range of the dtype.
    """
    numbers = _flatten(data, shape)
    if numbers is None or len(numbers) != math.prod(shape):
        raise InputError(
            f"input {quote(name)}: the data is not a list of numbers of the shape {list(shape)}",
            code="tensor-data-shape",
        )
    types: set[type] = set(map(type, numbers))
    if not types <= _TYPES[dtype.kind]:
        raise InputError(f"input {quote(name)}: the data holds other than numbers of {dtype}", code="tensor-data-type")
    try:
        if dtype.kind != "f":
            return np.array(numbers, dtype).reshape(shape)
        with np.errstate(over="raise"):
            return np.array(numbers, np.float64).astype(dtype).reshape(shape)
    except (OverflowError, FloatingPointError) as error:
        raise InputError(
            f"input {quote(name)}: a number of the data is out of the range of {dtype}", code="tensor-data-range"
        ) from error


def _flatten(data: object, shape: tuple[int, ...]) -> list[Any] | None:
    """Return the numbers of nested lists of this shape, or of a flat list as it is. ``None``: neither of both."""
    if not isinstance(data, list):
        return [data] if not shape else None
    if not data or not isinstance(data[0], list):
        return data
    level = data
    for size, inner in itertools.pairwise(shape):
        if level is data and len(level) != size:
            return None
        if not all(isinstance(item, list) and len(item) == inner for item in level):
            return None
        level = [number for item in level for number in item]
    return level
