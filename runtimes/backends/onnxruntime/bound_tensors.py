"""Tensors on a device, allocated once for each set of shapes and bound, so that their addresses never change."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from runtimes.tensors.spec import Arrays, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
"""Of the inputs, in the model's order."""

KEPT = 8
"""Sets of shapes whose tensors a session keeps for its next runs, beside those of recorded runs."""

RECORDED = 64
"""Runs that a session records at most: the library never forgets one, so that its tensors must stay as long. Room for
all that ``rbench`` binds, a run on each of its feeds, beside those that are not bound."""

_NEVER = -1
"""In place of a record's number: this run is neither recorded nor replayed."""


@dataclass(frozen=True)
class BoundModel:
    """A session and where its tensors lie: ``device`` is ONNX Runtime's name of the kind, ``cuda`` or ``cpu``."""

    native: onnxruntime.InferenceSession
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device: str
    ordinal: int = 0

    def output_shapes(self, shapes: Shapes) -> Shapes | None:
        """The outputs' shapes for the inputs'; ``None`` where they do not follow from the specs."""
        sizes = {
            wanted: size
            for spec, shape in zip(self.inputs, shapes, strict=True)
            for wanted, size in zip(spec.shape, shape, strict=True)
            if isinstance(wanted, str)
        }
        found = []
        for spec in self.outputs:
            if any(isinstance(wanted, str) and wanted not in sizes for wanted in spec.shape):
                return None
            found.append(tuple(sizes[wanted] if isinstance(wanted, str) else wanted for wanted in spec.shape))
        return tuple(found)

    def tensor(self, spec: TensorSpec, shape: tuple[int, ...]) -> onnxruntime.OrtValue:
        """Memory of the device for one."""
        import onnxruntime

        kind = np.dtype(spec.dtype).type
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, self.device, self.ordinal)


def run_options(record: int | None, wait: bool = True) -> onnxruntime.RunOptions:
    """``record`` is the number that a run is recorded and replayed under, ``None`` for neither; ``wait`` is whether a
    run ends with the device."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(_NEVER if record is None else record))
    if not wait:
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


class Slot:
    """The tensors of one run. One thread at a time may use it. ``record`` as in ``run_options``."""

    def __init__(self, model: BoundModel, shapes: Shapes, record: int | None = None) -> None:
        self.record = record
        self._model = model
        self._binding = model.native.io_binding()
        self._inputs = {spec.name: model.tensor(spec, shape) for spec, shape in zip(model.inputs, shapes, strict=True)}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        results = model.output_shapes(shapes)
        self._loose = model.outputs if results is None else ()
        for spec, shape in zip(model.outputs, results or (), strict=not self._loose):
            self._binding.bind_ortvalue_output(spec.name, model.tensor(spec, shape))
        self._waiting, self._queued = run_options(record), run_options(record, wait=False)

    def fill(self, arrays: Arrays) -> None:
        """Copies C-ordered arrays of the inputs' dtypes and shapes to the device."""
        for name, value in self._inputs.items():
            value.update_inplace(arrays[name])

    def run(self) -> None:
        """Runs once on what it was filled with and returns when the device has finished."""
        self._start(self._waiting)

    def queue(self) -> None:
        """As ``run``, and returns as soon as the library lets it."""
        self._start(self._queued)

    def _start(self, options: onnxruntime.RunOptions) -> None:
        for spec in self._loose:  # else the library keeps the first run's tensor, of the first run's shape
            self._binding.bind_output(spec.name, self._model.device, self._model.ordinal)
        self._model.native.run_with_iobinding(self._binding, options)

    def results(self) -> Arrays:
        """The outputs of the last run, in fresh arrays."""
        return copy_outputs(self._binding, self._model.outputs)


def copy_outputs(binding: onnxruntime.IOBinding, outputs: tuple[TensorSpec, ...]) -> Arrays:
    """The outputs of a run that ended, bound in this order, in fresh arrays."""
    # On the processor, the library gives its own memory.
    return {spec.name: np.array(value.numpy()) for spec, value in zip(outputs, binding.get_outputs(), strict=True)}


class Slots:
    """The slots of a session, made when they are first asked for. One thread at a time may use it.

    With ``recording``, the first sets of shapes are recorded and stay; of the others, the latest stay.
    """

    def __init__(self, model: BoundModel, recording: bool) -> None:
        self._model = model
        self._recording = recording
        self._records = 0
        self._found: OrderedDict[Shapes, Slot] = OrderedDict()

    def get(self, shapes: Shapes) -> Slot:
        """The one for these shapes."""
        slot = self._found.pop(shapes, None) or self.make(shapes)
        self._found[shapes] = slot  # the latest is the last
        passing = [known for known, other in self._found.items() if other.record is None]
        for known in passing[:-KEPT]:
            del self._found[known]
        return slot

    def make(self, shapes: Shapes) -> Slot:
        """A new one, which its caller alone uses, for as long as the session is open."""
        records = self._recording and self._records < RECORDED and self._model.output_shapes(shapes) is not None
        record = self._records if records else None
        slot = Slot(self._model, shapes, record)
        self._records += record is not None
        return slot
