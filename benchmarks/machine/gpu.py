"""The data that an NVIDIA GPU reports through NVML, the driver's management library: name, clocks, power, memory.

NVML is only read; no setting is changed. Unreported values are ``None``. Without a driver or without ``nvidia-ml-py``
there is no data. The library is imported only for a GPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

from runtimes.codec import OMIT_DEFAULT
from runtimes.devices import parse_device
from runtimes.errors import RexportError
from runtimes.tensors.presence import identify

T = TypeVar("T")

UNKNOWN = "unknown"
"""The text for values that the system does not report."""

_REASONS = {
    "nvmlClocksEventReasonGpuIdle": "idle",
    "nvmlClocksEventReasonApplicationsClocksSetting": "application clocks",
    "nvmlClocksEventReasonSwPowerCap": "power cap",
    "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksEventReasonSyncBoost": "sync boost",
    "nvmlClocksEventReasonSwThermalSlowdown": "software thermal slowdown",
    "nvmlClocksEventReasonHwThermalSlowdown": "hardware thermal slowdown",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake",
    "nvmlClocksEventReasonDisplayClockSetting": "display clocks",
}
"""The reasons why clocks are not higher: the names of NVML's bits, and their words."""

EXCLUSIVE = "exclusive process"
"""The compute mode in which a second process cannot use the GPU."""

_COMPUTE_MODES = {
    "NVML_COMPUTEMODE_DEFAULT": "default",
    "NVML_COMPUTEMODE_PROHIBITED": "prohibited",
    "NVML_COMPUTEMODE_EXCLUSIVE_PROCESS": EXCLUSIVE,
}
"""The compute modes: the names of NVML's constants, and their words."""


@dataclass(frozen=True)
class Gpu:
    """A GPU and its setup, as the driver reports them.

    Attributes:
        name: The name.
        uuid: The unique identifier.
        driver: The version of the driver.
        cuda: The newest CUDA version that the driver supports.
        compute_capability: The compute capability, as ``9.0``.
        memory_bytes: The memory.
        sm_mhz_max: The highest clock of the multiprocessors.
        power_limit_w: The power limit in watts.
        power_limit_default_w: The power limit that the GPU has by default, in watts.
        compute_mode: ``default``, ``exclusive process`` (one process at a time) or ``prohibited``.
        mig: Whether the GPU is divided into instances (MIG).
        mps: Whether processes use the GPU through the multi-process service (MPS).
        persistence: Whether the driver stays loaded while no process uses the GPU.
        ecc: Whether the memory corrects errors.
        application_mhz: The clock of the multiprocessors that applications get, unless other clocks are locked, which
            the driver does not report.
    """

    name: str
    uuid: str
    driver: str
    cuda: str
    compute_capability: str
    memory_bytes: int | None
    sm_mhz_max: int | None
    power_limit_w: float | None
    power_limit_default_w: float | None = field(default=None, metadata=OMIT_DEFAULT)
    compute_mode: str | None = field(default=None, metadata=OMIT_DEFAULT)
    mig: bool | None = field(default=None, metadata=OMIT_DEFAULT)
    mps: bool | None = field(default=None, metadata=OMIT_DEFAULT)
    persistence: bool | None = field(default=None, metadata=OMIT_DEFAULT)
    ecc: bool | None = field(default=None, metadata=OMIT_DEFAULT)
    application_mhz: int | None = field(default=None, metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment.

    Attributes:
        name: The name.
        uuid: The unique identifier.
        sm_mhz: The clock of the multiprocessors.
        memory_mhz: The clock of the memory.
        power_w: The power in watts, averaged by the driver, on recent GPUs over a second.
        temperature_c: The temperature of the die in degrees Celsius.
        throttle: The reasons why the clock of the multiprocessors is not higher; ``None`` if the driver reports none.
        energy_j: The energy since the driver was loaded, in joules.
        memory_used_bytes: The memory in use by all processes and by the driver.
        mig_device: Whether it is a MIG device, whose clocks, temperature and reasons are those of the whole GPU.
    """

    name: str
    uuid: str
    sm_mhz: int | None
    memory_mhz: int | None
    power_w: float | None
    temperature_c: int | None
    throttle: tuple[str, ...] | None
    energy_j: float | None
    memory_used_bytes: int | None
    mig_device: bool = field(default=False, metadata=OMIT_DEFAULT)


def missing() -> str | None:
    """Return why no GPU can be read here, with the command that solves it, or ``None`` if one can be read."""
    try:
        import pynvml
    except ImportError:
        return "nvidia-ml-py is not installed (pip install nvidia-ml-py)"
    try:
        pynvml.nvmlInit()
        return None if pynvml.nvmlDeviceGetCount() else "the NVIDIA driver reports no GPU"
    except pynvml.NVMLError as error:
        return f"no NVIDIA driver responds: {error}"


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the driver reports, in its order; empty if no driver responds."""
    return tuple(each.gpu() for each in gauges())


def gauges() -> tuple[Gauge, ...]:
    """Return the gauges of all GPUs, in the order of the driver; empty if no driver responds."""
    library = _library()
    if library is None:
        return ()
    handles = (library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount()))
    return tuple(Gauge(library, handle) for handle in handles)


