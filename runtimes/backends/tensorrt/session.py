"""Sessions on engines of TensorRT and TensorRT-RTX."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.batch_pieces import pieces
from runtimes.backends.tensorrt.bound_batches import BoundBatches
from runtimes.backends.tensorrt.execution_context import EngineModel, row_shape
from runtimes.backends.tensorrt.pool import Pool
from runtimes.backends.tensorrt.queued_runs import QueuedRuns
from runtimes.backends.tensorrt.streams import EngineLane
from runtimes.errors import DeviceLostError, InputError
from runtimes.protocol import Description, RunTimes
from runtimes.tensors import cuda
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda_objects import Event
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.dlpack import DeviceTensor
from runtimes.tensors.pinned import allocate_pinned_array
from runtimes.tensors.spec import Array, Arrays, TensorSpec

CONTEXTS = 4
"""The default number of calls that run at once for each profile: enough to copy for some calls while others compute."""


def _make_lane(model: EngineModel, profile: int) -> EngineLane:
    with capture_lock():  # it allocates memory
        return EngineLane(model, profile)


class EngineSession:
    """A session on an engine, as ``DeviceSession``. Many threads may run it at once.

    A batch that is too large for all profiles is run in pieces; a batch that is too small is padded.

    Args:
        library: The module ``tensorrt`` or ``tensorrt_rtx``.
        engine: The library's engine, with its weights. The session owns it.
        description: The description of what runs.
        profiles: The optimisation profiles, in the order of the engine.
        cuda_graphs: Whether batch sizes that occur again are recorded and replayed.
        inputs: The specifications of the inputs. The first dimension is the batch; the others are fixed.
        outputs: The specifications of the outputs. The first dimension is the batch; the others are fixed.
        contexts: The number of calls that may run at once for each profile. Further calls wait.
        describe_errors: Returns the library's last errors, for messages.
        device_index: The number of the GPU.

    Raises:
        CompatibilityError: Another dimension than the first may vary.
    """

    def __init__(
        self,
        library: ModuleType,
        engine: Any,
        description: Description,
        profiles: tuple[Profile, ...],
        cuda_graphs: bool,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        contexts: int = CONTEXTS,
        describe_errors: Callable[[], str] = lambda: "the library gave no reason",
        device_index: int = 0,
    ) -> None:
        for spec in (*inputs, *outputs):
            row_shape(spec)
        self.inputs = inputs
        self.outputs = outputs
        self._description = description
        self._device_index = device_index
        self._model = EngineModel(library, engine, inputs, outputs, profiles, cuda_graphs, describe_errors)
        self._unrecorded = self._model.unrecorded
        self._profiles = profiles
        self._pools = tuple(
            Pool(functools.partial(_make_lane, self._model, number), contexts) for number in range(len(profiles))
        )
        self._queued_runs = QueuedRuns(self._model, device_index)
        self._bound = BoundBatches(self._model)
        self._lost: DeviceLostError | None = None

    @property
    def description(self) -> Description:
        """The description of what runs, with the batch sizes that could not be recorded so far."""
        return replace(self._description, unrecorded_batches=tuple(sorted(self._unrecorded)))

    def run(self, arrays: Arrays) -> Arrays:
        """Run the engine, as ``Session.run``."""
        with self._device():
            images = len(arrays[self.inputs[0].name])
            outputs = self._empty(images)
            for piece in pieces(images, self._profiles):
                with self._pools[piece.profile].lane() as lane:
                    lane.run(arrays, outputs, piece)
        return outputs

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        """Run the engine on device tensors, as ``DeviceSession.run_tensors``.

        Raises:
            InputError: A tensor is on another GPU than the engine.
        """
        self._check_device(tensors)
        with self._device():
            images = tensors[self.inputs[0].name].shape[0]
            outputs = self._empty(images)
            for piece in pieces(images, self._profiles):
                with self._pools[piece.profile].lane() as lane:
                    lane.run_tensors(tensors, outputs, piece)
        return outputs

    def queue(self, feeds: Arrays | Mapping[str, DeviceTensor], stream: int | None) -> dict[str, DeviceOutput]:
        """Queue a run of the engine on ``feeds``, ordered on ``stream``, as ``DeviceSession.queue``.

        Raises:
            InputError: A tensor is on another GPU than the engine.
        """
        self._check_device({name: feed for name, feed in feeds.items() if isinstance(feed, DeviceTensor)})
        with self._device():
            return self._queued_runs.queue(feeds, stream)

    def empty_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of ``shape`` and ``dtype`` in page-locked memory, as ``DeviceSession.empty_array``."""
        with self._device():
            return allocate_pinned_array(shape, dtype, self._device_index)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that runs the engine on the arrays, as ``Session.bind``."""
        with self._device():
            bound = self._bound.bind(arrays)

        def run_once() -> None:
            with self._device():
                bound.run()

        return run_once

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes]:
        """Return a function that runs the engine and returns its times, as ``DeviceSession.bind_timed``."""
        with self._device():
            bound = self._bound.bind(arrays)
            before, after = Event(), Event()

        def run_once() -> RunTimes:
            with self._device():
                return bound.run_timed(before, after)

        return run_once

    def close(self) -> None:
        """Free the engine and everything on the device."""
        # If the device failed, its memory is gone.
        with suppress(DeviceLostError), cuda.current(self._device_index):
            self._bound.close()
            for pool in self._pools:
                pool.close()
            self._queued_runs.close()
        self._pools = ()
        del self._bound, self._queued_runs, self._model  # the engine is freed last

    def _empty(self, images: int) -> Arrays:
        return {spec.name: np.empty((images, *row_shape(spec)), spec.dtype) for spec in self.outputs}

    def _check_device(self, tensors: Mapping[str, DeviceTensor]) -> None:
        index = self._device_index
        for name, tensor in tensors.items():
            if tensor.device != index:
                raise InputError(
                    f"the input {name} is on CUDA device {tensor.device}, but the engine is on device {index}",
                    code="tensor-on-other-device",
                    hint=f"pass tensor.to('cuda:{index}')",
                )

    @contextmanager
    def _device(self) -> Iterator[None]:
        """Make the device current for the ``with`` block. After the device failed, raise the same error every time."""
        if self._lost is not None:
            raise DeviceLostError(
                f"the GPU failed earlier: {self._lost.what}", code="gpu-failed-earlier", hint=self._lost.hint
            )
        try:
            with cuda.current(self._device_index):
                yield
        except DeviceLostError as error:
            self._lost = error
            raise
