"""What is installed: the packages of each extra, and those that get in each other's way."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata

from benchmarks.doctor.findings import Finding
from benchmarks.machine.gpu import UNKNOWN, Gpu

RIVALS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-training",
)
"""Packages that all install the module ``onnxruntime``: of two, the later one's files stand in the earlier one's."""

_MODULE, _GPU_BUILD = RIVALS[:2]


@dataclass(frozen=True)
class Requirement:
    """A line of a package's metadata, as ``onnxruntime-gpu[cuda,cudnn]>=1.24; extra == "gpu"``.

    Attributes:
        name: normalised, as ``onnxruntime-gpu``.
        extras: of that package.
        least: the oldest version that will do, or ``None``.
        extra: of the package whose line it is, or ``None`` where it is always needed.
        text: without its marker, as pip takes it.
    """

    name: str
    extras: tuple[str, ...]
    least: str | None
    extra: str | None
    text: str


_LINE = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[(?P<extras>[^\]]*)\])?\s*\(?(?P<versions>[^();]*)\)?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w.-]+)['"]""")
_LEAST = re.compile(r"(?:>=|==|~=)\s*([\w.]+)")
_ELSEWHERE = re.compile(r"""['"](?:win32|Windows|darwin|Darwin)['"]""")


def parse_requirement(line: str) -> Requirement | None:
    """The line's meaning; ``None`` for another system, or what is no requirement."""
    body, _, marker = line.partition(";")
    found = _LINE.fullmatch(body.strip())
    if found is None or _ELSEWHERE.search(marker):
        return None
    extra, least = _EXTRA.search(marker), _LEAST.search(found["versions"])
    extras = tuple(name.strip() for name in (found["extras"] or "").split(",") if name.strip())
    return Requirement(
        normalise_name(found["name"]), extras, least[1] if least else None, extra[1] if extra else None, body.strip()
    )


