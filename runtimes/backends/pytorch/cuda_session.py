"""Sessions of PyTorch programs on a CUDA device. Several threads may run at once, each on its own stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.outputs import caller_stream, share, translate_errors
from runtimes.backends.pytorch.session import TorchSession
from runtimes.backends.pytorch.streams import Lanes, NotRecordedError, Pool, Recording, TorchLane
from runtimes.backends.pytorch.tf32 import LAUNCH_LOCK, set_float32_precision
from runtimes.errors import InputError
from runtimes.protocol import Description
from runtimes.tensors.capture import capture_lock, warn_unrecorded
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.dlpack import DeviceTensor, wait_for_producer
from runtimes.tensors.spec import Array, Arrays

if TYPE_CHECKING:
    from runtimes.backends.pytorch.session import Call, Outputs

LANES = 4
"""The largest number of calls that run at once. More calls would only wait for the device."""


def device_of(index: int) -> torch.device:
    """Return the CUDA device with this number."""
    return torch.device("cuda", index)


class CudaTorchSession(TorchSession):
    """A PyTorch program on a CUDA device, as ``DeviceSession``.

    Args:
        call: Runs the program on a tensor.
        artifact: The artifact of the program.
        description: The description of what runs.
        is_recorded: Returns whether runs of this batch size are recorded once and replayed, instead of launching
            their kernels one by one.
        device_index: The number of the GPU, which has the program.
    """

    def __init__(
        self,
        call: Call,
        artifact: Artifact,
        description: Description,
        is_recorded: Callable[[int], bool] = lambda _: False,
        device_index: int = 0,
    ) -> None:
        super().__init__(call, artifact, description)
        self._tf32 = artifact.allows_tf32
        self._is_recorded = is_recorded
        self._device = device_of(device_index)
        self._lanes = Lanes(LANES)
        self._bound_lane = Lanes(1)

    def run(self, arrays: Arrays) -> Arrays:
        """Run the program, as ``Session.run``."""
        with translate_errors(), torch.cuda.device(self._device), self._lanes.borrow() as lane:
            staged = lane.stage(arrays[self.inputs[0].name])
            with lane.current():
                return self._fetch_outputs(lane, self._launch(lane, staged))

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        """Run the program on a device tensor, as ``DeviceSession.run_tensors``.

        Raises:
            InputError: The tensor is on another GPU than the program.
        """
        tensor = self._check_device(tensors)
        with translate_errors(), torch.cuda.device(self._device), self._lanes.borrow() as lane:
            # Before the lane becomes current: PyTorch synchronises only with the current stream of the caller.
            wait_for_producer(tensor, lane.stream.cuda_stream)
            with lane.current():
                return self._fetch_outputs(lane, self._launch(lane, from_dlpack(tensor.source)))

    def _check_device(self, tensors: Mapping[str, DeviceTensor]) -> DeviceTensor:
        tensor = tensors[self.inputs[0].name]
        if tensor.device != (self._device.index or 0):
            raise InputError(
                f"the tensor is on cuda:{tensor.device}, but the runtime was opened on {self._device}",
                code="program-on-other-gpu",
                hint=f"pass tensor.to('{self._device}')",
            )
        return tensor

    def queue(self, feeds: Arrays | Mapping[str, DeviceTensor], stream: int | None) -> dict[str, DeviceOutput]:
        """Queue a run of the program, as ``DeviceSession.queue``.

        Raises:
            InputError: The tensor is on another GPU than the program.
        """
        value = feeds[self.inputs[0].name]
        if isinstance(value, DeviceTensor):
            self._check_device({self.inputs[0].name: value})
        with translate_errors(), torch.cuda.device(self._device), self._lanes.borrow() as lane:
            home = caller_stream(stream, self._device)
            if isinstance(value, DeviceTensor):
                if stream is None:
                    wait_for_producer(value, lane.stream.cuda_stream)
                staged = from_dlpack(value.source)
            else:
                staged = lane.stage(value)
            lane.stream.wait_stream(home)
            with lane.current():
                computed = self._launch(lane, staged)
                outputs = {name: _copy_for(home, output) for name, output in self._by_name(computed)}
                finished = torch.cuda.Event()  # type: ignore[no-untyped-call]
                finished.record(lane.stream)
            home.wait_event(finished)
            lane.has_queued_work = True
        device = self._device.index or 0
        return {spec.name: share(spec, outputs[spec.name], device, finished, home) for spec in self.outputs}

    def empty_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array in page-locked memory, as ``DeviceSession.empty_array``."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        with translate_errors(), torch.cuda.device(self._device):
            array: Array = torch.empty(shape, dtype=kind, pin_memory=True).numpy()
        return array

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the program on the arrays, as ``Session.bind``."""
        lanes, launch = self._bound_lane, self._prepare(arrays)

        def run_once() -> None:
            with translate_errors(), torch.cuda.device(self._device), lanes.borrow() as lane, lane.current():
                launch()
                lane.stream.synchronize()

        return run_once

    def bind_timed(self, arrays: Arrays) -> Callable[[], float]:
        """Return a function that runs the program and returns the device time, as ``DeviceSession.bind_timed``.

        Without a recording, Python launches kernels one by one, and the device may be idle between them. The idle time
        is included.
        """
        lanes, launch = self._bound_lane, self._prepare(arrays)
        with torch.cuda.device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

        def run_once() -> float:
            with translate_errors(), torch.cuda.device(self._device), lanes.borrow() as lane, lane.current():
                start.record()
                launch()
                end.record()
                end.synchronize()
                return float(start.elapsed_time(end)) / 1e3

        return run_once

    def close(self) -> None:
        """Free the program and PyTorch's cached device memory, after queued runs have finished."""
        with translate_errors():
            self._lanes.synchronize()
        super().close()
        del self._lanes, self._bound_lane
        with LAUNCH_LOCK, capture_lock(), translate_errors(), torch.cuda.device(self._device):
            torch.cuda.empty_cache()

    def _prepare(self, arrays: Arrays) -> Callable[[], Outputs]:
        """Copy the arrays to the device and return a function that launches a run on them.

        The function is called with the lane of all bound runs current. Bound runs share this lane, so that memory for
        intermediate results exists only once.
        """
        with translate_errors(), torch.cuda.device(self._device), self._bound_lane.borrow() as lane:
            staged = lane.stage(arrays[self.inputs[0].name])
            with lane.current():
                recording = self._record(lane, staged) if self._is_recorded(len(staged)) else None
                tensor = torch.empty_like(staged, device=self._device) if recording is None else recording.input
                tensor.copy_(staged, non_blocking=True)
                lane.stream.synchronize()
        return (lambda: self._compute(tensor)) if recording is None else recording.replay

    def _launch(self, lane: TorchLane, staged: Tensor) -> Outputs:
        """Launch a run on the staged input and return its outputs, valid once the lane's stream reaches this point."""
        recording = self._recording(lane, staged)
        if recording is None:
            return self._compute(staged.to(self._device, non_blocking=True))
        recording.input.copy_(staged, non_blocking=True)
        return recording.replay()

    def _recording(self, lane: TorchLane, staged: Tensor) -> Recording | None:
        """Return the lane's recording for this shape, or ``None`` if runs of this batch size cannot be recorded."""
        if not self._is_recorded(len(staged)):
            return None
        shape = tuple(staged.shape)
        if shape not in lane.recordings:
            lane.recordings[shape] = self._record(lane, staged, lane.pool)
        return lane.recordings[shape]

    def _record(self, lane: TorchLane, staged: Tensor, pool: Pool | None = None) -> Recording | None:
        self._set_threads()
        try:
            with set_float32_precision(self._tf32):
                return Recording(self._call, staged, self._device, lane, pool)
        except NotRecordedError as error:
            images, known = len(staged), self.description.unrecorded_batches
            if images not in known:
                self.description = replace(self.description, unrecorded_batches=tuple(sorted((*known, images))))
                warn_unrecorded("PyTorch", images, error)
            return None

    def _compute(self, tensor: Tensor) -> Outputs:
        self._set_threads()
        with set_float32_precision(self._tf32):
            return self._call(tensor)

    def _fetch_outputs(self, lane: TorchLane, outputs: Outputs) -> Arrays:
        """Return the outputs as fresh host arrays, after waiting for the lane's stream."""
        arrays: Arrays = {}
        for name, output in self._by_name(outputs):
            values = lane.outgoing.fetch(output)  # all outputs share the staging memory
            lane.stream.synchronize()
            arrays[name] = values.numpy().copy()
        return arrays


def _copy_for(stream: Any, output: Tensor) -> Tensor:
    """Queue a copy of an output to memory that PyTorch uses again in the order of ``stream``, and return the copy."""
    with torch.cuda.stream(stream):
        copy = torch.empty(tuple(output.shape), dtype=output.dtype, device=output.device)
    return copy.copy_(output, non_blocking=True)
