"""The names of devices: ``cpu``, ``cuda`` and ``cuda:N``. All backends count GPUs alike.

The number of a GPU is CUDA's own, as ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER`` leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtimes.errors import UsageError, quote

CPU = "cpu"
"""The kind of device that always exists: the default of all models that run there."""

CUDA = "cuda"
"""The kind of device for NVIDIA GPUs."""

KINDS = (CPU, CUDA)
"""The kinds of devices."""

AUTO = "auto"
"""The name that stands for the first GPU if it can run the model, else for the CPU."""

_KNOWN = "cpu, cuda or cuda:N"


@dataclass(frozen=True, order=True)
class DeviceName:
    """The name of one device.

    Attributes:
        kind: The kind, one of ``KINDS``.
        index: The number of the device among those of its kind. The CPU has the number 0.
    """

    kind: str
    index: int = 0

    def __str__(self) -> str:
        """Return the name as ``runtimes.open`` takes it. The first GPU is called ``cuda``."""
        return f"{self.kind}:{self.index}" if self.index else self.kind

    @property
    def numbered(self) -> str:
        """The name with its number, as PyTorch writes it: ``cuda:0``. The CPU has no number."""
        return self.kind if self.kind == CPU else f"{self.kind}:{self.index}"


def parse_device(text: str) -> DeviceName:
    """Return the device that a name stands for. The case of letters does not count.

    Raises:
        UsageError: The name is unknown, or its number is no number.
    """
    kind, colon, number = str(text).strip().lower().partition(":")
    if kind not in KINDS:
        raise UsageError(f"unknown device {quote(text)!r}", code="device-unknown", hint=f"choose one of {_KNOWN}")
    if not colon:
        return DeviceName(kind)
    if kind == CPU or not (number.isascii() and number.isdecimal()) or len(number) > _DIGITS:
        raise UsageError(
            f"the device {quote(text)!r} has no valid number",
            code="device-number-invalid",
            hint=f"choose one of {_KNOWN}, where N counts from 0",
        )
    return DeviceName(kind, int(number))


_DIGITS = 4
"""The largest number of digits of a device's number."""


def join_devices(devices: Sequence[DeviceName]) -> str:
    """Return the names of devices as ``parse_devices`` takes them. One device has its shortest name."""
    return ",".join(device.numbered for device in devices) if len(devices) > 1 else str(devices[0])


def parse_devices(text: str) -> tuple[DeviceName, ...]:
    """Return the devices of a list of names with commas between them, each once, in their order.

    Raises:
        UsageError: As for ``parse_device``; or the CPU stands beside GPUs.
    """
    devices = tuple(dict.fromkeys(map(parse_device, str(text).split(","))))
    if len({device.kind for device in devices}) > 1:
        raise UsageError(
            f"the devices {quote(text)!r} are of different kinds",
            code="device-kinds-differ",
            hint="name GPUs only, as cuda:0,cuda:1, or measure the CPU in a run of its own",
        )
    return devices