def gauge(device: str) -> Gauge | None:
    """Return the gauge of the GPU that a runtime on ``device`` uses.

    CUDA orders GPUs by speed, ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER``, and NVML by their PCI addresses.
    Both agree on the unique identifier. The result is ``None`` for a processor, if no driver responds, and if it is
    unclear which of several GPUs is used.
    """
    library = None if device == "cpu" else _library()
    if library is None:
        return None
    identifier = _identifier(device)
    # A MIG device has an identifier of its own, with another prefix.
    for prefix in ("MIG-", "GPU-") if identifier else ():
        with suppress(library.NVMLError):  # NVML does not know it, as in some containers
            return _gauge_of(library, library.nvmlDeviceGetHandleByUUID(prefix + identifier))
    with suppress(library.NVMLError):
        if library.nvmlDeviceGetCount() == 1 and parse_device(device).index == 0:
            return _gauge_of(library, library.nvmlDeviceGetHandleByIndex(0))
    return None


def _gauge_of(library: ModuleType, handle: object) -> Gauge | None:
    """Return the gauge of a GPU or MIG device. Nothing can be said of a part of a GPU whose own handle is unknown."""
    if Gauge(library, handle).is_mig_device():
        return Gauge(library, handle, library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle))
    return None if Gauge(library, handle).is_divided() else Gauge(library, handle)


def free_bytes(device: str) -> int | None:
    """Return the free memory of a GPU by the CUDA runtime, which needs no NVML; ``None`` without a usable GPU.

    The call creates a context in this process, which takes memory, if there is none yet.
    """
    from runtimes.tensors import cuda

    try:
        return cuda.free_bytes(parse_device(device).index)
    except RexportError:
        return None


def _library() -> ModuleType | None:
    """Return NVML after its start, or ``None``. NVML ends with the process."""
    if missing() is not None:
        return None
    import pynvml

    return pynvml  # type: ignore[no-any-return]


def _identifier(device: str) -> str:
    """Return the unique identifier of a GPU, as CUDA reports it; empty if CUDA does not."""
    try:
        there = identify(parse_device(device))
    except RexportError:
        return ""
    return "" if there is None else there.uuid


