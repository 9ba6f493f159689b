"""Execution providers that come as plugins: libraries of other packages, which a process registers once."""

from __future__ import annotations

import importlib
import threading
from types import ModuleType
from typing import Any

from runtimes.backends.onnxruntime.providers import RtxProvider
from runtimes.errors import BackendUnavailableError, quote

_LOCK = threading.Lock()


def find_device(onnxruntime: ModuleType, provider: RtxProvider) -> Any:
    """Return the first GPU that a plugin can use, as the library's ``OrtEpDevice``, after registering the plugin.

    Args:
        onnxruntime: The library.
        provider: The provider of the plugin.

    Raises:
        BackendUnavailableError: The plugin cannot be loaded, or finds no GPU that it supports.
    """
    with _LOCK:
        devices = _list_devices(onnxruntime, provider.name)
        if not devices:
            _register(onnxruntime, provider)
            devices = _list_devices(onnxruntime, provider.name)
    if not devices:
        raise BackendUnavailableError(
            f"{provider.name} finds no GPU that it supports",
            code="plugin-without-gpu",
            hint="TensorRT-RTX needs an NVIDIA RTX GPU, GeForce RTX 30 or later; run nvidia-smi for details",
        )
    return devices[0]


def _list_devices(onnxruntime: ModuleType, name: str) -> list[Any]:
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]


def _register(onnxruntime: ModuleType, provider: RtxProvider) -> None:
    try:
        plugin = importlib.import_module(provider.plugin)
        onnxruntime.register_execution_provider_library(provider.name, plugin.get_library_path())
    except Exception as error:  # the library's own exceptions, and those of the plugin's package
        raise BackendUnavailableError(
            f"{provider.name} cannot be loaded: {quote(error)}",
            code="plugin-not-loadable",
            hint=f"pip install --upgrade {provider.package}, and install an NVIDIA driver for CUDA 13",
        ) from error
