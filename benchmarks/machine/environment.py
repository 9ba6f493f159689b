"""The machine and software that results were measured on. Values that the system does not report are "unknown"."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.machine import gpu
from benchmarks.machine.gpu import UNKNOWN, Gpu
from benchmarks.machine.procfs import frequency_mhz, read_text
from runtimes.processors import usable_processors

INSTRUCTION_SETS = (
    *("f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2"),
)
"""The instruction sets that determine the speed of convolutions, by the kernel's names."""

VARIABLE_PREFIXES = (
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "DNNL_", "ONEDNN_"),
    *("MALLOC_", "CUDA_", "NVIDIA_TF32"),
)
"""The prefixes of environment variables that control thread pools, allocators and arithmetic."""


@dataclass(frozen=True)
class Environment:
    """A machine at one moment.

    Attributes:
        cpu: The model of the processor.
        architecture: The architecture, as the kernel names it.
        processors: The number of processors of the machine.
        usable_processors: The number of processors that this process may use, by affinity and control group.
        instruction_sets: The supported instruction sets of ``INSTRUCTION_SETS``.
        memory_bytes: The memory of the machine; 0 if unknown.
        system: The name and version of the operating system.
        kernel: The name and version of the kernel.
        python: The implementation and version of Python.
        packages: The versions of all installed packages by name.
        variables: The environment variables that control thread pools, allocators and arithmetic.
        governor: The governor of the processor frequency.
        frequency_mhz: The frequency of the first processor now, or ``None``.
        load_average: The load averages over 1, 5 and 15 minutes, or ``None``.
        gpus: The GPUs that NVIDIA's driver reports; empty without a driver or without ``nvidia-ml-py``.
    """

    cpu: str
    architecture: str
    processors: int
    usable_processors: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    system: str
    kernel: str
    python: str
    packages: Mapping[str, str]
    variables: Mapping[str, str]
    governor: str
    frequency_mhz: float | None
    load_average: tuple[float, float, float] | None
    gpus: tuple[Gpu, ...] = ()


def environment(root: Path = Path("/")) -> Environment:
    """Return this machine now. ``root`` is the folder that holds ``proc``, ``sys`` and ``etc``."""
    processor, memory = _fields(root / "proc/cpuinfo"), _fields(root / "proc/meminfo").get("MemTotal", "")
    flags = set((processor.get("flags") or processor.get("Features") or "").split())
    packages = {str(each.metadata["Name"]): each.version for each in metadata.distributions() if each.metadata["Name"]}
    load = read_text(root / "proc/loadavg").split()
    return Environment(
        cpu=processor.get("model name") or platform.processor() or UNKNOWN,
        architecture=platform.machine(),
        processors=os.cpu_count() or 1,
        usable_processors=usable_processors(),
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        memory_bytes=int(memory.removesuffix("kB") or 0) * 1024,
        system=_fields(root / "etc/os-release", "=").get("PRETTY_NAME", "").strip('"') or UNKNOWN,
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        variables={name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLE_PREFIXES)},
        governor=read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or UNKNOWN,
        frequency_mhz=frequency_mhz(root, "0"),
        load_average=(float(load[0]), float(load[1]), float(load[2])) if load else None,
        gpus=gpu.gpus(),
    )


def _fields(path: Path, separator: str = ":") -> dict[str, str]:
    """Return the fields of a system file. Of ``/proc/cpuinfo`` only those of the first processor are returned."""
    first = read_text(path).split("\n\n")[0]
    pairs = (line.partition(separator) for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