class Gauge:
    """Reads one GPU. Values that the driver does not support for it are ``None``.

    A MIG device has memory and processes of its own. Its clocks, temperature and setup are those of the whole GPU.
    Power and energy are unknown, because the driver reports them for the whole GPU alone.

    Args:
        library: NVML.
        handle: NVML's handle of the GPU or MIG device.
        whole: For a MIG device, the handle of its GPU.
    """

    def __init__(self, library: ModuleType, handle: object, whole: object | None = None) -> None:
        self._nvml: Any = library
        self._handle = handle
        self._whole = handle if whole is None else whole
        self._is_part = whole is not None
        mismatch = getattr(library, "NVMLLibraryMismatchError", library.NVMLError)  # not derived from NVMLError
        self._failures: tuple[type[Exception], ...] = (library.NVMLError, mismatch, AttributeError)

    def is_mig_device(self) -> bool:
        """Return whether the handle is that of a MIG device."""
        return bool(self._query(lambda: self._nvml.nvmlDeviceIsMigDeviceHandle(self._handle)))

    def is_divided(self) -> bool | None:
        """Return whether the GPU is divided into MIG devices."""
        return self._query(lambda: bool(self._nvml.nvmlDeviceGetMigMode(self._whole)[0]))

    def gpu(self) -> Gpu:
        """Return the GPU and its setup."""
        nvml, handle, whole = self._nvml, self._handle, self._whole
        capability = self._query(lambda: nvml.nvmlDeviceGetCudaComputeCapability(whole))
        version = self._query(lambda: nvml.nvmlSystemGetCudaDriverVersion_v2())
        limit = self._query(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(whole))
        default_limit = self._query(lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(whole))
        return Gpu(
            name=self._query(lambda: nvml.nvmlDeviceGetName(handle)) or UNKNOWN,
            uuid=self._query(lambda: nvml.nvmlDeviceGetUUID(handle)) or UNKNOWN,
            driver=self._query(lambda: nvml.nvmlSystemGetDriverVersion()) or UNKNOWN,
            cuda=UNKNOWN if version is None else f"{version // 1000}.{version % 1000 // 10}",
            compute_capability=UNKNOWN if capability is None else ".".join(map(str, capability)),
            memory_bytes=self._query(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
            sm_mhz_max=self._query(lambda: nvml.nvmlDeviceGetMaxClockInfo(whole, nvml.NVML_CLOCK_SM)),
            power_limit_w=None if limit is None else limit / 1000,
            power_limit_default_w=None if default_limit is None else default_limit / 1000,
            compute_mode=self.compute_mode(),
            mig=self.is_divided(),
            mps=self._query(lambda: bool(nvml.nvmlDeviceGetMPSComputeRunningProcesses(whole))),
            persistence=self._query(lambda: bool(nvml.nvmlDeviceGetPersistenceMode(whole))),
            ecc=self._query(lambda: bool(nvml.nvmlDeviceGetEccMode(whole)[0])),
            application_mhz=self._query(lambda: nvml.nvmlDeviceGetApplicationsClock(whole, nvml.NVML_CLOCK_SM)),
        )

    def compute_mode(self) -> str | None:
        """Return the compute mode, by the words of ``Gpu.compute_mode``."""
        mode = self._query(lambda: self._nvml.nvmlDeviceGetComputeMode(self._whole))
        words = {getattr(self._nvml, name, None): word for name, word in _COMPUTE_MODES.items()}
        return None if mode is None else words.get(mode, f"mode {mode}")

    def state(self) -> GpuState:
        """Return the state of the GPU now."""
        nvml, handle, whole = self._nvml, self._handle, self._whole
        power = None if self._is_part else self._query(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return GpuState(
            name=self._query(lambda: nvml.nvmlDeviceGetName(handle)) or UNKNOWN,
            uuid=self._query(lambda: nvml.nvmlDeviceGetUUID(handle)) or UNKNOWN,
            sm_mhz=self._query(lambda: nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_SM)),
            memory_mhz=self._query(lambda: nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_MEM)),
            power_w=None if power is None else power / 1000,
            temperature_c=self._query(lambda: nvml.nvmlDeviceGetTemperature(whole, nvml.NVML_TEMPERATURE_GPU)),
            throttle=self._reasons(),
            energy_j=self.energy_j(),
            memory_used_bytes=self.used_bytes(),
            mig_device=self._is_part,
        )

    def energy_j(self) -> float | None:
        """Return the energy since the driver was loaded, in joules."""
        if self._is_part:
            return None
        used: int | None = self._query(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if used is None else used / 1000

    def used_bytes(self) -> int | None:
        """Return the memory in use by all processes."""
        return self._query(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used))

    def free_bytes(self) -> int | None:
        """Return the memory that no process uses."""
        return self._query(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).free))

    def processes(self) -> Mapping[int, int | None] | None:
        """Return the memory in bytes by process number, of each process that computes on the GPU.

        The memory is ``None`` if the driver does not report it by process. In a container with process numbers of its
        own, the numbers may be those of the host, or the mapping may be empty.
        """
        listed = self._query(lambda: list(self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)))
        return None if listed is None else {process.pid: process.usedGpuMemory for process in listed}

    def utilisation(self) -> float | None:
        """Return the share of the last period in which the GPU computed. The period is at most a second."""
        rates = self._query(lambda: self._nvml.nvmlDeviceGetUtilizationRates(self._handle))
        return None if rates is None else rates.gpu / 100

    def utilisation_by_process(self, since_us: int) -> Mapping[int, float] | None:
        """Return the mean share of the GPU's time that each process computed, by process number.

        Processes that did not compute are absent.

        Args:
            since_us: The start of the time, in microseconds since 1970.
        """
        nvml = self._nvml
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(self._handle, since_us)
        except self._failures as error:
            not_found = getattr(nvml, "NVML_ERROR_NOT_FOUND", None)
            return {} if getattr(error, "value", None) == not_found is not None else None  # nothing computed
        shares: dict[int, list[float]] = {}
        for sample in samples:
            if sample.timeStamp > since_us:
                shares.setdefault(sample.pid, []).append(sample.smUtil / 100)
        return {pid: statistics.fmean(values) for pid, values in shares.items()}

    def power_limited_s(self) -> float | None:
        """Return the time in seconds for which the power limit has lowered the clock since the driver was loaded."""
        return self._read_limited_s("NVML_PERF_POLICY_POWER")

    def thermal_limited_s(self) -> float | None:
        """Return the time in seconds for which the temperature has lowered the clock since the driver was loaded."""
        return self._read_limited_s("NVML_PERF_POLICY_THERMAL")

    def _read_limited_s(self, policy: str) -> float | None:
        nvml = self._nvml
        time_ns: int | None = self._query(
            lambda: nvml.nvmlDeviceGetViolationStatus(self._whole, getattr(nvml, policy)).violationTime
        )
        return None if time_ns is None else time_ns / 1e9

    def _reasons(self) -> tuple[str, ...] | None:
        bits: int | None = self._query(lambda: self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._whole))
        if bits is None:
            return None
        words = {getattr(self._nvml, name, None): word for name, word in _REASONS.items()}
        single = (1 << position for position in range(bits.bit_length()))
        return tuple(words.get(bit, f"reason {bit:#x}") for bit in single if bits & bit)

    def _query(self, ask: Callable[[], T]) -> T | None:
        """Return the answer, or ``None`` if the driver or an older ``nvidia-ml-py`` lacks the function."""
        try:
            return ask()
        except self._failures:
            return None
