"""Outputs of ONNX Runtime that callers keep on the device: copies of those that the next run overwrites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from runtimes.tensors import cuda_objects
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.output_memory import OutputBlock, OutputMemory, QueuedRun, mark_end
from runtimes.tensors.spec import TensorSpec

if TYPE_CHECKING:
    import onnxruntime


class OutputWriter:
    """Queues copies of the outputs of one call, which may consist of several runs.

    Args:
        outputs: The specifications of the outputs.
        images: The number of images of the call.
        memory: The memory of the session's outputs.
        run_stream: The stream of the session.
        stream: The handle of the caller's stream, or ``None``.
    """

    def __init__(
        self,
        outputs: tuple[TensorSpec, ...],
        images: int,
        memory: OutputMemory,
        run_stream: cuda_objects.Stream,
        stream: int | None,
    ) -> None:
        self._outputs = outputs
        self._images = images
        self._memory = memory
        self._run_stream = run_stream
        self._stream = stream
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._blocks: dict[str, OutputBlock] = {}

    def write(self, values: Mapping[str, onnxruntime.OrtValue], start: int, stop: int) -> None:
        """Queue copies of ``values``, the outputs of a run on the images from ``start`` to ``stop``."""
        for spec in self._outputs:
            value = values[spec.name]
            shape, size = tuple(value.shape()), value.tensor_size_in_bytes()
            whole = (start, stop) == (0, self._images)
            row = 0 if whole else size // (stop - start)
            if spec.name not in self._blocks:
                self._shapes[spec.name] = shape if whole else (self._images, *shape[1:])
                total = int(np.prod(self._shapes[spec.name], dtype=np.int64)) * np.dtype(spec.dtype).itemsize
                self._blocks[spec.name] = self._memory.take(total, self._stream, self._run_stream)
            target = self._blocks[spec.name].buffer.pointer + start * row
            self._run_stream.within_device(target, value.data_ptr(), size)

    def share(self, device: int) -> dict[str, DeviceOutput]:
        """Queue the end of the call and return the outputs by name."""
        run = QueuedRun(device, (mark_end(self._run_stream, self._stream),), self._stream)
        return {
            spec.name: self._memory.share(spec, self._shapes[spec.name], self._blocks[spec.name], run)
            for spec in self._outputs
        }
