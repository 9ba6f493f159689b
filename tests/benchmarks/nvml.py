"""A double of ``pynvml``, for there is no NVIDIA driver where the tests run: GPUs whose readings are scripted.

It has the names that ``benchmarks.machine.gpu`` uses and no others; ``test_gpu`` asserts that the real module has
each, as a function of the same arguments or as a constant of the same value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TypeVar

import pytest

from runtimes.devices import parse_device

MIB = 1 << 20
T = TypeVar("T")


@dataclass
class Card:
    """A scripted GPU. Readings that are iterators are asked in turn, as by ``steady``; ``lacks`` names the functions
    that it does not support.

    ``processes`` has the memory by process number, ``shares`` the percents of samples by process number;
    ``clients`` are the processes that go through MPS.
    """

    name: str = "NVIDIA H200"
    uuid: str = "GPU-0"
    whole: Card | None = None
    sm_mhz: int = 1980
    power_mw: int = 512_250
    reasons: int = 0
    used_bytes: Iterator[int] = field(default_factory=lambda: steady(600 * MIB))
    energy_mj: Iterator[int] = field(default_factory=lambda: steady(1_000_000))
    lacks: Sequence[str] = ()
    processes: Mapping[int, int | None] = field(default_factory=dict)
    shares: Mapping[int, Sequence[int]] = field(default_factory=dict)
    utilisation: Iterator[int] = field(default_factory=lambda: steady(0))
    power_ns: Iterator[int] = field(default_factory=lambda: steady(0))
    thermal_ns: Iterator[int] = field(default_factory=lambda: steady(0))
    clocks_mhz: Iterator[int] | None = None
    compute_mode: int = 0
    mig: int = 0
    clients: Sequence[int] = ()
    persistence: int = 1
    ecc: int = 1
    power_limit_mw: int = 700_000


def steady(*values: int) -> Iterator[int]:
    """The values, and then the last one for ever."""
    yield from values
    while True:
        yield values[-1]


NOT_SUPPORTED, NOT_FOUND, NO_DRIVER = 3, 6, 9


class NVMLError(Exception):
    """Of the double's own, with the codes of the real one."""

    def __init__(self, value: int) -> None:
        super().__init__(
            {NOT_SUPPORTED: "Not Supported", NOT_FOUND: "Not Found", NO_DRIVER: "Driver Not Loaded"}[value]
        )
        self.value = value


class NVMLLibraryMismatchError(Exception):
    """Raised in place of a function that the driver's library lacks; as in the real module, no ``NVMLError``."""


