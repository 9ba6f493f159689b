"""A double of ``pynvml``, for there is no NVIDIA driver where the tests run: GPUs whose readings are scripted.

It has the names that ``benchmarks.machine.gpu`` uses and no others; ``test_gpu`` asserts that the real module has
each, as a function of the same arguments or as a constant of the same value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TypeVar

import pytest

MIB = 1 << 20
T = TypeVar("T")


@dataclass
class Card:
    """A scripted GPU. ``used_bytes`` and ``energy_mj`` are asked in turn, and the last one again and again; ``lacks``
    names the functions that it does not support."""

    name: str = "NVIDIA H200"
    uuid: str = "GPU-0"
    bus: str = "00000000:3B:00.0"
    sm_mhz: int = 1980
    power_mw: int = 512_250
    reasons: int = 0
    used_bytes: Iterator[int] = field(default_factory=lambda: steady(600 * MIB))
    energy_mj: Iterator[int] = field(default_factory=lambda: steady(1_000_000))
    lacks: Sequence[str] = ()


def steady(*values: int) -> Iterator[int]:
    """The values, and then the last one for ever."""
    yield from values
    while True:
        yield values[-1]


class NVMLError(Exception):
    """Of the double's own."""


class Nvml(ModuleType):
    """The module. ``driver`` says whether one answers."""

    NVMLError = NVMLError
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
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._cards)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.159.03"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 13000

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        return self._cards[index]

    def nvmlDeviceGetHandleByPciBusId(self, pciBusId: str) -> Card:  # noqa: N802, N803
        for card in self._cards:
            if card.bus.lower().endswith(pciBusId.lower()):
                return card
        raise NVMLError("Not Found")

    def nvmlDeviceGetName(self, handle: Card) -> str:  # noqa: N802
        return self._supported(handle, "Name", lambda: handle.name)

    def nvmlDeviceGetUUID(self, handle: Card) -> str:  # noqa: N802
        return self._supported(handle, "UUID", lambda: handle.uuid)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Card) -> tuple[int, int]:  # noqa: N802
        return self._supported(handle, "CudaComputeCapability", lambda: (9, 0))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "EnforcedPowerLimit", lambda: 700_000)

    def nvmlDeviceGetMaxClockInfo(self, handle: Card, type: int) -> int:  # noqa: N802
        return self._supported(handle, "MaxClockInfo", lambda: {1: 1980, 2: 3201}[type])

    def nvmlDeviceGetClockInfo(self, handle: Card, type: int) -> int:  # noqa: N802
        return self._supported(handle, "ClockInfo", lambda: {1: handle.sm_mhz, 2: 3201}[type])

    def nvmlDeviceGetPowerUsage(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "PowerUsage", lambda: handle.power_mw)

    def nvmlDeviceGetTemperature(self, handle: Card, sensor: int) -> int:  # noqa: N802
        return self._supported(handle, "Temperature", lambda: {0: 41}[sensor])

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "CurrentClocksEventReasons", lambda: handle.reasons)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Card) -> int:  # noqa: N802
        return self._supported(handle, "TotalEnergyConsumption", lambda: next(handle.energy_mj))

    def nvmlDeviceGetMemoryInfo(self, handle: Card) -> SimpleNamespace:  # noqa: N802
        return self._supported(
            handle, "MemoryInfo", lambda: SimpleNamespace(total=143_771 * MIB, used=next(handle.used_bytes))
        )

    def _supported(self, card: Card, name: str, give: Callable[[], T]) -> T:
        if name in card.lacks:
            raise NVMLError("Not Supported")
        return give()


def installed(monkeypatch: pytest.MonkeyPatch, *cards: Card, driver: bool = True, bus: str | None = None) -> Nvml:
    """Puts the double in the place of ``pynvml``; ``bus`` is where CUDA's first device is, as far as CUDA tells."""
    from benchmarks.machine import gpu

    double = Nvml(cards, driver)
    monkeypatch.setitem(sys.modules, "pynvml", double)
    monkeypatch.setattr(gpu, "_bus_address", lambda: bus)
    return double
