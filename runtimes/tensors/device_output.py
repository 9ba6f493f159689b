"""Outputs that stay in the memory of a CUDA device, for other libraries that read them there by DLPack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from runtimes.frozen_dataclass import dataclass
from runtimes.tensors.dlpack import CUDA, device_capsule
from runtimes.tensors.spec import Array, Arrays
from runtimes.tensors.stream_handle import LEGACY_DEFAULT


class OutputOwner(Protocol):
    """The memory of one output, and the run that writes it. The memory is free when the last reference is gone."""

    def delay(self, stream: int) -> None:
        """Make a stream wait for the run, and keep the memory for the work that is queued on the stream.

        The call does not block.

        Args:
            stream: The handle of the stream, or ``UNKNOWN_STREAM`` if the reader's stream is not known. Nothing is
                made to wait then, but the memory is kept for work on any stream.
        """

    def synchronize(self) -> None:
        """Block until the run has finished."""

    def copy_to(self, target: Array) -> None:
        """Copy the output to a C-ordered host array of its dtype and shape, after the run has finished."""


UNKNOWN_STREAM = -1
"""DLPack's number for a reader that does its own synchronisation."""


@dataclass(frozen=True, eq=False)
class DeviceOutput:
    """An output in the memory of a CUDA device.

    Libraries read it without a copy, for example by ``torch.from_dlpack`` or ``cupy.from_dlpack``. The output may be an
    input of another runtime. ``numpy.asarray`` waits for the run and copies the output to the host.

    The memory belongs to this object and to all tensors made from it, and stays valid while one of them exists, also
    after the runtime is closed. When the last one is gone, a later call of the runtime may use the memory again. This
    call waits for the work that was queued on the stream of the run, on the default stream, and on the streams that
    readers named by DLPack.

    Attributes:
        pointer: The address of the first element in device memory.
        shape: The size of each dimension. The elements are C-ordered.
        dtype: The dtype by NumPy's name.
        device: The number of the CUDA device.
        owner: The memory and the run that writes it.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    device: int
    owner: OutputOwner

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's number for CUDA and the number of the device."""
        return CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Return a DLPack capsule of the output, and make ``stream`` wait for the run. The call does not block.

        Args:
            stream: The handle of the reader's stream. ``None`` is the default stream, and -1 makes no stream wait.
            max_version: The newest version of DLPack that the reader knows.
            dl_device: The device on which the reader wants the tensor: only the output's own.
            copy: Whether the reader wants a copy: only ``None`` and ``False``.

        Raises:
            BufferError: The reader wants a copy or another device.
        """
        if copy:
            raise BufferError("a DeviceOutput is shared without a copy; copy the tensor that is made from it")
        if dl_device is not None and (int(dl_device[0]), int(dl_device[1])) != self.__dlpack_device__():
            raise BufferError(f"the output is on CUDA device {self.device}; numpy.asarray copies it to the host")
        self.owner.delay(LEGACY_DEFAULT if stream is None else stream or LEGACY_DEFAULT)
        return device_capsule(self._address(), self.device, versioned=max_version is not None and max_version[0] >= 1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return a fresh host array, after the run has finished.

        Raises:
            ValueError: ``copy`` is false: the values can be had only as a copy.
        """
        if copy is False:
            raise ValueError("the output is in device memory and must be copied to the host")
        array: Array = np.empty(self.shape, self.dtype)
        if array.size:
            self.owner.copy_to(array)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __len__(self) -> int:
        """Return the size of the first dimension."""
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def synchronize(self) -> None:
        """Block until the run has finished."""
        self.owner.synchronize()

    def _address(self) -> Array:
        """Return an array of NumPy over the device memory, which must not be read: it only makes capsules.

        NumPy's capsules keep the array alive, and with it the owner, until the reader deletes its tensor.
        """
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.asarray(_Address(self))


class _Address:
    """Device memory, as NumPy's array interface. It keeps the owner of the memory alive."""

    def __init__(self, output: DeviceOutput) -> None:
        self._owner = output.owner
        self.__array_interface__ = {
            "version": 3,
            "shape": output.shape,
            "typestr": np.dtype(output.dtype).str,
            "data": (output.pointer, False),
        }


class _NoRun:
    """The owner of an output without elements."""

    def delay(self, stream: int) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""

    def copy_to(self, target: Array) -> None:
        """Do nothing."""


def empty_device_outputs(arrays: Arrays, device: int) -> dict[str, DeviceOutput]:
    """Return outputs without elements on a device, of the dtypes and shapes of ``arrays``."""
    return {name: DeviceOutput(0, array.shape, array.dtype.name, device, _NoRun()) for name, array in arrays.items()}


def copy_outputs_to_host(outputs: Mapping[str, DeviceOutput]) -> Arrays:
    """Return the outputs as fresh host arrays by name, after the run has finished."""
    return {name: np.asarray(output) for name, output in outputs.items()}
