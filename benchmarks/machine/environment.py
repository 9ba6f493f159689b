"""What the numbers were taken on. What the machine does not tell is "unknown", never guessed."""

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
"""Those that decide how fast a convolution can be, by the kernel's names for them."""

VARIABLE_PREFIXES = (
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "DNNL_", "ONEDNN_"),
    *("MALLOC_", "CUDA_", "NVIDIA_TF32"),
)
"""Environment variables that steer thread pools, allocators and arithmetic."""


@dataclass(frozen=True)
class Environment:
    """A machine at one moment.

    Attributes:
        cpu: the processor's model.
        architecture: as the kernel names it.
        processors: that the machine has.
        usable_processors: that this process may use, by affinity and control group.
        instruction_sets: of ``INSTRUCTION_SETS``, those that are there.
        memory_bytes: of the machine; 0 if unknown.
        system, kernel: the operating system's and the kernel's versions.
        python: version and implementation.
        packages: every installed distribution and its version.
        variables: those that steer threads, allocators and arithmetic.
        governor: of the processor's frequency.
        frequency_mhz: of the first processor now, or ``None``.
        load_average: over 1, 5 and 15 minutes, or ``None``.
        gpus: that NVIDIA's driver tells of; none where it does not answer or ``nvidia-ml-py`` is not installed.
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
    """This machine now. ``root`` is where ``proc``, ``sys`` and ``etc`` are looked for."""
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
    """The fields of a file of the system; of ``/proc/cpuinfo`` those of the first processor."""
    first = read_text(path).split("\n\n")[0]
    pairs = (line.partition(separator) for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
