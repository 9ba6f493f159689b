"""Sessions of PyTorch programs on a CUDA device. Several threads may run at once, each on its own stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from runtimes import notices
from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.batch_sizes import FIXED_BATCHES, FirstBatches
from runtimes.backends.pytorch.launch_settings import LAUNCH_LOCK, apply_launch_settings
from runtimes.backends.pytorch.outputs import caller_stream, on_device, share, translate_errors
from runtimes.backends.pytorch.session import TorchSession
from runtimes.backends.pytorch.streams import Lanes, NotRecordedError, Recording, TorchLane
from runtimes.errors import InputError, Reason
from runtimes.protocol import Description, RunTimes
from runtimes.tensors.capture import capture_lock, warn_unrecorded
from runtimes.tensors.device_clock import time_run
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.dlpack import DeviceTensor, wait_for_producer
from runtimes.tensors.spec import Array, Arrays

if TYPE_CHECKING:
    from runtimes.backends.pytorch.session import Call, Outputs

LANES = 4
"""The largest number of calls that run at once. More calls would only wait for the device."""


SEARCH = "the search of cuDNN for the fastest algorithms"
"""The preparation of every program for the first batch sizes."""

GRAPHS = "CUDA graphs"
"""The preparation for the first batch sizes of programs whose runs are recorded."""

HALF_PRECISIONS = {"float16", "bfloat16"}
"""The precisions that settings for float32 do not change."""


def device_of(index: int) -> torch.device:
    """Return the CUDA device with this number."""
    return torch.device("cuda", index)


@dataclass(frozen=True)
class ProgramExecution:
    """How a program is run.

    Attributes:
        is_recorded: Returns whether runs of this batch size are recorded once and replayed, instead of launching their
            kernels one by one.
        preparation: What only the first ``FIXED_BATCHES`` batch sizes have, in words.
        concurrent: Whether several runs may be on the device at once, each with intermediate results of its own.
        prepare: Called with an input before the first run of its shape, without the settings for launches.
    """

    is_recorded: Callable[[int], bool] = lambda _: False
    preparation: str = SEARCH
    concurrent: bool = True
    prepare: Callable[[Tensor], object] = lambda _: None


class CudaTorchSession(TorchSession):
    """A PyTorch program on a CUDA device, as ``DeviceSession``.

    Args:
        call: Runs the program on a tensor.
        artifact: The artifact of the program.
        description: The description of what runs.
        execution: How it is run.
        device_index: The number of the GPU, which has the program.
    """

    def __init__(
        self,
        call: Call,
        artifact: Artifact,
        description: Description,
        execution: ProgramExecution = ProgramExecution(),
        device_index: int = 0,
    ) -> None:
        super().__init__(call, artifact, description)
        self._tf32 = None if set(description.precision.split()) <= HALF_PRECISIONS else artifact.allows_tf32
        self._execution = execution
        self._prepared = FirstBatches()
        self._device = device_of(device_index)
        self._lanes = Lanes(LANES if execution.concurrent else 1)
        self._bound_lane = Lanes(1) if execution.concurrent else self._lanes

    def run(self, arrays: Arrays) -> Arrays:
        """Run the program, as ``Session.run``."""
        with translate_errors(), on_device(self._device), self._lanes.borrow() as lane:
            staged = lane.stage(arrays[self.inputs[0].name])
            with lane.current():
                return self._fetch_outputs(lane, self._launch(lane, staged))

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        """Run the program on a device tensor, as ``DeviceSession.run_tensors``.

        Raises:
            InputError: The tensor is on another GPU than the program.
        """
        tensor = self._check_device(tensors)
        with translate_errors(), on_device(self._device), self._lanes.borrow() as lane:
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
        """Queue a run of the program on ``feeds``, ordered on ``stream``, as ``DeviceSession.queue``.

        Raises:
            InputError: The tensor is on another GPU than the program.
        """
        value = feeds[self.inputs[0].name]
        if isinstance(value, DeviceTensor):
            self._check_device({self.inputs[0].name: value})
        with translate_errors(), on_device(self._device), self._lanes.borrow() as lane:
            home = caller_stream(stream, self._device)
            if isinstance(value, DeviceTensor) and stream is None:
                wait_for_producer(value, lane.stream.cuda_stream)
            staged = None if isinstance(value, DeviceTensor) else lane.stage(value)
            lane.stream.wait_stream(home)
            with lane.current():
                if isinstance(value, DeviceTensor):  # TorchInductor compiles once more for one made outside this mode
                    staged = from_dlpack(value.source)
                assert staged is not None
                computed = self._launch(lane, staged)
                outputs = {name: _copy_for(home, output) for name, output in self._by_name(computed)}
                finished = torch.cuda.Event()  # type: ignore[no-untyped-call]
                finished.record(lane.stream)
            home.wait_event(finished)
            lane.has_queued_work = True
        device = self._device.index or 0
        return {spec.name: share(spec, outputs[spec.name], device, finished, home) for spec in self.outputs}

    def empty_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of ``shape`` and ``dtype`` in page-locked memory, as ``DeviceSession.empty_array``."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        with translate_errors(), on_device(self._device):
            array: Array = torch.empty(shape, dtype=kind, pin_memory=True).numpy()
        return array

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the program on the arrays, as ``Session.bind``."""
        lanes, launch = self._bound_lane, self._prepare(arrays)

        def run_once() -> None:
            with translate_errors(), on_device(self._device), lanes.borrow() as lane, lane.current():
                launch()
                lane.stream.synchronize()

        return run_once

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes]:
        """Return a function that runs the program and returns its times, as ``DeviceSession.bind_timed``.

        Without a recording, Python launches kernels one by one, and the device may be idle between them. The idle time
        is included.
        """
        lanes, launch = self._bound_lane, self._prepare(arrays)
        with on_device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

        def read_clocks() -> float:
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3

        def run_once() -> RunTimes:
            with translate_errors(), on_device(self._device), lanes.borrow() as lane, lane.current():
                return time_run(launch, start.record, end.record, read_clocks)

        return run_once

    def close(self) -> None:
        """Free the program and PyTorch's cached device memory, after queued runs have finished."""
        with translate_errors(), on_device(self._device):
            self._lanes.close()
            self._bound_lane.close()
        super().close()
        del self._lanes, self._bound_lane
        with LAUNCH_LOCK, capture_lock(), translate_errors(), on_device(self._device):
            torch.cuda.empty_cache()

    def _prepare(self, arrays: Arrays) -> Callable[[], Outputs]:
        """Copy the arrays to the device and return a function that launches a run on them.

        The function is called with the lane of all bound runs current. Bound runs share this lane, so that memory for
        intermediate results exists only once.
        """
        with translate_errors(), on_device(self._device), self._bound_lane.borrow() as lane:
            staged = lane.stage(arrays[self.inputs[0].name])
            with lane.current():
                recording = self._record(lane, staged) if self._execution.is_recorded(len(staged)) else None
                with capture_lock():
                    tensor = torch.empty_like(staged, device=self._device) if recording is None else recording.input
                tensor.copy_(staged, non_blocking=True)
                lane.stream.synchronize()
        return (lambda: self._compute(lane, tensor)) if recording is None else recording.replay

    def _launch(self, lane: TorchLane, staged: Tensor) -> Outputs:
        """Launch a run on the staged input and return its outputs, valid once the lane's stream reaches this point."""
        recording = self._recording(lane, staged)
        if recording is None:
            return self._compute(lane, staged)
        recording.input.copy_(staged, non_blocking=True)
        return recording.replay()

    def _recording(self, lane: TorchLane, staged: Tensor) -> Recording | None:
        """Return the lane's recording for this shape, or ``None`` if runs of this batch size cannot be recorded."""
        if not self._execution.is_recorded(len(staged)):
            return None
        shape = tuple(staged.shape)
        if shape not in lane.recordings:
            lane.recordings[shape] = self._record(lane, staged)
        return lane.recordings[shape]

    def _record(self, lane: TorchLane, staged: Tensor) -> Recording | None:
        self._set_threads()
        self._prepare_shape(lane, staged)
        try:
            with apply_launch_settings(self._tf32, self._is_prepared(len(staged))), capture_lock():
                return Recording(self._call, staged, self._device, lane)
        except NotRecordedError as error:
            images, known = len(staged), self.description.unrecorded_batches
            if images not in known:
                self.description = replace(self.description, unrecorded_batches=tuple(sorted((*known, images))))
                warn_unrecorded("PyTorch", images, error)
            return None

    def _compute(self, lane: TorchLane, tensor: Tensor) -> Outputs:
        """Launch a run on a tensor of the host or the device. The lane is current."""
        self._set_threads()
        self._prepare_shape(lane, tensor)
        shape = tuple(tensor.shape)
        # The first run of a shape allocates memory and may compile.
        lock = nullcontext() if shape in lane.launched else capture_lock()
        with apply_launch_settings(self._tf32, self._is_prepared(len(tensor))), lock:
            outputs = self._call(tensor.to(self._device, non_blocking=True))
        lane.launched.add(shape)
        return outputs

    def _prepare_shape(self, lane: TorchLane, tensor: Tensor) -> None:
        if tuple(tensor.shape) not in lane.launched:
            with LAUNCH_LOCK, capture_lock():
                self._execution.prepare(tensor)

    def _is_prepared(self, batch: int) -> bool:
        """Return whether the batch size is one of the first, and say once that another one is not prepared."""
        if self._prepared.admit(batch):
            return True
        note = Reason(
            "batch-unprepared",
            f"only the first {FIXED_BATCHES} batch sizes have {self._execution.preparation}; others run without and "
            f"are slower (these are {', '.join(map(str, self._prepared.sizes))})",
        )
        if note not in self.description.notes:
            self.description = replace(self.description, notes=(*self.description.notes, note))
            notices.warn(note)
        return False

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
