"""What only the libraries of a GPU and the machine tell, asked in a process of its own, which they may end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import benchmarks
from benchmarks.format import one_line
from benchmarks.machine import gpu
from benchmarks.machine.environment import Environment, environment
from runtimes import available_backends, codec
from runtimes.errors import ArtifactError, BackendUnavailableError, CheckFailedError, Reason
from runtimes.tensors import cuda
from runtimes.tensors.cuda import Device

LIMIT_S = 60.0
UNASKED = "the GPU's libraries could not be asked"


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
    seen, ending = _probe_in_process(False, limit_s)
    if seen is not None:
        return seen, None
    blind, worse = _probe_in_process(True, limit_s)
    if blind is None:
        raise CheckFailedError(f"the machine could not be looked at: its process {worse}")
    return blind, ending


def _probe_in_process(blind: bool, limit_s: float) -> tuple[GpuProbe | None, str]:
    """What a process saw, or ``None`` and how it ended."""
    root = str(Path(benchmarks.__path__[0]).parent)
    paths = filter(None, (root, os.environ.get("PYTHONPATH")))
    process = subprocess.Popen(
        (sys.executable, "-P", "-c", f"from {__name__} import print_probe; print_probe({blind})"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    try:
        told, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, f"did not answer in {limit_s:g} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode < 0:
        return None, f"was ended by {signal.Signals(-process.returncode).name}"
    try:
        return codec.loads(GpuProbe, told), ""
    except ArtifactError:
        last = one_line((errors.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1])
        return None, f"ended with exit code {process.returncode}: {last}"


def _probe_libraries() -> GpuProbe:
    machine = environment()
    missing = {row.name: _text(row.missing()) for row in available_backends()}
    no_cuda, no_nvml = _text(cuda.missing()), gpu.missing()
    devices = () if no_cuda else _devices()
    # The process's last question: to each backend it looks as if nothing were installed.
    importlib.util.find_spec = lambda *_: None
    installs = {row.name: _text(row.missing()) for row in available_backends()}
    return GpuProbe(machine, missing, installs, no_nvml, no_cuda, devices)


def _text(reason: Reason | None) -> str | None:
    return None if reason is None else reason.sentence


def _devices() -> tuple[Device, ...]:
    found: list[Device] = []
    while True:
        try:
            found.append(cuda.device(len(found)))
        except BackendUnavailableError:
            return tuple(found)


def print_probe(blind: bool) -> None:
    """What the process runs: prints a ``GpuProbe`` as JSON. Blind, it asks no library of a GPU.

    What libraries print goes to standard error; the process is of no other use afterwards.
    """
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if blind:
        cuda.missing = lambda: Reason("gpu-not-probed", UNASKED)
        gpu.missing = lambda: UNASKED
    with answer:
        answer.write(codec.dumps(_probe_libraries()))
