"""What the machine is, and how rexport is set up on it: Python, processors, GPUs, folders."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import benchmarks
from benchmarks.doctor.findings import Finding, from_message
from benchmarks.doctor.gpu_probe import UNASKED, GpuProbe
from benchmarks.doctor.packages import at_least, parse_requirement, requirements
from benchmarks.machine.environment import Environment
from benchmarks.machine.gpu import UNKNOWN
from benchmarks.machine.procfs import read_text
from exporter.weights.download import CACHE_VARIABLE, cache_folder
from runtimes.backends.tensorrt import engine_cache
from runtimes.errors import Reason, ResourceError, UnsafeArtifactError
from runtimes.processors import control_groups

BUSY = 0.25
"""Share of the machine's processors: a load average above it disturbs what is measured."""

_GIB = 1 << 30


def version() -> str:
    """rexport's version, or ``unknown`` where it is not installed."""
    try:
        return metadata.version("rexport")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def folder() -> Path:
    """The folder that rexport runs from."""
    return Path(benchmarks.__path__[0]).parent


def python(version: str) -> Finding:
    """The Python under rexport; ``version`` as ``CPython 3.11.7``."""
    try:
        known = metadata.metadata("rexport")
    except metadata.PackageNotFoundError:
        return Finding("rexport", "python", "ok", "python-version", f"{version}")
    least = re.search(r">=\s*([\d.]+)", known["Requires-Python"] or "")
    tested = re.findall(r"Python :: (\d+\.\d+)$", "\n".join(known.get_all("Classifier") or ()), re.MULTILINE)
    number = version.split()[-1]
    if least and not at_least(number, least[1]):
        return Finding("rexport", "python", "broken", "python-too-old", f"{version}; rexport needs {least[1]} or newer")
    if tested and ".".join(number.split(".")[:2]) not in tested:
        listed = ", ".join(tested)
        return Finding("rexport", "python", "warning", "python-untested", f"{version}; rexport is tested on {listed}")
    return Finding("rexport", "python", "ok", "python-supported", f"{version}, which is supported")


def installation() -> list[Finding]:
    """Whether it is a checkout, and whether what pip knows of it is what stands there."""
    project = folder() / "pyproject.toml"
    if not project.is_file():
        return [Finding("rexport", "version", "ok", "rexport-installed", f"{version()}, installed in {folder()}")]
    edit = f"pip install -e {shlex.quote(str(folder()))}"
    if version() == UNKNOWN:
        reason = Reason(
            "checkout-not-installed",
            f"it runs from the checkout {folder()} and is not installed: its commands and extras are not known to pip",
        )
        return [from_message("rexport", "version", "warning", reason, edit)]
    findings = [Finding("rexport", "version", "ok", "rexport-checkout", f"{version()}, from the checkout {folder()}")]
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("optional-dependencies", {})
    parsed = ((name, parse_requirement(line)) for name, lines in extras.items() for line in lines)
    declared = {(name, requirement.text) for name, requirement in parsed if requirement is not None}
    if declared != {(each.extra, each.text) for each in requirements("rexport") if each.extra}:
        reason = Reason(
            "checkout-extras-changed",
            "pip knows other extras than the checkout's pyproject.toml has: they came after it was installed",
        )
        findings.append(from_message("rexport", "extras", "warning", reason, edit))
    return findings


def machine(here: Environment, root: Path = Path("/")) -> list[Finding]:
    """Processors, memory, clocks and load. ``root`` is where ``proc`` and ``sys`` are looked for."""
    held = "" if here.usable_processors == here.processors else ", by affinity or the control group"
    usable = f"{here.usable_processors} of {here.processors} are usable{held}"
    cpu = f"{here.cpu}, {here.architecture}; {usable}"
    sets = " ".join(here.instruction_sets) or "none of those that count"
    total, limit = here.memory_bytes, memory_limit(root)
    memory = f"{total / _GIB:.1f} GiB" if total else UNKNOWN
    if limit is not None and (not total or limit < total):
        memory += f", of which the control group allows {limit / _GIB:.1f} GiB"
    return [
        Finding("machine", "processors", "ok", "processors", f"{cpu}"),
        Finding("machine", "instruction sets", "ok", "instruction-sets", f"{sets}"),
        Finding("machine", "memory", "ok", "memory", f"{memory}"),
        _governor(here.governor),
        _load(here),
    ]


def memory_limit(root: Path) -> int | None:
    """Bytes that the tightest of this process's control groups allows, or ``None`` without a limit."""
    groups = control_groups("memory", root / "sys/fs/cgroup", root / "proc/self/cgroup")
    files = (group / name for group in groups for name in ("memory.max", "memory.limit_in_bytes"))
    return min((int(text) for text in map(str.strip, map(read_text, files)) if text.isdigit()), default=None)


