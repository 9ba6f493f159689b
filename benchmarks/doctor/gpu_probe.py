"""Facts that only the GPU libraries know, asked in a separate process that these libraries may crash."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.machine import gpu
from benchmarks.machine.environment import Environment, environment
from benchmarks.machine.family import Family
from benchmarks.process import isolated
from benchmarks.process.isolated import Failure
from runtimes import available_backends
from runtimes.errors import BackendUnavailableError, CheckFailedError, Reason
from runtimes.tensors import cuda
from runtimes.tensors.cuda import Device

MODULE = "benchmarks.doctor.gpu_probe"
"""This module, which the process runs."""

LIMIT_S = 60.0
"""The time limit of the process."""

NOT_PROBED = Reason("gpu-not-probed", "the GPU libraries could not be asked")
"""The reason for all facts about GPUs if the GPU libraries crash or hang."""


@dataclass(frozen=True)
class GpuProbe:
    """The facts that the process reports.

    Attributes:
        environment: The machine.
        missing: For each backend, the reason why it cannot run here, or ``None``.
        installs: For each backend, the message about its missing library, as if nothing were installed.
        nvml: The reason why the management library (NVML) shows no GPU, or ``None``.
        cuda: The reason why the CUDA runtime shows no GPU, or ``None``.
        devices: The GPUs that the CUDA runtime shows.
        users: The names of other processes that compute on each GPU of the environment.
    """

    environment: Environment
    missing: Mapping[str, str | None]
    installs: Mapping[str, str | None]
    nvml: str | None
    cuda: str | None
    devices: tuple[Device, ...]
    users: tuple[tuple[str, ...], ...] = ()


def probe_gpus(limit_s: float = LIMIT_S) -> tuple[GpuProbe, str | None]:
    """Ask the GPU libraries in a process of its own.

    Args:
        limit_s: The time limit of the process.

    Returns:
        The facts, and how the process ended if it did not return. In this case a second process reports the facts
        without the GPU libraries.

    Raises:
        CheckFailedError: The second process fails, too.
    """
    probe = isolated.call(MODULE, False, GpuProbe, limit_s)
    if isinstance(probe, GpuProbe):
        return probe, None
    rest = isolated.call(MODULE, True, GpuProbe, limit_s)
    if isinstance(rest, Failure):
        raise CheckFailedError(f"the machine could not be examined: {rest.reason}", code="probe-failed")
    return rest, probe.reason.sentence


def main(arguments: Sequence[str]) -> int:
    """Run in the process, with the ``arguments`` of ``benchmarks.process.isolated.answer``."""
    return isolated.answer(arguments, bool, _probe)


def _probe(without_gpu: bool) -> GpuProbe:
    """Return the facts, if ``without_gpu`` without loading the GPU libraries. The process must end afterwards."""
    if without_gpu:
        cuda.missing = lambda: NOT_PROBED
        gpu.missing = lambda: NOT_PROBED.sentence
    users = _users()  # before CUDA is started here
    machine, missing, no_cuda, no_nvml = environment(), _missing(), cuda.missing(), gpu.missing()
    devices: list[Device] = []
    if no_cuda is None:
        with suppress(BackendUnavailableError):  # raised for the first index without a device
            while True:
                devices.append(cuda.device(len(devices)))
    # From here on, each backend takes its library for not installed.
    importlib.util.find_spec = lambda *_: None
    return GpuProbe(machine, missing, _missing(), no_nvml, _sentence(no_cuda), tuple(devices), users)


def _users() -> tuple[tuple[str, ...], ...]:
    family = Family()
    return tuple(
        tuple(family.name(pid) for pid in each.processes() or () if pid not in family) for each in gpu.gauges()
    )


def _missing() -> dict[str, str | None]:
    return {row.name: _sentence(row.missing()) for row in available_backends()}


def _sentence(reason: Reason | None) -> str | None:
    return None if reason is None else reason.sentence
