"""Tensors that lie on a device already, taken where they lie: DLPack, the interchange protocol of the array API.

https://dmlc.github.io/dlpack/latest/c_api.html: a capsule holds a ``DLManagedTensor``, or, behind a version and flags,
the same tensor. A capsule that nobody renames stays its maker's, and frees what it holds when it goes.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from runtimes.errors import InputError, quote

CUDA = 2
"""DLPack's number for CUDA devices."""


class SupportsDLPack(Protocol):
    """What PyTorch, CuPy, JAX and others give their tensors: the array API's interchange protocol."""

    def __dlpack__(self, *, stream: int | None = None) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class DeviceTensor:
    """A C-ordered tensor in the memory of a CUDA device. ``source`` owns it and is kept alive."""

    source: SupportsDLPack
    pointer: int
    shape: tuple[int, ...]
    dtype: str
    device: int

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)


def is_on_device(value: object) -> bool:
    """Whether it is a tensor in the memory of a CUDA device. Never for a NumPy array, which is told at once."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return False
    try:
        return int(value.__dlpack_device__()[0]) == CUDA
    except Exception:  # another library's: a tensor that has no device, or one that the protocol does not know
        return False


def device_tensor(value: SupportsDLPack) -> DeviceTensor:
    """Where the tensor lies, and what it is. Nothing is copied and nothing is waited for: see ``wait_for_producer``.

    Raises:
        InputError: its library does not give it away, it is not on a CUDA device or not C-ordered, or its elements are
            of a type that no runtime here takes.
    """
    return parse_capsule(_capsule(value, _UNORDERED), value)


def wait_for_producer(tensor: DeviceTensor, stream: int) -> None:
    """Has the stream of that handle wait for what the tensor's owner has queued for it.

    Raises:
        InputError: its library does not do that.
    """
    _capsule(tensor.source, stream)


_UNORDERED = 1
"""The default stream by the protocol's number, which the tensor's library makes wait at most. -1, which stands for no
order at all, is taken for a stream's address by JAX."""


def _capsule(value: SupportsDLPack, stream: int) -> object:
    try:
        return value.__dlpack__(stream=stream)
    except Exception as error:  # whatever its library raises
        raise InputError(
            f"the tensor's library does not hand it over: {quote(error)}",
            code="dlpack-refused",
            hint="pass tensor.detach().contiguous()",
        ) from error


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_LAYOUTS: dict[bytes, Any] = {b"dltensor": _Managed, b"dltensor_versioned": _Versioned}
_MAJOR = 1
"""Of the layout with a version; another one is another layout."""

_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


def parse_capsule(capsule: object, source: SupportsDLPack, device_type: int = CUDA) -> DeviceTensor:
    """What a capsule says of the tensor in it, which must lie on a device of that type.

    Raises:
        InputError: as ``device_tensor``.
    """
    found = _read_capsule(capsule)
    if found.device_type != device_type:
        raise InputError(
            f"the tensor is on a device of DLPack's type {found.device_type}, not on a CUDA device",
            code="dlpack-device-unsupported",
        )
    shape = tuple(found.shape[axis] for axis in range(found.ndim))
    if found.strides and not _is_contiguous(shape, tuple(found.strides[axis] for axis in range(found.ndim))):
        raise InputError(
            f"the tensor of shape {shape} is not C-ordered in its memory",
            code="dlpack-not-contiguous",
            hint="pass tensor.contiguous()",
        )
    return DeviceTensor(source, (found.data or 0) + found.byte_offset, shape, _dtype(found), found.device_id)


def _read_capsule(capsule: object) -> _Tensor:
    for name, layout in _LAYOUTS.items():
        if _IS_VALID(capsule, name):
            held = layout.from_address(_GET_POINTER(capsule, name))
            if layout is _Versioned and held.major != _MAJOR:
                raise InputError(
                    f"the tensor comes by DLPack {held.major}.{held.minor}; {_MAJOR} is read here",
                    code="dlpack-version-unsupported",
                )
            tensor: _Tensor = held.tensor
            return tensor
    raise InputError(f"{type(capsule).__name__} is no unused DLPack capsule", code="dlpack-capsule-used")


_IS_VALID = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_GET_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether it is C-ordered; how far apart the elements of a dimension of size 1 lie says nothing."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True


def _dtype(found: _Tensor) -> str:
    """NumPy's name, or ``bfloat16``, which NumPy has not."""
    kind = _KINDS.get(found.code)
    if kind is None or found.lanes != 1:
        raise InputError(
            f"the tensor's elements are of DLPack's type {found.code} with {found.lanes} lanes",
            code="dlpack-type-unsupported",
        )
    return "bool" if kind == "bool" else f"{kind}{found.bits}"
