"""CUDA devices. Every error code of the CUDA runtime is checked.

The module uses ``cuda.bindings.runtime`` of NVIDIA's cuda-python, which has a size of some megabytes, brings the CUDA
runtime, and needs only the driver. PyTorch would be too large for an embedded runtime. PyCUDA is compiled during
installation and creates its own contexts, while all other libraries share the primary context.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from runtimes.errors import (
    BackendUnavailableError,
    DeviceLostError,
    Reason,
    ResourceError,
    RexportError,
    quote,
)

_MODULE = "cuda.bindings.runtime"
_DRIVER = "cuda.bindings.driver"
_PIP = "pip install cuda-bindings"


_LOST = frozenset(
    f"cudaError{name}"
    for name in (
        "Assert",
        "Contained",
        "ContextIsDestroyed",
        "ECCUncorrectable",
        "ExternalDevice",
        "HardwareStackError",
        "IllegalAddress",
        "IllegalInstruction",
        "InvalidAddressSpace",
        "InvalidPc",
        "LaunchFailure",
        "LaunchTimeout",
        "MisalignedAddress",
        "MpsClientTerminated",
        "NvlinkUncorrectable",
        "TensorMemoryLeak",
        "Unknown",
    )
)
"""Errors after which the process must end, according to the reference of the CUDA runtime."""

_ABSENT = frozenset(
    f"cudaError{name}"
    for name in (
        "CompatNotSupportedOnDevice",
        "DevicesUnavailable",
        "DeviceNotLicensed",
        "InitializationError",
        "InsufficientDriver",
        "InvalidDevice",
        "NoDevice",
        "StubLibrary",
        "SystemDriverMismatch",
        "SystemNotReady",
    )
)
"""Errors that mean that there is no usable device."""

_DRIVER_TOO_OLD = frozenset(
    f"cudaError{name}"
    for name in ("CompatNotSupportedOnDevice", "InsufficientDriver", "StubLibrary", "SystemDriverMismatch")
)
"""The errors among ``_ABSENT`` that a newer driver solves."""


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        ordinal: The number of the GPU.
        name: The name of the GPU, for example ``NVIDIA H200``.
        compute_capability: The compute capability, for example ``9.0``.
        driver: The newest CUDA version that the driver supports, for example ``13.0``.
        memory_bytes: The total memory of the GPU.
        uuid: The unique identifier without a prefix, for example ``1e4b7c2d-...``. For a MIG device, its own.
        exclusive: Whether only one process at a time can use the GPU, by its compute mode.
    """

    ordinal: int
    name: str
    compute_capability: str
    driver: str
    memory_bytes: int
    uuid: str = ""
    exclusive: bool = False


def missing() -> Reason | None:
    """Return why no GPU can be used here and what to do about it, or ``None`` if a GPU can be used.

    The check creates no context and takes no memory on the device. It starts the driver in this process, so that a
    forked process cannot use CUDA afterwards.
    """
    try:
        if importlib.util.find_spec(_MODULE) is None:
            return _reason(_not_installed())
        there = count()
    except ModuleNotFoundError:
        return _reason(_not_installed())
    except RexportError as error:
        return _reason(error)
    except ValueError as error:  # from find_spec, for a module without a spec
        return Reason("cuda-bindings-not-found", f"cuda-bindings cannot be found: {quote(error)}")
    return None if there else _NO_GPU


def count() -> int:
    """Return the number of GPUs that this process sees.

    Raises:
        BackendUnavailableError: There is no GPU, or the driver or cuda-bindings is missing.
    """
    return int(call_checked(load_runtime(), "count the GPUs", "cudaGetDeviceCount"))


def _reason(error: RexportError) -> Reason:
    return Reason(error.code, str(error))


def _not_installed() -> BackendUnavailableError:
    return BackendUnavailableError("cuda-bindings is not installed", code="cuda-bindings-missing", hint=_PIP)


_NO_GPU = Reason("gpu-not-visible", "the driver reports no GPU (check that CUDA_VISIBLE_DEVICES is not empty)")