def _governor(governor: str) -> Finding:
    if governor == UNKNOWN:
        return Finding("machine", "frequency governor", "ok", "governor-unknown", "the system does not tell it")
    if governor == "performance":
        return Finding("machine", "frequency governor", "ok", "governor-steady", f"{governor}")
    reason = Reason("governor-changing", f"{governor}: the clock changes while it is measured")
    mend = "sudo cpupower frequency-set -g performance"
    return from_message("machine", "frequency governor", "warning", reason, mend)


def _load(here: Environment) -> Finding:
    if here.load_average is None:
        return Finding("machine", "load average", "ok", "load-unknown", "the system does not tell it")
    load = f"{here.load_average[0]:.2f} over the last minute, on {here.processors} processors"
    if here.load_average[0] <= BUSY * here.processors:
        return Finding("machine", "load average", "ok", "load-low", f"{load}")
    return Finding("machine", "load average", "warning", "load-high", f"{load}: what is measured now will be disturbed")


def gpu(probe: GpuProbe, ending: str | None, root: Path = Path("/")) -> list[Finding]:
    """The GPUs, and whether the libraries that ask them work. ``ending`` is how a first look at them ended."""
    if ending is not None:
        return [
            Finding(
                "gpu", "driver", "broken", "gpu-libraries-crashed", f"{UNASKED}: the process that asked them {ending}"
            )
        ]
    cards = [
        (card.name, card.compute_capability, card.memory_bytes, f"driver {card.driver}, CUDA {card.cuda}")
        for card in probe.environment.gpus
    ] or [(each.name, each.compute_capability, each.memory_bytes, f"CUDA {each.driver}") for each in probe.devices]
    if not cards and not (root / "proc/driver/nvidia/version").exists():
        reason = Reason("no-gpu", "no NVIDIA GPU and no driver of one: artifacts run on the processor")
        return [from_message("gpu", "NVIDIA", "missing", reason)]
    findings = []
    for name, capability, memory_bytes, versions in cards:
        memory = UNKNOWN if memory_bytes is None else f"{memory_bytes / _GIB:.0f} GiB"
        reason = Reason("gpu-found", f"compute capability {capability}, {memory}, {versions}")
        findings.append(from_message("gpu", name, "ok", reason))
    if probe.cuda is not None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        message = probe.cuda if hidden is None else f"{probe.cuda}; CUDA_VISIBLE_DEVICES is {hidden!r}"
        absent = "not installed" in probe.cuda or hidden is not None
        reason = Reason("cuda-not-usable", f"{message}")
        findings.append(from_message("gpu", "CUDA", "missing" if absent else "broken", reason))
    if probe.nvml is not None:
        absent = "not installed" in probe.nvml
        reason = Reason("gpu-not-monitored", f"{probe.nvml}")
        findings.append(from_message("gpu", "clocks, power, energy", "missing" if absent else "broken", reason))
    return findings


def folders() -> list[Finding]:
    """Where downloads and engines are kept, and whether they can be."""
    return [
        _check_folder("downloaded weights", cache_folder),
        _check_folder("engines", engine_cache.default_folder, engine_cache.claim_folder),
    ]


def _check_folder(subject: str, find: Callable[[], Path], check: Callable[[Path], object] = Path.stat) -> Finding:
    """``check`` is what refuses a folder that is there and must not be used."""
    elsewhere = (f'export {CACHE_VARIABLE}="$HOME/rexport-cache"',)
    try:
        path = find()
    except ResourceError as error:
        return Finding("folders", subject, "warning", error.code, error.what, elsewhere)
    try:
        if path.is_dir():
            check(path)
        nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
        with tempfile.TemporaryFile(dir=nearest):  # leaves nothing, and the folder is not made
            pass
    except UnsafeArtifactError as error:
        mend = () if error.hint is None else (error.hint,)
        return Finding("folders", subject, "broken", error.code, f"{path} {error.what}", mend)
    except OSError as error:
        reason = f"cannot be written into ({error.strerror or error})"
        return Finding("folders", subject, "warning", "folder-not-writable", f"{path} {reason}", elsewhere)
    content = "which is made when it is needed"
    if path.is_dir():
        sizes = [Path(parent, name).lstat().st_size for parent, _, names in os.walk(path) for name in names]
        files = "1 file" if len(sizes) == 1 else f"{len(sizes):,} files"
        content = f"{sum(sizes) / (1 << 20):,.1f} MiB in {files}"
    return Finding("folders", subject, "ok", "folder-writable", f"{path}, {content}")
