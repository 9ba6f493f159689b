"""DLPack, the protocol by which libraries share tensors in device memory without a copy.

The layouts follow https://dmlc.github.io/dlpack/latest/c_api.html. A capsule holds a ``DLManagedTensor`` or a
``DLManagedTensorVersioned``. This module only reads capsules and never renames them: the capsule therefore keeps its
tensor and releases it when Python deletes the capsule.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Protocol

import numpy as np

from runtimes.errors import BackendUnavailableError, InputError, quote
from runtimes.frozen_dataclass import dataclass
from runtimes.tensors.spec import Array

CUDA = 2
"""DLPack's number for CUDA devices."""


class SupportsDLPack(Protocol):
    """A tensor that supports DLPack, as those of PyTorch, CuPy, JAX and other libraries."""

    def __dlpack__(self, *, stream: int | None = None) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class DeviceTensor:
    """A C-ordered tensor in the memory of a CUDA device.

    Attributes:
        source: The tensor object of the other library, which owns the memory. This reference keeps it alive.
        pointer: The address of the first element in device memory.
        shape: The size of each dimension.
        dtype: The dtype by NumPy's name, or ``bfloat16``.
        device: The number of the CUDA device.
    """

    source: SupportsDLPack
    pointer: int
    shape: tuple[int, ...]
    dtype: str
    device: int

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)


def is_on_device(value: object) -> bool:
    """Return whether a value is a tensor in the memory of a CUDA device. The check is fast for NumPy arrays."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return False
    try:
        return int(value.__dlpack_device__()[0]) == CUDA
    except Exception:  # raised by the other library, for example for a device that DLPack does not know
        return False


def device_tensor(value: SupportsDLPack, stream: int | None = None) -> DeviceTensor:
    """Return the address, shape and dtype of a tensor on a CUDA device.

    Nothing is copied. The tensor may still be in computation: ``stream`` waits for it, and ``wait_for_producer`` makes
    another stream wait for it.

    Args:
        value: The tensor.
        stream: The handle of a stream that is to wait for the tensor, or ``None``.

    Raises:
        InputError: The tensor's library does not share it, the tensor is not on a CUDA device or not C-ordered, or its
            elements are of an unsupported type.
    """
    return parse_capsule(_capsule(value, _DEFAULT_STREAM if stream is None else stream), value)


def wait_for_producer(tensor: DeviceTensor, stream: int) -> None:
    """Make a stream wait for the work that the tensor's library queued for it. The call itself does not block.

    Args:
        tensor: The tensor.
        stream: The handle of the CUDA stream.

    Raises:
        InputError: The tensor's library does not share it with this stream.
    """
    _capsule(tensor.source, stream)


_DEFAULT_STREAM = 1
"""DLPack's number for the default stream. The number -1, for no synchronisation, is not used: JAX takes it for the
address of a stream."""


def _capsule(value: SupportsDLPack, stream: int) -> object:
    from runtimes.tensors import cuda  # not for apps without a GPU

    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(BackendUnavailableError):  # without cuda-bindings, the caller's GPU stays current
                stack.enter_context(cuda.current(value.__dlpack_device__()[1]))  # PyTorch shares no tensors of others
            return value.__dlpack__(stream=stream)
    except Exception as error:  # the other library may raise anything
        raise InputError(
            f"the library of the tensor does not share it by DLPack: {quote(error)}",
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
"""The major version of ``DLManagedTensorVersioned`` that this module reads. Other versions have other layouts."""

_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


def parse_capsule(capsule: object, source: SupportsDLPack, device_type: int = CUDA) -> DeviceTensor:
    """Return the address, shape and dtype of the tensor in a capsule.

    Args:
        capsule: The DLPack capsule. It is read, not consumed.
        source: The tensor object that the capsule came from.
        device_type: The DLPack number of the expected kind of device.

    Raises:
        InputError: As for ``device_tensor``.
    """
    tensor = _read_capsule(capsule)
    if tensor.device_type != device_type:
        raise InputError(
            f"the tensor is on a device of DLPack type {tensor.device_type}, not on a CUDA device",
            code="dlpack-device-unsupported",
        )
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.strides and not _is_contiguous(shape, tuple(tensor.strides[axis] for axis in range(tensor.ndim))):
        raise InputError(
            f"the tensor of shape {shape} is not C-ordered in memory",
            code="dlpack-not-contiguous",
            hint="pass tensor.contiguous()",
        )
    return DeviceTensor(source, (tensor.data or 0) + tensor.byte_offset, shape, _dtype(tensor), tensor.device_id)


def device_capsule(address: Array, device: int, versioned: bool) -> object:
    """Return a DLPack capsule of a tensor on a CUDA device.

    NumPy makes the capsule and frees it in C, so that its reader may delete it in any thread, and also while Python
    ends.

    Args:
        address: An array over the device memory. The capsule keeps it alive.
        device: The number of the CUDA device.
        versioned: Whether the reader knows ``DLManagedTensorVersioned``. NumPy before 2.1 makes the older structure,
            which every reader knows.
    """
    capsule = address.__dlpack__(max_version=(_MAJOR, 0)) if versioned and _HAS_VERSIONS else address.__dlpack__()
    tensor = _read_capsule(capsule)
    tensor.device_type, tensor.device_id = CUDA, device
    return capsule


_HAS_VERSIONS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def _read_capsule(capsule: object) -> _Tensor:
    for name, layout in _LAYOUTS.items():
        if _IS_VALID(capsule, name):
            held = layout.from_address(_GET_POINTER(capsule, name))
            if layout is _Versioned and held.major != _MAJOR:
                raise InputError(
                    f"the tensor is shared by DLPack {held.major}.{held.minor}; only version {_MAJOR} is supported",
                    code="dlpack-version-unsupported",
                )
            tensor: _Tensor = held.tensor
            return tensor
    raise InputError(
        f"{type(capsule).__name__} is not a DLPack capsule, or its tensor was already taken", code="dlpack-capsule-used"
    )


_IS_VALID = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_GET_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return whether the strides are C-ordered. The stride of a dimension of size 1 does not matter."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True


def _dtype(tensor: _Tensor) -> str:
    """Return NumPy's name of the dtype, or ``bfloat16``, which NumPy does not have."""
    kind = _KINDS.get(tensor.code)
    if kind is None or tensor.lanes != 1:
        raise InputError(
            f"the elements of the tensor are of DLPack type {tensor.code} with {tensor.lanes} lanes, which is not "
            "supported",
            code="dlpack-type-unsupported",
        )
    return "bool" if kind == "bool" else f"{kind}{tensor.bits}"