def normalise_name(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_installed() -> dict[str, str]:
    """The version of every installed package, by its normalised name."""
    found = ((each.metadata["Name"], each.version) for each in metadata.distributions())
    return {
        normalise_name(name): version for name, version in reversed(list(found)) if name
    }  # the first on the path wins


def at_least(version: str, least: str) -> bool:
    """Whether the version's numbers are not below; a development version of one counts as it."""
    parts = [[int(word) for word in re.findall(r"\d+", re.split(r"[^\d.]", text)[0])] for text in (version, least)]
    longest = max(map(len, parts))
    own, needed = (numbers + [0] * (longest - len(numbers)) for numbers in parts)
    return own >= needed


def requirements(package: str) -> tuple[Requirement, ...]:
    """Of an installed package; none if it is not installed."""
    try:
        lines = metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        return ()
    return tuple(found for line in lines if (found := parse_requirement(line)) is not None)


def extras(versions: Mapping[str, str], with_gpu: bool) -> list[Finding]:
    """Of each extra of rexport, what is there."""
    own = requirements("rexport")
    if not own:
        what = "rexport itself is not installed, so that its extras are not known"
        return [Finding("extras", "rexport", "missing", what)]
    names = dict.fromkeys(each.extra for each in own if each.extra is not None)
    return [_extra(name, [each for each in own if each.extra == name], versions, with_gpu) for name in names]


def _extra(name: str, needed: Sequence[Requirement], versions: Mapping[str, str], with_gpu: bool) -> Finding:
    needed = [each for one in needed for each in (one, *_expand_extras(one, versions))]
    present = [each for each in needed if _provider(each, versions) is not None]
    lacking = [each for each in needed if each not in present]
    old = [
        each for each in present if each.least and not at_least(versions[_provider(each, versions) or ""], each.least)
    ]
    here = ", ".join(f"{found} {versions[found]}" for each in present if (found := _provider(each, versions)))
    if not lacking and not old:
        return Finding("extras", name, "ok", here)
    words = [f"{each.name} is not installed" for each in lacking]
    words += [f"{each.name} is older than {each.least}" for each in old]
    if here:
        words.append(f"installed: {here}")
    if lacking and not with_gpu and any(each.name in _FOR_GPUS for each in needed):
        words.append("to run, it needs an NVIDIA GPU")
    mend = _mend(name, lacking, versions, with_gpu)
    return Finding("extras", name, "missing" if lacking else "warning", "; ".join(words), mend)


_FOR_GPUS = (_GPU_BUILD, "cuda-bindings", "tensorrt", "tensorrt-rtx")


def _expand_extras(requirement: Requirement, versions: Mapping[str, str]) -> list[Requirement]:
    """What the requirement's own extras need, if it is installed."""
    if requirement.name not in versions:
        return []
    return [each for each in requirements(requirement.name) if each.extra in requirement.extras]


def _provider(requirement: Requirement, versions: Mapping[str, str]) -> str | None:
    """The installed package that meets it: itself, or for processors the build that can do more."""
    names = (requirement.name, _GPU_BUILD) if requirement.name == _MODULE else (requirement.name,)
    return next((name for name in names if name in versions), None)


def _mend(name: str, lacking: Sequence[Requirement], versions: Mapping[str, str], with_gpu: bool) -> tuple[str, ...]:
    if _GPU_BUILD in [each.name for each in lacking] and _MODULE in versions:
        return (f"pip uninstall {_MODULE}", f"pip install 'rexport[{name}]'") if with_gpu else ()
    would_bring = {each.name for each in requirements("rexport") if each.extra == name}
    if _MODULE in would_bring and _GPU_BUILD in versions:
        wanted = [each for each in requirements("rexport") if each.extra == name and each.name != _MODULE]
        return (" ".join(("pip install", *(f"'{each.text}'" for each in wanted))),) if wanted else ()
    return (f"pip install {'' if lacking else '--upgrade '}'rexport[{name}]'",)


def adapt_commands(finding: Finding, versions: Mapping[str, str]) -> Finding:
    """The finding with commands that do not bring the rival of a package that is there."""
    if _GPU_BUILD not in versions:
        return finding
    return replace(finding, mend=tuple(command.replace("rexport[cpu]", "rexport[gpu]") for command in finding.mend))


def for_processors(versions: Mapping[str, str]) -> tuple[str, ...]:
    """Installed packages that are built without a GPU, and have a build with one."""
    torch = "torch" if versions.get("torch", "").endswith("+cpu") else None
    onnxruntime = _MODULE if _MODULE in versions and _GPU_BUILD not in versions else None
    return tuple(filter(None, (torch, onnxruntime)))


def conflicts(versions: Mapping[str, str], gpus: Sequence[Gpu]) -> list[Finding]:
    """Packages that get in each other's way; that there are none is a finding, too."""
    found = [*_rivals(versions, bool(gpus)), *_remains(versions), *_tensorrt(versions), *_bindings(versions, gpus)]
    return found or [Finding("conflicts", "packages", "ok", "none among the installed packages")]


def _rivals(versions: Mapping[str, str], with_gpu: bool) -> Iterable[Finding]:
    present = [name for name in RIVALS if name in versions]
    if len(present) < 2:
        return
    kept = _GPU_BUILD if with_gpu and _GPU_BUILD in present else present[0]
    listed = " and ".join(f"{name} {versions[name]}" for name in present)
    yield Finding(
        "conflicts",
        " and ".join(present),
        "broken",
        f"{listed} are both installed, and have overwritten each other's files: one of them has to go",
        (f"pip uninstall -y {' '.join(present)}", f"pip install --force-reinstall --no-deps {kept}"),
    )


def _remains(versions: Mapping[str, str]) -> Iterable[Finding]:
    """What pip leaves when it uninstalls one of two rivals."""
    found = importlib.util.find_spec(_MODULE)
    if found is None or found.origin is not None:
        return
    present = [name for name in RIVALS if name in versions]
    what = f"the folder {_MODULE} is there without the package's own files, as after a rival's removal"
    mend = f"pip install --force-reinstall --no-deps {present[0] if present else _MODULE}"
    yield Finding("conflicts", present[0] if present else _MODULE, "broken", what, (mend,))


def _tensorrt(versions: Mapping[str, str]) -> Iterable[Finding]:
    if _GPU_BUILD not in versions:
        return
    named = [name for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12") if name in versions]
    newer = [name for name in named if at_least(versions[name], "11")]
    if newer:
        yield Finding(
            "conflicts",
            f"{newer[0]} and {_GPU_BUILD}",
            "warning",
            f"{newer[0]} {versions[newer[0]]} is for rexport's own backend; onnxruntime-gpu's TensorRT provider wants "
            "TensorRT 10, and is left out here: it needs an environment of its own",
        )


def _bindings(versions: Mapping[str, str], gpus: Sequence[Gpu]) -> Iterable[Finding]:
    known = [gpu.cuda for gpu in gpus if gpu.cuda != UNKNOWN]
    own = versions.get("cuda-bindings")
    if own is None or not known:
        return
    major, served = int(own.split(".")[0]), int(known[0].split(".")[0])
    if major > served:
        yield Finding(
            "conflicts",
            "cuda-bindings and the driver",
            "broken",
            f"cuda-bindings {own} is for CUDA {major}, the driver serves CUDA {known[0]} at most: a newer driver, or "
            "older bindings",
            (f"pip install 'cuda-bindings>=12.8,<{served + 1}'",),
        )
