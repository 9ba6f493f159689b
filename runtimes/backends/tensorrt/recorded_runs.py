"""Runs of one stream, which are recorded when they come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from runtimes.backends.tensorrt.execution_context import Context, EngineModel
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda_objects import CudaGraph, DeviceBuffer, Stream

GRAPHS = 8
"""The largest number of recordings of a stream. The recording used least recently is dropped."""


@dataclass(frozen=True)
class RunKind:
    """A kind of run. Runs of the same kind use the same addresses, so that one recording serves them all.

    Attributes:
        images: The batch size.
        inputs: What distinguishes runs of the same batch size, for example the addresses of their inputs.
    """

    images: int
    inputs: Hashable = None


@dataclass(frozen=True)
class _Recorded:
    """A recorded graph, and the context it was recorded from, which must not change."""

    graph: CudaGraph
    context: Context


class RecordedRuns:
    """Queues runs of one profile on one stream. The second run of a kind is recorded, later runs are replayed.

    Args:
        model: The engine.
        profile: The number of the profile.
        stream: The stream.

    Raises:
        ResourceError: Memory is lacking.
    """

    def __init__(self, model: EngineModel, profile: int, stream: Stream) -> None:
        self._model = model
        self._profile = profile
        self._stream = stream
        self._scratch = DeviceBuffer(model.engine.get_device_memory_size_for_profile_v2(profile))
        self.context = self._new_context()
        self._placed: RunKind | None = None
        self._recorded: OrderedDict[RunKind, _Recorded] = OrderedDict()
        self._seen: OrderedDict[RunKind, None] = OrderedDict()
        self._unrecordable: set[int] = set()

    def run(self, kind: RunKind, addresses: Mapping[str, int], queue: Callable[[Context], None]) -> None:
        """Queue a run, or its recording.

        Args:
            kind: The kind of the run.
            addresses: The device address of each input and output, by name. They are the same for all runs of a kind.
            queue: Queues the run in a context with these addresses, and the copies that belong to it.

        Raises:
            CompatibilityError: As for ``Context.place``.
            ResourceError: The library cannot queue the run.
            DeviceLostError: The device failed.
        """
        recorded = self._recorded.get(kind)
        if recorded is not None:
            self._recorded.move_to_end(kind)
            recorded.graph.launch(self._stream)
        elif not self._model.cuda_graphs or kind.images in self._unrecordable:
            self._run_plain(kind, addresses, queue)
        else:
            with capture_lock():  # the library may allocate memory in the first runs
                if kind in self._seen:
                    self._record(kind, addresses, queue)
                else:
                    self._run_plain(kind, addresses, queue)
                    self._seen[kind] = None
                    if len(self._seen) > GRAPHS:
                        self._seen.popitem(last=False)

    def _run_plain(self, kind: RunKind, addresses: Mapping[str, int], queue: Callable[[Context], None]) -> None:
        if self._placed != kind:
            self._stream.synchronize()  # a context must not change while it runs
            self._placed = None
            self.context.place(kind.images, addresses)
            self._placed = kind
        queue(self.context)

    def _record(self, kind: RunKind, addresses: Mapping[str, int], queue: Callable[[Context], None]) -> None:
        """Run in a new context and then record the same run. Afterwards the recording has run once or is given up."""
        del self._seen[kind]
        context = self._new_context()
        context.place(kind.images, addresses)
        queue(context)
        self._stream.synchronize()
        graph = self._model.capture(kind.images, self._stream, lambda: queue(context))
        if graph is None:
            self._unrecordable.add(kind.images)
            return
        self._recorded[kind] = _Recorded(graph, context)
        if len(self._recorded) > GRAPHS:
            self._recorded.popitem(last=False)[1].graph.close()

    def _new_context(self) -> Context:
        context = Context(self._model, self._profile, self._stream)
        context.use_scratch(self._scratch)
        return context

    def close(self) -> None:
        """Free everything. No run may be queued."""
        for recorded in self._recorded.values():
            recorded.graph.close()
        self._recorded.clear()
        del self.context
        self._scratch.close()
