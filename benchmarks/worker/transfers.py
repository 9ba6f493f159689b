"""The copies of one call: its inputs to the device and its outputs to the host, by the clock of the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.records.samples import Transfers
from runtimes.protocol import Arrays
from runtimes.tensors import cuda, cuda_objects
from runtimes.tensors.device_clock import time_run

WARM_UPS, COPIES = 3, 20
"""The number of copies in each direction, those that are not counted and those that are."""


def measure_transfers(inputs: Arrays, outputs: Arrays, ordinal: int = 0) -> Transfers | None:
    """Return the device times of the copies of one call from and to pinned host memory.

    The copies are those that any backend needs for these arrays, at the speed of the bus. They are made in a stream of
    their own, so that the result does not depend on the backend.

    Args:
        inputs: The inputs of the call.
        outputs: The outputs of the call.
        ordinal: The number of the GPU.

    Returns:
        The times, or ``None`` if CUDA's Python bindings are not installed or find no GPU.

    Raises:
        ResourceError: The host cannot pin the memory, or the device is out of memory.
    """
    if cuda.missing() is not None:
        return None
    with cuda.current(ordinal):
        stream, events = cuda_objects.Stream(), (cuda_objects.Event(), cuda_objects.Event())
        try:
            return Transfers(
                _time_copies([array.nbytes for array in inputs.values()], stream.to_device, stream, events),
                _time_copies([array.nbytes for array in outputs.values()], _to_host(stream), stream, events),
            )
        finally:
            for owned in (*events, stream):
                owned.close()


def _to_host(stream: cuda_objects.Stream) -> Callable[[int, int, int], None]:
    return lambda device, host, size_bytes: stream.to_host(host, device, size_bytes)


def _time_copies(
    sizes_bytes: Sequence[int],
    copy: Callable[[int, int, int], None],
    stream: cuda_objects.Stream,
    events: tuple[cuda_objects.Event, cuda_objects.Event],
) -> tuple[float, ...]:
    """Return the times of copies of these sizes, one after the other. ``copy`` takes device, host and size."""
    before, after = events
    buffers = [(cuda_objects.DeviceBuffer(size), cuda_objects.PinnedBuffer(size)) for size in sizes_bytes]

    def copy_all() -> None:
        for device, host in buffers:
            copy(device.pointer, host.pointer, host.size_bytes)

    try:
        times = [
            time_run(
                copy_all, lambda: before.record(stream), lambda: after.record(stream), lambda: after.elapsed_s(before)
            )
            for _ in range(WARM_UPS + COPIES)
        ]
    finally:
        stream.synchronize()
        for device, host in buffers:
            device.close()
            host.close()
    return tuple(round(each.device_s, 9) for each in times[WARM_UPS:])
