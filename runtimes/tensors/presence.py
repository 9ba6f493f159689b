"""Which devices are there, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtimes.devices import CPU, DeviceName
from runtimes.errors import Reason

if TYPE_CHECKING:
    from runtimes.tensors.cuda import Device


def find_missing(device: DeviceName) -> Reason | None:
    """Return why a device cannot be used here, or ``None`` if it can or if only its library can tell.

    Without ``cuda-bindings`` nothing is known of GPUs: PyTorch brings CUDA's libraries itself.
    """
    if device.kind == CPU:
        return None
    from runtimes.tensors import cuda

    missing = cuda.missing()
    if missing is not None:
        return None if missing.code == "cuda-bindings-missing" else missing
    return None if device.index < cuda.count() else cuda.describe_absence(device.index)


def identify(device: DeviceName) -> Device | None:
    """Return the properties of a GPU; ``None`` for the CPU, and if the CUDA runtime does not tell them."""
    if device.kind == CPU:
        return None
    from runtimes.tensors import cuda

    return None if cuda.missing() is not None else cuda.device(device.index)
