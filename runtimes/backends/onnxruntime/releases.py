"""The differences between releases of ONNX Runtime that change what a figure on a GPU means."""

from __future__ import annotations

import re

from runtimes.backends.onnxruntime.providers import CudaProvider, TensorrtProvider
from runtimes.errors import Reason

_ASYNCHRONOUS_REPLAYS = (1, 27)
"""The first release that can replay a recorded run without waiting for the device (onnxruntime#28686)."""

_WEAKLY_TYPED = (1, 27)
"""The first release whose TensorRT provider marks strongly typed networks as weakly typed (onnxruntime#29779)."""


def queues_runs(provider: CudaProvider | TensorrtProvider, version: str) -> bool:
    """Return whether a run can be queued on the device without waiting for it.

    Only then is the time between two events that of the device. The TensorRT provider waits in each run, and older
    releases wait in each replay of a recorded run.

    Args:
        provider: The provider with its options.
        version: The version of ONNX Runtime.
    """
    if isinstance(provider, TensorrtProvider):
        return False
    return not provider.enable_cuda_graph or _number(version) >= _ASYNCHRONOUS_REPLAYS


def notes(provider: CudaProvider | TensorrtProvider, version: str, kinds: tuple[str, ...]) -> tuple[Reason, ...]:
    """Return what a reader of the figures of a session must know.

    Args:
        provider: The provider with its options.
        version: The version of ONNX Runtime.
        kinds: The types of the graph's convolutions and matrix products, by NumPy's names.
    """
    result = []
    if not queues_runs(provider, version):
        result.append(
            Reason(
                "device-time-includes-host",
                f"ONNX Runtime {version} waits for the device in each run, so no device time is measured",
            )
        )
    if isinstance(provider, TensorrtProvider):
        result += _notes_on_tensorrt(version, kinds)
    elif "int8" in kinds:
        result.append(
            Reason(
                "int8-computed-in-float",
                "ONNX Runtime's CUDA provider has no int8 kernels for this graph: it converts between int8 and float32 "
                "around each layer and computes in float32 (TensorRT computes in int8)",
            )
        )
    return tuple(result)


def _notes_on_tensorrt(version: str, kinds: tuple[str, ...]) -> list[Reason]:
    if kinds in ((), ("float32",)) or _number(version) < _WEAKLY_TYPED:
        return []
    return [
        Reason(
            "provider-weakly-typed",
            f"ONNX Runtime {version} may build weakly typed networks with TensorRT 10, and then computes parts of this "
            "model in float32: this is not the speed of TensorRT (compare with the backend tensorrt)",
        )
    ]


def _number(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, for example ``(1, 31)`` for ``1.31.1`` or ``1.31.0.dev2026``."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
