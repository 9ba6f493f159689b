"""What the machine is, and how rexport is set up on it: Python, processors, GPUs, folders."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import benchmarks
from benchmarks.doctor.findings import Finding, Status, from_message
from benchmarks.doctor.gpu_probe import UNASKED, GpuProbe
from benchmarks.doctor.packages import at_least
from benchmarks.machine.environment import Environment
from benchmarks.machine.gpu import UNKNOWN, Gpu
from exporter.weights.download import CACHE_VARIABLE, cache_folder
from runtimes.backends.tensorrt import engine_cache
from runtimes.errors import ResourceError, UnsafeArtifactError
from runtimes.tensors.cuda import Device

BUSY = 0.25
"""Of the machine's processors: a load average above this share of them disturbs what is measured."""

_GIB = 1 << 30


def version() -> str:
    """rexport's, or ``unknown`` where it is not installed."""
    try:
        return metadata.version("rexport")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def folder() -> Path:
    """That rexport runs from."""
    return Path(benchmarks.__path__[0]).parent


def rexport(python: str) -> list[Finding]:
    """rexport itself, and the Python under it. ``python`` as ``CPython 3.11.7``."""
    return [_python(python), *_installation()]


def _python(python: str) -> Finding:
    try:
        about = metadata.metadata("rexport")
    except metadata.PackageNotFoundError:
        return Finding("rexport", "python", "ok", python)
    least = re.search(r">=\s*([\d.]+)", about["Requires-Python"] or "")
    tested = re.findall(r"Python :: (\d+\.\d+)$", "\n".join(about.get_all("Classifier") or ()), re.MULTILINE)
    number = python.split()[-1]
    if least and not at_least(number, least[1]):
        return Finding("rexport", "python", "broken", f"{python}; rexport needs {least[1]} or newer")
    if tested and ".".join(number.split(".")[:2]) not in tested:
        return Finding("rexport", "python", "warning", f"{python}; rexport is tested on {', '.join(tested)}")
    return Finding("rexport", "python", "ok", f"{python}, which is supported")


def _installation() -> list[Finding]:
    """Whether it is a checkout, and whether what pip knows of it is what stands there."""
    place = folder()
    project = place / "pyproject.toml"
    if not project.is_file():
        return [Finding("rexport", "version", "ok", f"{version()}, installed in {place}")]
    edit = f"pip install -e {shlex.quote(str(place))}"
    if version() == UNKNOWN:
        what = f"it runs from the checkout {place} and is not installed: its commands and extras are not known to pip"
        return [Finding("rexport", "version", "warning", what, (edit,))]
    found = [Finding("rexport", "version", "ok", f"{version()}, from the checkout {place}")]
    if _read_declared_extras(project) != _list_known_extras():
        what = "pip knows other extras than the checkout's pyproject.toml has: they came after it was installed"
        found.append(Finding("rexport", "extras", "warning", what, (edit,)))
    return found


def _read_declared_extras(project: Path) -> set[str]:
    import tomllib

    extras: Mapping[str, list[str]] = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get(
        "optional-dependencies", {}
    )
    return {f"{line}; {name}".replace(" ", "") for name, lines in extras.items() for line in lines}


