"""The machine and the setup of rexport: Python, processors, GPUs, folders."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import benchmarks
from benchmarks.doctor.findings import Finding, from_message
from benchmarks.doctor.gpu_probe import NOT_PROBED, GpuProbe
from benchmarks.doctor.gpu_setup import examine_setup
from benchmarks.doctor.packages import at_least, parse_requirement, requirements
from benchmarks.machine.environment import Environment
from benchmarks.machine.gpu import UNKNOWN
from exporter.weights.download import CACHE_VARIABLE, cache_folder
from runtimes.backends.tensorrt import engine_cache
from runtimes.errors import Reason, ResourceError, UnsafeArtifactError
from runtimes.escaping import shell_word
from runtimes.memory import memory_limit

BUSY = 0.25
"""The highest load average, as a share of the processors, at which measurements are considered undisturbed."""

_GIB = 1 << 30


def version() -> str:
    """Return the version of rexport, or ``unknown`` if it is not installed."""
    try:
        return metadata.version("rexport")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def folder() -> Path:
    """Return the folder that rexport runs from."""
    return Path(benchmarks.__path__[0]).parent


def python(version: str) -> Finding:
    """Return a finding about Python. ``version`` is a name and a number, as ``CPython 3.11.7``."""
    try:
        rexport = metadata.metadata("rexport")
    except metadata.PackageNotFoundError:
        return Finding("rexport", "python", "ok", "python-version", f"{version}")
    least = re.search(r">=\s*([\d.]+)", rexport["Requires-Python"] or "")
    tested = re.findall(r"Python :: (\d+\.\d+)$", "\n".join(rexport.get_all("Classifier") or ()), re.MULTILINE)
    number = version.split()[-1]
    if least and not at_least(number, least[1]):
        return Finding("rexport", "python", "broken", "python-too-old", f"{version}; rexport needs {least[1]} or newer")
    if tested and ".".join(number.split(".")[:2]) not in tested:
        listed = ", ".join(tested)
        return Finding("rexport", "python", "warning", "python-untested", f"{version}; rexport is tested on {listed}")
    return Finding("rexport", "python", "ok", "python-supported", f"{version}, which is supported")


def installation() -> list[Finding]:
    """Return findings about the installation: whether it is a checkout, and whether its metadata is current."""
    project = folder() / "pyproject.toml"
    if not project.is_file():
        return [Finding("rexport", "version", "ok", "rexport-installed", f"{version()}, installed in {folder()}")]
    edit = f"pip install -e {shell_word(folder())}"
    if version() == UNKNOWN:
        reason = Reason(
            "checkout-not-installed",
            f"rexport runs from the checkout {folder()} and is not installed, so pip does not know its extras",
        )
        return [from_message("rexport", "version", "warning", reason, edit)]
    findings = [Finding("rexport", "version", "ok", "rexport-checkout", f"{version()}, from the checkout {folder()}")]
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("optional-dependencies", {})
    parsed = ((name, parse_requirement(line)) for name, lines in extras.items() for line in lines)
    declared = {(name, requirement.text) for name, requirement in parsed if requirement is not None}
    if declared != {(each.extra, each.text) for each in requirements("rexport") if each.extra}:
        reason = Reason(
            "checkout-extras-changed",
            "the installed metadata has other extras than pyproject.toml, which was changed after the installation",
        )
        findings.append(from_message("rexport", "extras", "warning", reason, edit))
    return findings


def machine(environment: Environment, root: Path = Path("/")) -> list[Finding]:
    """Return findings about processors, memory, clocks and load.

    Args:
        environment: The machine.
        root: The folder that holds ``proc`` and ``sys``.
    """
    limited = environment.usable_processors != environment.processors
    held = ", limited by affinity or the control group" if limited else ""
    usable = f"{environment.usable_processors} of {environment.processors} are usable{held}"
    cpu = f"{environment.cpu}, {environment.architecture}; {usable}"
    sets = " ".join(environment.instruction_sets) or "none of the known vector extensions"
    total, limit = environment.memory_bytes, memory_limit(root)
    memory = f"{total / _GIB:.1f} GiB" if total else UNKNOWN
    if limit is not None and (not total or limit < total):
        memory += f", of which the control group allows {limit / _GIB:.1f} GiB"
    return [
        Finding("machine", "processors", "ok", "processors", f"{cpu}"),
        Finding("machine", "instruction sets", "ok", "instruction-sets", f"{sets}"),
        Finding("machine", "memory", "ok", "memory", f"{memory}"),
        _governor(environment.governor),
        _load(environment),
    ]


def _governor(governor: str) -> Finding:
    if governor == UNKNOWN:
        return Finding("machine", "frequency governor", "ok", "governor-unknown", "the system does not report it")
    if governor == "performance":
        return Finding("machine", "frequency governor", "ok", "governor-steady", f"{governor}")
    reason = Reason("governor-changing", f"{governor}: the clock frequency changes during measurements")
    mend = "sudo cpupower frequency-set -g performance"
    return from_message("machine", "frequency governor", "warning", reason, mend)


def _load(environment: Environment) -> Finding:
    if environment.load_average is None:
        return Finding("machine", "load average", "ok", "load-unknown", "the system does not report it")
    load = f"{environment.load_average[0]:.2f} over the last minute, on {environment.processors} processors"
    if environment.load_average[0] <= BUSY * environment.processors:
        return Finding("machine", "load average", "ok", "load-low", f"{load}")
    return Finding("machine", "load average", "warning", "load-high", f"{load}: measurements will be unreliable")


def gpu(probe: GpuProbe, ending: str | None, root: Path = Path("/")) -> list[Finding]:
    """Return findings about the GPUs and their libraries.

    Args:
        probe: The facts that the GPU libraries report.
        ending: How the process ended that asked the GPU libraries, or ``None`` if it returned.
        root: The folder that holds ``proc`` and ``tmp``.
    """
    if ending is not None:
        return [
            Finding(
                "gpu", "driver", "broken", "gpu-libraries-crashed", f"{NOT_PROBED}: the process that asks them {ending}"
            )
        ]
    cards = [
        (card.name, card.compute_capability, card.memory_bytes, f"driver {card.driver}, CUDA {card.cuda}")
        for card in probe.environment.gpus
    ] or [
        (device.name, device.compute_capability, device.memory_bytes, f"CUDA {device.driver}")
        for device in probe.devices
    ]
    if not cards and not (root / "proc/driver/nvidia/version").exists():
        reason = Reason("no-gpu", "no NVIDIA GPU and no NVIDIA driver: artifacts run on the processor")
        return [from_message("gpu", "NVIDIA", "missing", reason)]
    findings = []
    for name, capability, memory_bytes, versions in cards:
        memory = UNKNOWN if memory_bytes is None else f"{memory_bytes / _GIB:.0f} GiB"
        reason = Reason("gpu-found", f"compute capability {capability}, {memory}, {versions}")
        findings.append(from_message("gpu", name, "ok", reason))
    findings += examine_setup(probe.environment.gpus, probe.users, root)
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
    """Return findings about the folders for downloads and engines, and whether they are writable."""
    return [
        _check_folder("downloaded weights", cache_folder),
        _check_folder("engines", engine_cache.default_folder, engine_cache.claim_folder),
    ]


def _check_folder(subject: str, find: Callable[[], Path], check: Callable[[Path], object] = Path.stat) -> Finding:
    """Return the finding about a folder. ``check`` raises an error for an existing folder that must not be used."""
    elsewhere = (f'export {CACHE_VARIABLE}="$HOME/rexport-cache"',)
    try:
        path = find()
    except ResourceError as error:
        return Finding("folders", subject, "warning", error.code, error.what, elsewhere)
    try:
        if path.is_dir():
            check(path)
        nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
        with tempfile.TemporaryFile(dir=nearest):  # removed at once, and does not create the folder
            pass
    except UnsafeArtifactError as error:
        mend = () if error.hint is None else (error.hint,)
        return Finding("folders", subject, "broken", error.code, f"{path} {error.what}", mend)
    except OSError as error:
        reason = f"is not writable ({error.strerror or error})"
        return Finding("folders", subject, "warning", "folder-not-writable", f"{path} {reason}", elsewhere)
    content = "which is created when needed"
    if path.is_dir():
        sizes = [Path(parent, name).lstat().st_size for parent, _, names in os.walk(path) for name in names]
        files = "1 file" if len(sizes) == 1 else f"{len(sizes):,} files"
        content = f"{sum(sizes) / (1 << 20):,.1f} MiB in {files}"
    return Finding("folders", subject, "ok", "folder-writable", f"{path}, {content}")