class Nvml(ModuleType):
    """The module. ``driver`` says whether one answers."""

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError
    NVML_ERROR_NOT_FOUND = NOT_FOUND
    NVML_COMPUTEMODE_DEFAULT = 0
    NVML_COMPUTEMODE_PROHIBITED = 2
    NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 3
    NVML_PERF_POLICY_POWER = 0
    NVML_PERF_POLICY_THERMAL = 1
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    nvmlClocksEventReasonGpuIdle = 0x1  # noqa: N815
    nvmlClocksEventReasonApplicationsClocksSetting = 0x2  # noqa: N815
    nvmlClocksEventReasonSwPowerCap = 0x4  # noqa: N815
    nvmlClocksEventReasonHwSlowdown = 0x8  # noqa: N815
    nvmlClocksEventReasonSyncBoost = 0x10  # noqa: N815
    nvmlClocksEventReasonSwThermalSlowdown = 0x20  # noqa: N815
    nvmlClocksEventReasonHwThermalSlowdown = 0x40  # noqa: N815
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80  # noqa: N815
    nvmlClocksEventReasonDisplayClockSetting = 0x100  # noqa: N815

    def __init__(self, cards: Sequence[Card], driver: bool = True) -> None:
        super().__init__("pynvml")
        self._cards, self._driver = cards, driver

    def nvmlInit(self) -> None:  # noqa: N802
        if not self._driver:
            raise NVMLError(NO_DRIVER)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._cards)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.159.03"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 13000

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        return self._cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:  # noqa: N802
        for card in self._cards:
            if card.uuid == uuid:
                return card
        raise NVMLError(NOT_FOUND)

    def nvmlDeviceIsMigDeviceHandle(self, handle: Card) -> int:  # noqa: N802
        return int(handle.whole is not None)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: Card) -> Card:  # noqa: N802, N803
        assert migDevice.whole is not None
        return migDevice.whole

    def nvmlDeviceGetName(self, handle: Card) -> str:  # noqa: N802
        return self._supported(handle, "Name", lambda: handle.name)

    def nvmlDeviceGetUUID(self, handle: Card) -> str:  # noqa: N802
        return self._supported(handle, "UUID", lambda: handle.uuid)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Card) -> tuple[int, int]:  # noqa: N802
        return self._supported(handle, "CudaComputeCapability", lambda: (9, 0))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "EnforcedPowerLimit", lambda: handle.power_limit_mw)

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "PowerManagementDefaultLimit", lambda: 700_000)

    def nvmlDeviceGetComputeMode(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "ComputeMode", lambda: handle.compute_mode)

    def nvmlDeviceGetMigMode(self, device: Card) -> list[int]:  # noqa: N802
        return self._supported(device, "MigMode", lambda: [device.mig, device.mig])

    def nvmlDeviceGetPersistenceMode(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "PersistenceMode", lambda: handle.persistence)

    def nvmlDeviceGetEccMode(self, handle: Card) -> list[int]:  # noqa: N802
        return self._supported(handle, "EccMode", lambda: [handle.ecc, handle.ecc])

    def nvmlDeviceGetApplicationsClock(self, handle: Card, type: int) -> int:  # noqa: N802
        return self._supported(handle, "ApplicationsClock", lambda: {1: 1980, 2: 3201}[type])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Card) -> list[SimpleNamespace]:  # noqa: N802
        return self._supported(handle, "ComputeRunningProcesses", lambda: as_listed(handle.processes))

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Card) -> list[SimpleNamespace]:  # noqa: N802
        return self._supported(
            handle, "MPSComputeRunningProcesses", lambda: as_listed(dict.fromkeys(handle.clients, 1))
        )

    def nvmlDeviceGetUtilizationRates(self, handle: Card) -> SimpleNamespace:  # noqa: N802
        return self._supported(handle, "UtilizationRates", lambda: SimpleNamespace(gpu=next(handle.utilisation)))

    def nvmlDeviceGetProcessUtilization(self, handle: Card, timeStamp: int) -> list[SimpleNamespace]:  # noqa: N802, N803
        samples = self._supported(
            handle,
            "ProcessUtilization",
            lambda: [(pid, share) for pid, each in handle.shares.items() for share in each],
        )
        if not samples:
            raise NVMLError(NOT_FOUND)
        old = SimpleNamespace(pid=samples[0][0], smUtil=100, timeStamp=timeStamp)
        return [old, *(SimpleNamespace(pid=pid, smUtil=share, timeStamp=timeStamp + 1) for pid, share in samples)]

    def nvmlDeviceGetViolationStatus(self, device: Card, perfPolicyType: int) -> SimpleNamespace:  # noqa: N802, N803
        counter = {0: device.power_ns, 1: device.thermal_ns}[perfPolicyType]
        return self._supported(device, "ViolationStatus", lambda: SimpleNamespace(violationTime=next(counter)))

    def nvmlDeviceGetMaxClockInfo(self, handle: Card, type: int) -> int:  # noqa: N802
        return self._supported(handle, "MaxClockInfo", lambda: {1: 1980, 2: 3201}[type])

    def nvmlDeviceGetClockInfo(self, handle: Card, type: int) -> int:  # noqa: N802
        return self._supported(handle, "ClockInfo", lambda: self._sm_mhz(handle) if type == 1 else 3201)

    def nvmlDeviceGetPowerUsage(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "PowerUsage", lambda: handle.power_mw)

    def nvmlDeviceGetTemperature(self, handle: Card, sensor: int) -> int:  # noqa: N802
        return self._supported(handle, "Temperature", lambda: {0: 41}[sensor])

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "CurrentClocksEventReasons", lambda: handle.reasons)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "TotalEnergyConsumption", lambda: next(handle.energy_mj))

    def nvmlDeviceGetMemoryInfo(self, handle: Card) -> SimpleNamespace:  # noqa: N802
        return self._supported(handle, "MemoryInfo", lambda: memory(next(handle.used_bytes)))

    @staticmethod
    def _sm_mhz(card: Card) -> int:
        return card.sm_mhz if card.clocks_mhz is None else next(card.clocks_mhz)

    def _supported(self, card: Card, name: str, give: Callable[[], T]) -> T:
        if name in card.lacks:
            raise NVMLError(NOT_SUPPORTED)
        return give()


TOTAL_BYTES = 143_771 * MIB


def memory(used_bytes: int) -> SimpleNamespace:
    """A reading of the memory."""
    return SimpleNamespace(total=TOTAL_BYTES, used=used_bytes, free=TOTAL_BYTES - used_bytes)


def as_listed(processes: Mapping[int, int | None]) -> list[SimpleNamespace]:
    """Processes as NVML lists them."""
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes.items()]


def installed(monkeypatch: pytest.MonkeyPatch, *cards: Card, driver: bool = True, cuda: Sequence[str] = ()) -> Nvml:
    """Puts the double in the place of ``pynvml``; ``cuda`` are the identifiers of CUDA's devices, as far as it tells.

    ``whole`` of a card is the GPU that it is a MIG device of."""
    from benchmarks.machine import gpu

    double = Nvml(cards, driver)
    monkeypatch.setitem(sys.modules, "pynvml", double)
    identifiers = dict(enumerate(cuda))
    monkeypatch.setattr(gpu, "_identifier", lambda device: identifiers.get(parse_device(device).index, ""))
    return double