def _list_known_extras() -> set[str]:
    lines = (line.partition(";") for line in metadata.requires("rexport") or ())
    marked = ((body, re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", marker)) for body, _, marker in lines)
    return {f"{body}; {extra[1]}".replace(" ", "") for body, extra in marked if extra}


def machine(about: Environment, root: Path = Path("/")) -> list[Finding]:
    """Processors, memory, clocks and load. ``root`` is where ``proc`` and ``sys`` are looked for."""
    held = "" if about.usable_processors == about.processors else ", by affinity or the control group"
    usable = f"{about.usable_processors} of {about.processors} are usable{held}"
    found = [
        Finding("machine", "processors", "ok", f"{about.cpu}, {about.architecture}; {usable}"),
        Finding("machine", "instruction sets", "ok", " ".join(about.instruction_sets) or "none of those that count"),
        Finding("machine", "memory", "ok", _memory(about.memory_bytes, memory_limit(root))),
    ]
    return [*found, _governor(about.governor), _load(about)]


def _memory(total_bytes: int, limit_bytes: int | None) -> str:
    total = f"{total_bytes / _GIB:.1f} GiB" if total_bytes else UNKNOWN
    held = limit_bytes is not None and (not total_bytes or limit_bytes < total_bytes)
    return f"{total}, of which the control group allows {(limit_bytes or 0) / _GIB:.1f} GiB" if held else total


def memory_limit(root: Path) -> int | None:
    """Bytes that the tightest of this process's control groups allows, or ``None`` without a limit."""
    limits = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = top / path.lstrip("/")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        inside = [place for place in (group, *group.parents) if place == top or top in place.parents]
        limits += [int(text) for place in inside if (text := _text(place / name).strip()).isdigit()]
    return min(limits, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _governor(governor: str) -> Finding:
    if governor in ("performance", UNKNOWN):
        told = "the system does not tell it" if governor == UNKNOWN else governor
        return Finding("machine", "frequency governor", "ok", told)
    what = f"{governor}: the clock changes while it is measured"
    return Finding("machine", "frequency governor", "warning", what, ("sudo cpupower frequency-set -g performance",))


def _load(about: Environment) -> Finding:
    if about.load_average is None:
        return Finding("machine", "load average", "ok", "the system does not tell it")
    minute = about.load_average[0]
    what = f"{minute:.2f} over the last minute, on {about.processors} processors"
    if minute <= BUSY * about.processors:
        return Finding("machine", "load average", "ok", what)
    return Finding("machine", "load average", "warning", f"{what}: what is measured now will be disturbed")


def gpu(seen: GpuProbe, ending: str | None, root: Path = Path("/")) -> list[Finding]:
    """The GPUs, and whether the libraries that ask them work. ``ending`` is how a first look at them ended."""
    if ending is not None:
        return [Finding("gpu", "driver", "broken", f"{UNASKED}: {ending}")]
    cards, driver = seen.environment.gpus, (root / "proc/driver/nvidia/version").exists()
    if not cards and not seen.devices and not driver:
        return [
            Finding("gpu", "NVIDIA", "missing", "no NVIDIA GPU and no driver of one: artifacts run on the processor")
        ]
    found = [_card(card) for card in cards] or [_device(each) for each in seen.devices]
    if seen.cuda is not None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = seen.cuda if hidden is None else f"{seen.cuda}; CUDA_VISIBLE_DEVICES is {hidden!r}"
        absent = "not installed" in seen.cuda or hidden is not None
        found.append(from_message("gpu", "CUDA", "missing" if absent else "broken", reason))
    if seen.nvml is not None:
        status: Status = "missing" if "not installed" in seen.nvml else "broken"
        found.append(from_message("gpu", "clocks, power, energy", status, seen.nvml))
    return found


def _card(card: Gpu) -> Finding:
    memory = UNKNOWN if card.memory_bytes is None else f"{card.memory_bytes / _GIB:.0f} GiB"
    what = f"compute capability {card.compute_capability}, {memory}, driver {card.driver}, CUDA {card.cuda}"
    return Finding("gpu", card.name, "ok", what)


def _device(device: Device) -> Finding:
    what = f"compute capability {device.compute_capability}, {device.memory_bytes / _GIB:.0f} GiB, CUDA {device.driver}"
    return Finding("gpu", device.name, "ok", what)


def folders() -> list[Finding]:
    """Where downloads and engines are kept, and whether they can be."""
    return [
        _check_folder("downloaded weights", cache_folder),
        _check_folder("engines", engine_cache.default_folder, engine_cache.claim_folder),
    ]


def _check_folder(subject: str, find: Callable[[], Path], check: Callable[[Path], object] = Path.stat) -> Finding:
    """``check`` is what refuses a folder that is there and must not be used."""
    try:
        place = find()
    except ResourceError as error:
        return Finding("folders", subject, "warning", error.what, (_ELSEWHERE,))
    try:
        if place.is_dir():
            check(place)
        _try_writing(place)
    except UnsafeArtifactError as error:
        return Finding(
            "folders", subject, "broken", f"{place} {error.what}", () if error.hint is None else (error.hint,)
        )
    except OSError as error:
        what = f"{place} cannot be written into ({error.strerror or error})"
        return Finding("folders", subject, "warning", what, (_ELSEWHERE,))
    return Finding("folders", subject, "ok", f"{place}, {_size(place)}")


_ELSEWHERE = f'export {CACHE_VARIABLE}="$HOME/rexport-cache"'


def _try_writing(place: Path) -> None:
    """Raises ``OSError`` if nothing can be made there. Nothing stays, and the folder is not made."""
    nearest = next(each for each in (place, *place.parents) if os.path.lexists(each))
    with tempfile.TemporaryFile(dir=nearest):
        pass


def _size(place: Path) -> str:
    if not place.is_dir():
        return "which is made when it is needed"
    sizes = [Path(folder, name).lstat().st_size for folder, _, names in os.walk(place) for name in names]
    files = "1 file" if len(sizes) == 1 else f"{len(sizes):,} files"
    return f"{sum(sizes) / (1 << 20):,.1f} MiB in {files}"