def device(ordinal: int = 0) -> Device:
    """Return the properties of the GPU with this number.

    Raises:
        BackendUnavailableError: The GPU does not exist, or the driver or cuda-bindings is missing.
    """
    runtime = load_runtime()
    if not 0 <= ordinal < count():
        reason = describe_absence(ordinal)
        raise BackendUnavailableError(reason.sentence, code=reason.code)
    properties = call_checked(runtime, f"describe GPU {ordinal}", "cudaGetDeviceProperties", ordinal)
    driver = int(call_checked(runtime, "read the version of the driver", "cudaDriverGetVersion"))
    name = properties.name
    return Device(
        ordinal=ordinal,
        name=(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).rstrip("\0").strip(),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
        memory_bytes=int(properties.totalGlobalMem),
        uuid=str(uuid.UUID(bytes=bytes(properties.uuid.bytes))),
        exclusive=_compute_mode(runtime, ordinal) == runtime.cudaComputeMode.cudaComputeModeExclusiveProcess,
    )


def free_bytes(ordinal: int) -> int:
    """Return the memory of a GPU that no process uses.

    The call creates a context on the GPU, which takes memory, if there is none yet.

    Raises:
        BackendUnavailableError: The GPU does not exist, cannot be used now, or the driver or cuda-bindings is missing.
    """
    with current(ordinal):
        return int(call_checked(load_runtime(), f"read the memory of GPU {ordinal}", "cudaMemGetInfo"))


def describe_absence(ordinal: int) -> Reason:
    """Return the reason why the GPU with this number cannot be used, with the GPUs that are there."""
    there = ", ".join(f"cuda:{number} {device(number).name}" for number in range(count())) or "none"
    return Reason("gpu-number-missing", f"there is no GPU cuda:{ordinal}; this process sees {there}")


def _compute_mode(runtime: ModuleType, ordinal: int) -> int:
    """Return which processes may use the GPU. The question creates no context."""
    attribute = runtime.cudaDeviceAttr.cudaDevAttrComputeMode
    return int(
        call_checked(runtime, f"read the compute mode of GPU {ordinal}", "cudaDeviceGetAttribute", attribute, ordinal)
    )


@contextlib.contextmanager
def current(ordinal: int) -> Iterator[None]:
    """Make a device current in the calling thread for the ``with`` block, and restore the previous device after it.

    In the block, the thread is also ``apart_from_recordings``. The previous device is not touched: ``cudaSetDevice``
    would create a context on it, which takes some hundred megabytes, and would fail if another process has that device
    for itself.

    Raises:
        BackendUnavailableError: The GPU does not exist, or the driver or cuda-bindings is missing.
    """
    runtime = load_runtime()
    before = int(call_checked(runtime, "read the current GPU", "cudaGetDevice"))
    if before == ordinal:
        with apart_from_recordings():
            yield
        return
    driver = importlib.import_module(_DRIVER)
    context = _primary_context(runtime, driver, ordinal)
    call_checked(runtime, f"use GPU {ordinal}", "cuCtxPushCurrent", context, library=driver)
    try:
        with apart_from_recordings():
            yield
    finally:
        driver.cuCtxPopCurrent()
        if runtime.cudaGetDevice()[1] != before:  # a library called cudaSetDevice meanwhile
            runtime.cudaSetDevice(before)


