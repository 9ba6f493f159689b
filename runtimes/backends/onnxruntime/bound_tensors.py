"""Tensors on a device, which are allocated and bound once for each set of shapes. Their addresses never change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from runtimes.tensors.capture import capture_lock, warn_unrecorded
from runtimes.tensors.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

    from runtimes.tensors import cuda_objects

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
"""The shapes of all inputs or outputs, in the model's order."""

MAX_UNRECORDED_SLOTS = 8
"""The largest number of slots without a recording that a session keeps for later runs."""

MAX_RECORDINGS = 64
"""The largest number of recordings of a session.

The library keeps every recording, so its tensors must be kept as well. The number covers all inputs that ``rbench``
binds, and further shapes."""

_NO_RECORDING = -1
"""The number that stands for a run without a recording."""


@dataclass(frozen=True)
class BoundModel:
    """A session of the library and the device of its tensors.

    Attributes:
        native: The session of the library.
        inputs: The specifications of the inputs.
        outputs: The specifications of the outputs.
        device: ONNX Runtime's name of the kind of device, ``cuda`` or ``cpu``.
        ordinal: The number of the device.
        unrecorded: The batch sizes that could not be recorded.
    """

    native: onnxruntime.InferenceSession
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device: str
    ordinal: int = 0
    unrecorded: set[int] = field(default_factory=set)

    def output_shapes(self, shapes: Shapes) -> Shapes | None:
        """Return the shapes of the outputs for these input shapes, or ``None`` if they do not follow from them."""
        sizes = {
            dimension: size
            for spec, shape in zip(self.inputs, shapes, strict=True)
            for dimension, size in zip(spec.shape, shape, strict=True)
            if isinstance(dimension, str)
        }
        output_shapes = []
        for spec in self.outputs:
            if any(isinstance(size, str) and size not in sizes for size in spec.shape):
                return None
            output_shapes.append(tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape))
        return tuple(output_shapes)

    def tensor(self, spec: TensorSpec, shape: tuple[int, ...]) -> onnxruntime.OrtValue:
        """Allocate device memory for the tensor of ``spec`` with this ``shape``."""
        import onnxruntime

        kind = np.dtype(spec.dtype).type
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, self.device, self.ordinal)


