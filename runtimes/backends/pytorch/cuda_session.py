"""A program on a CUDA device as a session: many threads at once, each call on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.pytorch.backend import TorchSession, translate_error
from runtimes.backends.pytorch.streams import Call, Lanes, Pool, Recording, TorchLane
from runtimes.backends.pytorch.tf32 import TURN, float32
from runtimes.errors import InputError
from runtimes.protocol import Arrays, Description
from runtimes.tensors.dlpack import DeviceTensor, wait_for_producer

LANES = 4
"""Calls under way at once; more of them would only wait for the device."""


def current_device() -> torch.device:
    """The calling thread's CUDA device."""
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def _translating() -> Iterator[None]:
    """PyTorch's errors meanwhile become those of ``runtimes.errors``."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError among them
        raise translate_error(error) from error


class CudaTorchSession(TorchSession):
    """A ``DeviceSession``. ``recorded`` tells of a batch whether its runs are recorded once and replayed, in place of
    launching kernel after kernel."""

    def __init__(
        self, call: Call, artifact: Artifact, about: Description, recorded: Callable[[int], bool] = lambda _: False
    ) -> None:
        super().__init__(call, artifact, about)
        self._tf32 = artifact.allows_tf32
        self._recorded = recorded
        self._device = current_device()
        self._lanes = Lanes(LANES)
        self._bound_lane = Lanes(1)

    def run(self, arrays: Arrays) -> Arrays:
        with _translating(), torch.cuda.device(self._device), self._lanes.borrow() as lane:
            given = lane.incoming.fill(arrays[self.inputs[0].name])
            with lane.current():
                return self._fetch_output(lane, self._output(lane, given))

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        given = tensors[self.inputs[0].name]
        if given.device != (self._device.index or 0):
            raise InputError(
                f"the tensor lies on cuda:{given.device}, and the runtime was opened on {self._device}",
                code="program-on-other-gpu",
            )
        with _translating(), torch.cuda.device(self._device), self._lanes.borrow() as lane:
            # While the caller's stream is current still: PyTorch has that one waited for, and no other.
            wait_for_producer(given, lane.stream.cuda_stream)
            with lane.current():
                return self._fetch_output(lane, self._compute(from_dlpack(given.source)))

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        lanes, launch = self._bound_lane, self._bound(arrays)

        def run_once() -> None:
            with _translating(), torch.cuda.device(self._device), lanes.borrow() as lane, lane.current():
                launch()
                lane.stream.synchronize()

        return run_once

    def bind_timed(self, arrays: Arrays) -> Callable[[], float]:
        """As the protocol. Kernels that Python launches one by one may leave the device idle between the two events;
        that time counts."""
        lanes, launch = self._bound_lane, self._bound(arrays)
        with torch.cuda.device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

        def run_once() -> float:
            with _translating(), torch.cuda.device(self._device), lanes.borrow() as lane, lane.current():
                start.record()
                launch()
                end.record()
                end.synchronize()
                return float(start.elapsed_time(end)) / 1e3

        return run_once

    def close(self) -> None:
        super().close()
        del self._lanes, self._bound_lane
        with TURN, _translating():
            torch.cuda.empty_cache()

    def _bound(self, arrays: Arrays) -> Callable[[], Tensor]:
        """What launches a run on the arrays, which are on the device then, where the lane of all bound runs is current.

        They take turns there, so that what they need meanwhile is there once.
        """
        with _translating(), torch.cuda.device(self._device), self._bound_lane.borrow() as lane:
            given = lane.incoming.fill(arrays[self.inputs[0].name])
            with lane.current():
                recording = self._record(lane, given) if self._recorded(len(given)) else None
                tensor = torch.empty_like(given, device=self._device) if recording is None else recording.input
                tensor.copy_(given, non_blocking=True)
                lane.stream.synchronize()
        return (lambda: self._compute(tensor)) if recording is None else recording.replay

    def _output(self, lane: TorchLane, given: Tensor) -> Tensor:
        """What a run on the staged input gives, once the lane's stream has come to this point."""
        recording = self._recording(lane, given)
        if recording is None:
            return self._compute(given.to(self._device, non_blocking=True))
        recording.input.copy_(given, non_blocking=True)
        return recording.replay()

    def _recording(self, lane: TorchLane, given: Tensor) -> Recording | None:
        """The lane's for this shape, made where it is new; ``None`` where runs of this batch are not recorded."""
        if not self._recorded(len(given)):
            return None
        shape = tuple(given.shape)
        if shape not in lane.recordings:
            lane.recordings[shape] = self._record(lane, given, lane.pool)
        return lane.recordings[shape]

    def _record(self, lane: TorchLane, given: Tensor, pool: Pool | None = None) -> Recording:
        self._set_threads()
        with float32(self._tf32):
            return Recording(self._call, given, self._device, lane, pool)

    def _compute(self, tensor: Tensor) -> Tensor:
        self._set_threads()
        with float32(self._tf32):
            return self._call(tensor)

    def _fetch_output(self, lane: TorchLane, output: Tensor) -> Arrays:
        """The output as a fresh host array. Blocks until the lane's stream is done."""
        values = lane.outgoing.fetch(output)
        lane.stream.synchronize()
        return {self.outputs[0].name: values.numpy().copy()}
