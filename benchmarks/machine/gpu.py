"""What an NVIDIA GPU tells of itself through its driver's management library (NVML): name, clocks, power, memory.

The library is read and nothing is set. What it does not tell is ``None``, never guessed; where there is no driver, or
``nvidia-ml-py`` is not installed, there is nothing to read at all. Imported late: on a processor none of it is.
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
"""How long the GPU is kept at work for its energy to be told: the counter moves in steps of up to a tenth of that."""

UNKNOWN = "unknown"

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
"""Why the clocks are not higher: the library's bits, and the words for them."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as it was built and set up, by the driver that tells.

    ``cuda`` is the newest version that the driver serves, ``sm_mhz_max`` the highest clock of the multiprocessors.
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
        name, uuid: which one.
        sm_mhz, memory_mhz: clocks of the multiprocessors and of the memory.
        power_w: averaged by the driver, over a second on recent GPUs.
        temperature_c: of the die.
        throttle: why the multiprocessors' clock is not higher; ``None`` if the driver does not say.
        energy_j: since the driver was loaded.
        memory_used_bytes: by all processes, and by the driver itself.
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
    """Why no GPU can be read here, with the remedy, or ``None`` if one can."""
    try:
        import pynvml
    except ImportError:
        return "nvidia-ml-py is not installed (pip install nvidia-ml-py)"
    try:
        pynvml.nvmlInit()
        return None if pynvml.nvmlDeviceGetCount() else "the NVIDIA driver tells of no GPU"
    except pynvml.NVMLError as error:
        return f"no NVIDIA driver answers: {error}"


def gpus() -> tuple[Gpu, ...]:
    """Those that the driver tells of, in its order; none where it does not answer."""
    library = _library()
    if library is None:
        return ()
    handles = (library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount()))
    return tuple(Gauge(library, handle).gpu() for handle in handles)


def gauge(device: str) -> Gauge | None:
    """The GPU that a runtime on ``device`` uses: CUDA's first one, whichever that is for the driver.

    ``None`` on a processor, where no driver answers, and where it is unclear which of several GPUs it is.
    """
    library = None if device == "cpu" else _library()
    if library is None:
        return None
    if (address := _bus_address()) is not None:
        with suppress(library.NVMLError):  # it does not know the address, as in a container with numbers of its own
            return Gauge(library, library.nvmlDeviceGetHandleByPciBusId(address))
    with suppress(library.NVMLError):
        if library.nvmlDeviceGetCount() == 1:
            return Gauge(library, library.nvmlDeviceGetHandleByIndex(0))
    return None


def _library() -> ModuleType | None:
    """The management library, started; it ends with the process."""
    if missing() is not None:
        return None
    import pynvml

    return pynvml  # type: ignore[no-any-return]


def _bus_address() -> str | None:
    """Where CUDA's first device sits on the PCI bus. CUDA numbers the GPUs by speed and by what is made visible to it,
    the management library by their place."""
    try:
        from cuda.bindings import runtime as cudart

        status, address = cudart.cudaDeviceGetPCIBusId(16, 0)
    except (ImportError, OSError, RuntimeError):  # it is not installed, or finds no library of CUDA
        return None
    if status != cudart.cudaError_t.cudaSuccess:
        return None
    text: str = address.decode() if isinstance(address, bytes) else str(address)
    return text.split("\0")[0]


class Gauge:
    """Reads one GPU. What the driver does not support for it is ``None``."""

    def __init__(self, library: ModuleType, handle: object) -> None:
        self._nvml: Any = library
        self._handle = handle

    def gpu(self) -> Gpu:
        """What it is."""
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
        """How it is now."""
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
        """What it has used since the driver was loaded."""
        used: int | None = self._query(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if used is None else used / 1000

    def used_bytes(self) -> int | None:
        """Of its memory, by all processes."""
        return self._query(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used))

    def _reasons(self) -> tuple[str, ...] | None:
        bits: int | None = self._query(lambda: self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        if bits is None:
            return None
        words = {getattr(self._nvml, name): word for name, word in _REASONS.items()}
        single = (1 << place for place in range(bits.bit_length()))
        return tuple(words.get(bit, f"reason {bit:#x}") for bit in single if bits & bit)

    def _query(self, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except self._nvml.NVMLError:
            return None


class GpuMonitor:
    """The GPU while a job is at work on it. On a processor, and where no driver answers, everything is ``None``."""

    def __init__(self, device: str) -> None:
        """Made before the job takes any of the GPU's memory."""
        self._gauge = gauge(device)
        self._baseline = self._peak = None if self._gauge is None else self._gauge.used_bytes()

    def read_state(self) -> GpuState | None:
        """Its state now; the memory in use counts for ``peak_bytes``."""
        if self._gauge is None:
            return None
        state = self._gauge.state()
        if self._peak is not None and state.memory_used_bytes is not None:
            self._peak = max(self._peak, state.memory_used_bytes)
        return state

    def peak_bytes(self) -> int | None:
        """The most memory that was in use at any look, above what was in use before the job.

        Libraries keep what they have taken, so that what a step used is still there after it. The GPU's memory is
        seen as a whole: another process that takes or frees some meanwhile is counted too.
        """
        return None if self._peak is None or self._baseline is None else self._peak - self._baseline

    def measure_energy(
        self, work: Callable[[], T], more: Callable[[], object], clock: Callable[[], float] = time.perf_counter
    ) -> tuple[T, float | None]:
        """What the work gives, and the joules of the whole GPU for it, and for calling ``more`` after it for as long as
        both have not taken ``ENERGY_LEAST_S``; ``None`` where the GPU tells none, and then nothing more is called."""
        used = self._energy_j()
        start = clock()
        result = work()
        while used is not None and clock() - start < ENERGY_LEAST_S:
            more()
        now = self._energy_j()
        return result, None if used is None or now is None else now - used

    def _energy_j(self) -> float | None:
        return None if self._gauge is None else self._gauge.energy_j()