def run_options(record: int | None, wait: bool = True) -> onnxruntime.RunOptions:
    """Return the library's options of a run.

    Args:
        record: The number of the recording. The first run under a number is recorded, later runs are replayed. ``None``
            stands for a run without a recording.
        wait: Whether the run returns only when the device has finished.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(_NO_RECORDING if record is None else record))
    if not wait:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


class Slot:
    """The input and output tensors of a run. Only one thread at a time may use a slot.

    Args:
        model: The model to run.
        shapes: The shapes of the inputs.
        record: The number of the recording, as for ``run_options``.
    """

    def __init__(self, model: BoundModel, shapes: Shapes, record: int | None = None) -> None:
        self.record = record
        self._model = model
        self._binding = model.native.io_binding()
        self._inputs = {spec.name: model.tensor(spec, shape) for spec, shape in zip(model.inputs, shapes, strict=True)}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        output_shapes = model.output_shapes(shapes)
        self._outputs_of_unknown_shape = model.outputs if output_shapes is None else ()
        for spec, shape in zip(model.outputs, output_shapes or (), strict=not self._outputs_of_unknown_shape):
            self._binding.bind_ortvalue_output(spec.name, model.tensor(spec, shape))
        self._images = shapes[0][0]
        self._recorded = threading.local()  # the library keeps recordings for each thread
        self._blocking, self._queued = run_options(record), run_options(record, wait=False)

    def fill(self, arrays: Arrays) -> None:
        """Copy arrays to the device. They must be C-ordered and of the inputs' dtypes and shapes."""
        for name, value in self._inputs.items():
            value.update_inplace(arrays[name])

    def fill_from_device(self, pointers: Mapping[str, int], stream: cuda_objects.Stream) -> None:
        """Queue copies of inputs that are on the device, C-ordered and of the inputs' dtypes and shapes.

        Args:
            pointers: The address of each input, by name.
            stream: The stream that the model's work is queued on.
        """
        for name, value in self._inputs.items():
            stream.within_device(value.data_ptr(), pointers[name], value.tensor_size_in_bytes())

    def outputs(self) -> dict[str, onnxruntime.OrtValue]:
        """Return the outputs of the last run by name, in device memory that the next run writes again."""
        return {spec.name: value for spec, value in zip(self._model.outputs, self._binding.get_outputs(), strict=True)}

    def run(self) -> None:
        """Run the model once on the copied inputs and return when the device has finished."""
        self._start(self._blocking)

    def queue(self) -> None:
        """Run the model once on the copied inputs without waiting for the device."""
        self._start(self._queued)

    def _start(self, options: onnxruntime.RunOptions) -> None:
        for spec in self._outputs_of_unknown_shape:  # otherwise the library keeps the tensor of the first run
            self._binding.bind_output(spec.name, self._model.device, self._model.ordinal)
        if self.record is None or getattr(self._recorded, "done", False):
            self._model.native.run_with_iobinding(self._binding, options)
            return
        with capture_lock():
            self._run_recorded(options)
        self._recorded.done = True

    def _run_recorded(self, options: onnxruntime.RunOptions) -> None:
        """Run and record. If that fails, run without a recording, also from now on."""
        try:
            self._model.native.run_with_iobinding(self._binding, options)
        except Exception as error:  # the library's own exceptions, which say little about the reason
            self._blocking, self._queued = run_options(None), run_options(None, wait=False)
            self._model.native.run_with_iobinding(self._binding, self._blocking)
            self.record = None
            if self._images not in self._model.unrecorded:
                self._model.unrecorded.add(self._images)
                warn_unrecorded("ONNX Runtime", self._images, error)

    def results(self) -> Arrays:
        """Return the outputs of the last run as fresh arrays by name."""
        return copy_outputs(self._binding, self._model.outputs)


def copy_outputs(binding: onnxruntime.IOBinding, outputs: tuple[TensorSpec, ...]) -> Arrays:
    """Return the bound outputs of a finished run as fresh arrays by name. ``outputs`` is in the order of binding."""
    # On the CPU, the library returns its own memory, which must be copied.
    return {spec.name: np.array(value.numpy()) for spec, value in zip(outputs, binding.get_outputs(), strict=True)}


class Slots:
    """The slots of a session, created on first use. Only one thread at a time may use them.

    Args:
        model: The model to run.
        recording: Whether runs are recorded. The slots of the first ``MAX_RECORDINGS`` sets of shapes are then recorded
            and kept. Of all other slots, the ``MAX_UNRECORDED_SLOTS`` used last are kept.
    """

    def __init__(self, model: BoundModel, recording: bool) -> None:
        self._model = model
        self._recording = recording
        self._recordings = 0
        self._by_shapes: OrderedDict[Shapes, Slot] = OrderedDict()

    def get(self, shapes: Shapes) -> Slot:
        """Return the shared slot for these shapes."""
        slot = self._by_shapes.pop(shapes, None) or self.make(shapes)
        self._by_shapes[shapes] = slot  # the slot used last is the last entry
        unrecorded = [known for known, other in self._by_shapes.items() if other.record is None]
        for known in unrecorded[:-MAX_UNRECORDED_SLOTS]:
            del self._by_shapes[known]
        return slot

    def make(self, shapes: Shapes) -> Slot:
        """Return a new slot for the caller alone, valid while the session is open."""
        records = (
            self._recording and self._recordings < MAX_RECORDINGS and self._model.output_shapes(shapes) is not None
        )
        record = self._recordings if records else None
        slot = Slot(self._model, shapes, record)
        self._recordings += record is not None
        return slot
