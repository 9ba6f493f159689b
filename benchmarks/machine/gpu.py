"""The data that an NVIDIA GPU reports through NVML, the driver's management library: name, clocks, power, memory.

NVML is only read; no setting is changed. Unreported values are ``None``. Without a driver or without ``nvidia-ml-py``
there is no data. The library is imported only for a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

ENERGY_LEAST_S = 1.0
"""The minimum time of work for an energy measurement. The counter moves in steps of up to a tenth of this time."""

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
    """

    name: str
    uuid: str
    driver: str
    cuda: str
    compute_capability: str
    memory_bytes: int | None
    sm_mhz_max: int | None
    power_limit_w: float | None


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
    library = _library()
    if library is None:
        return ()
    handles = (library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount()))
    return tuple(Gauge(library, handle).gpu() for handle in handles)


def gauge(device: str) -> Gauge | None:
    """Return the gauge of the GPU that a runtime on ``device`` uses, which is the first GPU of CUDA.

    The result is ``None`` for a processor, if no driver responds, and if it is unclear which of several GPUs is used.
    """
    library = None if device == "cpu" else _library()
    if library is None:
        return None
    if (address := _bus_address()) is not None:
        with suppress(library.NVMLError):  # NVML does not know the address, as in some containers
            return Gauge(library, library.nvmlDeviceGetHandleByPciBusId(address))
    with suppress(library.NVMLError):
        if library.nvmlDeviceGetCount() == 1:
            return Gauge(library, library.nvmlDeviceGetHandleByIndex(0))
    return None


def _library() -> ModuleType | None:
    """Return NVML after its start, or ``None``. NVML ends with the process."""
    if missing() is not None:
        return None
    import pynvml

    return pynvml  # type: ignore[no-any-return]


def _bus_address() -> str | None:
    """Return the PCI address of CUDA's first device. CUDA orders GPUs by speed and visibility, NVML by address."""
    try:
        from cuda.bindings import runtime as cudart

        status, address = cudart.cudaDeviceGetPCIBusId(16, 0)
    except (ImportError, OSError, RuntimeError):  # not installed, or no CUDA library is found
        return None
    if status != cudart.cudaError_t.cudaSuccess:
        return None
    text: str = address.decode() if isinstance(address, bytes) else str(address)
    return text.split("\0")[0]


class Gauge:
    """Reads one GPU. Values that the driver does not support for it are ``None``.

    Args:
        library: NVML.
        handle: NVML's handle of the GPU.
    """

    def __init__(self, library: ModuleType, handle: object) -> None:
        self._nvml: Any = library
        self._handle = handle

    def gpu(self) -> Gpu:
        """Return the GPU and its setup."""
        nvml, handle = self._nvml, self._handle
        capability = self._query(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
        version = self._query(nvml.nvmlSystemGetCudaDriverVersion_v2)
        limit = self._query(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        return Gpu(
            name=self._query(lambda: nvml.nvmlDeviceGetName(handle)) or UNKNOWN,
            uuid=self._query(lambda: nvml.nvmlDeviceGetUUID(handle)) or UNKNOWN,
            driver=self._query(nvml.nvmlSystemGetDriverVersion) or UNKNOWN,
            cuda=UNKNOWN if version is None else f"{version // 1000}.{version % 1000 // 10}",
            compute_capability=UNKNOWN if capability is None else ".".join(map(str, capability)),
            memory_bytes=self._query(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
            sm_mhz_max=self._query(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            power_limit_w=None if limit is None else limit / 1000,
        )

    def state(self) -> GpuState:
        """Return the state of the GPU now."""
        nvml, handle = self._nvml, self._handle
        power = self._query(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return GpuState(
            name=self._query(lambda: nvml.nvmlDeviceGetName(handle)) or UNKNOWN,
            uuid=self._query(lambda: nvml.nvmlDeviceGetUUID(handle)) or UNKNOWN,
            sm_mhz=self._query(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            memory_mhz=self._query(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            power_w=None if power is None else power / 1000,
            temperature_c=self._query(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            throttle=self._reasons(),
            energy_j=self.energy_j(),
            memory_used_bytes=self.used_bytes(),
        )

    def energy_j(self) -> float | None:
        """Return the energy since the driver was loaded, in joules."""
        used: int | None = self._query(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if used is None else used / 1000

    def used_bytes(self) -> int | None:
        """Return the memory in use by all processes."""
        return self._query(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used))

    def _reasons(self) -> tuple[str, ...] | None:
        bits: int | None = self._query(lambda: self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        if bits is None:
            return None
        words = {getattr(self._nvml, name): word for name, word in _REASONS.items()}
        single = (1 << position for position in range(bits.bit_length()))
        return tuple(words.get(bit, f"reason {bit:#x}") for bit in single if bits & bit)

    def _query(self, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except self._nvml.NVMLError:
            return None


class GpuMonitor:
    """The monitor of the GPU during a job. For a processor, and if no driver responds, all values are ``None``.

    The monitor must be created before the job uses memory of the GPU.

    Args:
        device: The device of the job.
    """

    def __init__(self, device: str) -> None:
        self._gauge = gauge(device)
        self._baseline = self._peak = None if self._gauge is None else self._gauge.used_bytes()

    def read_state(self) -> GpuState | None:
        """Return the state now. Its memory in use counts for ``peak_bytes``."""
        if self._gauge is None:
            return None
        state = self._gauge.state()
        if self._peak is not None and state.memory_used_bytes is not None:
            self._peak = max(self._peak, state.memory_used_bytes)
        return state

    def peak_bytes(self) -> int | None:
        """Return the highest memory in use at any reading, minus the memory in use before the job.

        Libraries keep the memory that they allocate, so memory that a step used is still visible after it. Memory that
        other processes allocate or free in the meantime counts, too.
        """
        return None if self._peak is None or self._baseline is None else self._peak - self._baseline

    def measure_energy(
        self, work: Callable[[], T], more: Callable[[], object], clock: Callable[[], float] = time.perf_counter
    ) -> tuple[T, float | None]:
        """Measure the energy of the whole GPU for some work.

        Args:
            work: The work, which is called once.
            more: Called after the work until both have taken ``ENERGY_LEAST_S``. Without an energy counter it is not
                called.
            clock: The clock.

        Returns:
            The result of the work, and the energy in joules of all calls; ``None`` if the GPU does not report it.
        """
        used = self._energy_j()
        start = clock()
        result = work()
        while used is not None and clock() - start < ENERGY_LEAST_S:
            more()
        now = self._energy_j()
        return result, None if used is None or now is None else now - used

    def _energy_j(self) -> float | None:
        return None if self._gauge is None else self._gauge.energy_j()
