"""Outputs of PyTorch programs that stay on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from runtimes.backends.pytorch.session import translate_error
from runtimes.tensors import cuda
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.spec import Array, TensorSpec
from runtimes.tensors.stream_handle import LEGACY_DEFAULT


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate PyTorch's errors in the ``with`` block to those of ``runtimes.errors``."""
    try:
        yield
    except RuntimeError as error:  # including torch.OutOfMemoryError
        raise translate_error(error) from error


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make a device current in the ``with`` block, in which the thread is also ``cuda.apart_from_recordings``."""
    with torch.cuda.device(device), cuda.apart_from_recordings():
        yield


def caller_stream(handle: int | None, device: torch.device) -> Any:
    """Return the stream with this ``handle`` on ``device``, or without one the current stream of the calling thread."""
    if handle is None:
        return torch.cuda.current_stream(device)
    return _stream(handle, device)


def _stream(handle: int, device: torch.device) -> Any:
    if handle == LEGACY_DEFAULT:
        return torch.cuda.default_stream(device)
    return torch.cuda.ExternalStream(handle, device=device)  # type: ignore[no-untyped-call]


class TorchOutput:
    """A tensor on the device and the run that writes it, as ``OutputOwner``.

    PyTorch uses the memory of the tensor again in the order of the caller's stream, where it was allocated, and after
    the work on the streams that readers named.

    Args:
        tensor: The tensor, C-ordered.
        finished: An event that the device reaches when the run has finished.
        stream: The caller's stream, which waits for the run already.
    """

    def __init__(self, tensor: Tensor, finished: torch.cuda.Event, stream: Any) -> None:
        self._tensor = tensor
        self._finished = finished
        self._stream = stream

    def delay(self, stream: int) -> None:
        """Make a stream wait for the run, as ``OutputOwner.delay``."""
        if stream <= 0 or stream == (self._stream.cuda_stream or LEGACY_DEFAULT):
            return
        with translate_errors(), on_device(self._tensor.device):
            reader = _stream(stream, self._tensor.device)
            reader.wait_event(self._finished)
            self._tensor.record_stream(reader)

    def synchronize(self) -> None:
        """Block until the run has finished."""
        with translate_errors(), on_device(self._tensor.device):
            self._finished.synchronize()

    def copy_to(self, target: Array) -> None:
        """Copy the output to a host array, as ``OutputOwner.copy_to``."""
        self.synchronize()
        with translate_errors(), torch.inference_mode():
            torch.from_numpy(target).copy_(self._tensor)


def share(spec: TensorSpec, tensor: Tensor, device: int, finished: torch.cuda.Event, stream: Any) -> DeviceOutput:
    """Return a ``tensor`` on ``device`` as output ``spec``; ``finished`` and ``stream`` as for ``TorchOutput``."""
    owner = TorchOutput(tensor, finished, stream)
    return DeviceOutput(tensor.data_ptr(), tuple(tensor.shape), spec.dtype, device, owner)