@contextlib.contextmanager
def apart_from_recordings() -> Iterator[None]:
    """Let the calling thread allocate, free and wait for events in the ``with`` block while another thread records.

    ONNX Runtime records in CUDA's global mode: until it ends, such a call of any other thread fails, and ends the
    recording. CUDA ignores recordings of other threads for a thread in the mode ``ThreadLocal``. The device of the work
    must be current. Without cuda-bindings or a driver, nothing is changed: what follows in the block gives the reason.
    """
    try:
        runtime = load_runtime()
        code, before = runtime.cudaThreadExchangeStreamCaptureMode(
            runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
    except (BackendUnavailableError, RuntimeError):  # not installed; a library below cuda-bindings cannot be loaded
        yield
        return
    if code != runtime.cudaError_t.cudaSuccess:
        runtime.cudaGetLastError()  # otherwise the next check of the last error, in any library, reports this one
        yield
        return
    try:
        yield
    finally:
        runtime.cudaThreadExchangeStreamCaptureMode(before)


@functools.cache
def _primary_context(runtime: ModuleType, driver: ModuleType, ordinal: int) -> object:
    """Return the context of a device that all libraries of the process share. It is kept until the process ends."""
    call = functools.partial(call_checked, runtime, f"use GPU {ordinal}", library=driver)
    call("cuInit", 0)
    return call("cuDevicePrimaryCtxRetain", call("cuDeviceGet", ordinal))


def load_runtime() -> ModuleType:
    """Return the module of the CUDA runtime.

    Raises:
        BackendUnavailableError: cuda-bindings is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        raise _not_installed() from error
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"cuda-bindings is installed but cannot be imported: {quote(error)}",
            code="cuda-bindings-not-importable",
            hint="pip install --force-reinstall cuda-bindings",
        ) from error


def call_checked(
    runtime: ModuleType, doing: str, name: str, *arguments: object, library: ModuleType | None = None
) -> Any:
    """Call a function of the CUDA runtime and return its first result after the error code.

    Args:
        runtime: The module of the CUDA runtime, as from ``load_runtime``.
        doing: What the call does, for the message of an error.
        name: The name of the function.
        *arguments: Its arguments.
        library: The module of the CUDA driver for a function of the driver, whose errors have the same numbers.

    Raises:
        BackendUnavailableError: There is no usable device, or the CUDA runtime cannot be loaded.
        DeviceLostError: The device failed.
        ResourceError: The function reports another error.
    """
    try:
        code, *values = getattr(library or runtime, name)(*arguments)
    except RuntimeError as error:  # a library below cuda-bindings cannot be loaded, or lacks the function
        raise BackendUnavailableError(
            f"CUDA cannot {doing}: {quote(error)}", code="cuda-not-loadable", hint="update the NVIDIA driver"
        ) from error
    if int(code):
        raise translate_error(runtime, runtime.cudaError_t(int(code)), doing)
    return values[0] if values else None


def translate_error(runtime: ModuleType, code: Any, doing: str) -> RexportError:
    """Return the error of a failed call.

    Args:
        runtime: The module of the CUDA runtime.
        code: The error code.
        doing: What the call does.
    """
    name = str(code.name)
    _, description = runtime.cudaGetErrorString(code)
    text = quote(description.decode("utf-8", "replace") if isinstance(description, bytes) else name)
    if name == "cudaErrorMemoryAllocation":
        return ResourceError(
            f"the GPU is out of memory: CUDA cannot {doing}",
            code="gpu-out-of-memory",
            hint="use a smaller batch",
        )
    if name == "cudaErrorNoDevice":
        return BackendUnavailableError(_NO_GPU.sentence, code=_NO_GPU.code)
    if name == "cudaErrorInsufficientDriver":
        text = "the NVIDIA driver is missing or too old for cuda-bindings"
    if name == "cudaErrorDevicesUnavailable":
        return _unavailable_error(runtime, text)
    if name in _ABSENT:
        old = name in _DRIVER_TOO_OLD
        hint = "cuda-bindings 13 needs NVIDIA driver 580 or later" if old else "run nvidia-smi for details"
        return BackendUnavailableError(f"no GPU can be used: {text}", code="gpu-unusable", hint=hint)
    if name in _LOST:
        return DeviceLostError(
            f"the GPU failed: CUDA cannot {doing}: {text}", code="gpu-failed", hint="restart the process"
        )
    return ResourceError(f"CUDA cannot {doing}: {name}, {text}", code="cuda-call-failed")


def unavailable_error(ordinal: int, text: str) -> BackendUnavailableError:
    """Return the error for a GPU that is there and cannot be used now, with the compute mode as the reason if it is.

    Args:
        ordinal: The number of the GPU.
        text: The words of the library that was refused.
    """
    busy = BackendUnavailableError(f"GPU {ordinal} cannot be used now: {text}", code="gpu-busy", hint="run nvidia-smi")
    try:
        modes, mode = load_runtime().cudaComputeMode, _compute_mode(load_runtime(), ordinal)
    except RexportError:
        return busy
    if mode == modes.cudaComputeModeExclusiveProcess:
        return BackendUnavailableError(
            f"GPU {ordinal} is in exclusive-process mode, and another process uses it",
            code="gpu-exclusive",
            hint="end that process, which nvidia-smi lists; or let an administrator run: nvidia-smi --compute-mode=0",
        )
    if mode == modes.cudaComputeModeProhibited:
        return BackendUnavailableError(
            f"GPU {ordinal} is in prohibited mode, in which no process may compute",
            code="gpu-prohibited",
            hint="let an administrator run: nvidia-smi --compute-mode=0",
        )
    return busy


def _unavailable_error(runtime: ModuleType, text: str) -> BackendUnavailableError:
    code, ordinal = runtime.cudaGetDevice()
    return unavailable_error(int(ordinal) if code == runtime.cudaError_t.cudaSuccess else 0, text)
