"""What only the libraries of a GPU and the machine tell, asked in a process of its own, which they may end."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.machine import gpu
from benchmarks.machine.environment import Environment, environment
from benchmarks.process import isolated
from benchmarks.process.isolated import Failure
from runtimes import available_backends
from runtimes.errors import BackendUnavailableError, CheckFailedError, Reason
from runtimes.tensors import cuda
from runtimes.tensors.cuda import Device

MODULE = "benchmarks.doctor.gpu_probe"
LIMIT_S = 60.0
UNASKED = Reason("gpu-not-probed", "the GPU's libraries could not be asked")


@dataclass(frozen=True)
class GpuProbe:
    """What was seen.

    Attributes:
        environment: the machine.
        missing: by backend, why it cannot run here.
        installs: by backend, the message in which it asks for its library where that is not installed.
        nvml, cuda: why the management library and the CUDA runtime show no GPU.
        devices: that the CUDA runtime shows.
    """

    environment: Environment
    missing: Mapping[str, str | None]
    installs: Mapping[str, str | None]
    nvml: str | None
    cuda: str | None
    devices: tuple[Device, ...]


def probe_gpus(limit_s: float = LIMIT_S) -> tuple[GpuProbe, str | None]:
    """What was seen, and how the process ended that asked the GPU's libraries, if it did not return.

    Raises:
        CheckFailedError: not even the rest could be seen.
    """
    seen = isolated.call(MODULE, False, GpuProbe, limit_s)
    if isinstance(seen, GpuProbe):
        return seen, None
    rest = isolated.call(MODULE, True, GpuProbe, limit_s)
    if isinstance(rest, Failure):
        raise CheckFailedError(f"the machine could not be examined: {rest.reason}", code="probe-failed")
    return rest, seen.reason.sentence


def main(arguments: Sequence[str]) -> int:
    """What the process runs, as ``benchmarks.process.isolated.answer``. It is of no other use afterwards."""
    return isolated.answer(arguments, bool, _probe)


def _probe(blind: bool) -> GpuProbe:
    """``blind``: the libraries of a GPU are left alone."""
    if blind:
        cuda.missing = lambda: UNASKED
        gpu.missing = lambda: UNASKED.sentence
    machine, missing, no_cuda, no_nvml = environment(), _missing(), cuda.missing(), gpu.missing()
    devices: list[Device] = []
    if no_cuda is None:
        with suppress(BackendUnavailableError):  # there are no more
            while True:
                devices.append(cuda.device(len(devices)))
    # The process's last question: to each backend it looks as if nothing were installed.
    importlib.util.find_spec = lambda *_: None
    return GpuProbe(machine, missing, _missing(), no_nvml, _sentence(no_cuda), tuple(devices))


def _missing() -> dict[str, str | None]:
    return {row.name: _sentence(row.missing()) for row in available_backends()}


def _sentence(reason: Reason | None) -> str | None:
    return None if reason is None else reason.sentence
