"""What is installed: the packages of each extra, and those that get in each other's way."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata

from benchmarks.doctor.findings import Finding, Status, from_message
from benchmarks.machine.gpu import UNKNOWN, Gpu
from runtimes.errors import Reason

_MODULE, _GPU_BUILD = "onnxruntime", "onnxruntime-gpu"

_OTHER_BUILDS = ("onnxruntime-openvino", "onnxruntime-rocm", "onnxruntime-migraphx", "onnxruntime-training")
RIVALS = (_MODULE, _GPU_BUILD, *_OTHER_BUILDS)
"""Packages that all install the module ``onnxruntime``: of two, the later one's files stand in the earlier one's."""


@dataclass(frozen=True)
class Requirement:
    """A line of a package's metadata, as ``onnxruntime-gpu[cuda,cudnn]>=1.24; extra == "gpu"``.

    Attributes:
        name: normalised, as ``onnxruntime-gpu``.
        extras: extras of that package.
        least: the oldest version that will do, or ``None``.
        extra: the extra that needs the package, or ``None`` where it is always needed.
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
    parts = _LINE.fullmatch(body.strip())
    if parts is None or _ELSEWHERE.search(marker):
        return None
    extra, least = _EXTRA.search(marker), _LEAST.search(parts["versions"])
    return Requirement(
        name=normalise_name(parts["name"]),
        extras=tuple(name.strip() for name in (parts["extras"] or "").split(",") if name.strip()),
        least=least[1] if least else None,
        extra=extra[1] if extra else None,
        text=body.strip(),
    )


def normalise_name(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_installed() -> dict[str, str]:
    """The version of every installed package, by its normalised name. The first on the path counts."""
    packages = [(each.metadata["Name"], each.version) for each in metadata.distributions()]
    return {normalise_name(name): version for name, version in reversed(packages) if name}


def at_least(version: str, least: str) -> bool:
    """Whether the version's numbers are not below; a development version of one counts as it."""
    starts = (re.split(r"[^\d.]", text)[0] for text in (version, least))
    own, needed = ([int(word) for word in re.findall(r"\d+", start)] for start in starts)
    return own + [0] * (len(needed) - len(own)) >= needed


def requirements(package: str) -> tuple[Requirement, ...]:
    """What an installed package requires; nothing if it is not installed."""
    try:
        lines = metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        return ()
    return tuple(parsed for line in lines if (parsed := parse_requirement(line)) is not None)


def extras(versions: Mapping[str, str], with_gpu: bool) -> list[Finding]:
    """What is there of each extra of rexport."""
    own = requirements("rexport")
    if not own:
        reason = Reason("extras-unknown", "rexport itself is not installed, so that its extras are not known")
        return [from_message("extras", "rexport", "missing", reason)]
    names = dict.fromkeys(each.extra for each in own if each.extra is not None)
    return [_extra(name, [each for each in own if each.extra == name], versions, with_gpu) for name in names]


def _extra(name: str, own: Sequence[Requirement], versions: Mapping[str, str], with_gpu: bool) -> Finding:
    brought = (each for one in own for each in requirements(one.name) if each.extra in one.extras)
    # The build for GPUs stands for the one for processors, as it can do more.
    names = {each: (each.name, _GPU_BUILD) if each.name == _MODULE else (each.name,) for each in (*own, *brought)}
    providers = {each: next((name for name in names[each] if name in versions), None) for each in names}
    lacking = [each for each, provider in providers.items() if provider is None]
    old = [each for each, by in providers.items() if by and each.least and not at_least(versions[by], each.least)]
    here = ", ".join(f"{provider} {versions[provider]}" for provider in providers.values() if provider)
    if not lacking and not old:
        return Finding("extras", name, "ok", "extra-complete", f"{here}")
    parts = [f"{each.name} is not installed" for each in lacking]
    parts += [f"{each.name} is older than {each.least}" for each in old]
    if here:
        parts.append(f"installed: {here}")
    if lacking and not with_gpu and any(each.name in _FOR_GPUS for each in providers):
        parts.append("to run, it needs an NVIDIA GPU")
    status: Status = "missing" if lacking else "warning"
    mend = [_install(name, own, "" if lacking else "--upgrade ", versions)]
    if _MODULE in versions and any(each.name == _GPU_BUILD for each in lacking):
        mend = [f"pip uninstall {_MODULE}", f"pip install 'rexport[{name}]'"] if with_gpu else []
    return Finding("extras", name, status, "extra-incomplete", f"{'; '.join(parts)}", tuple(filter(None, mend)))


_FOR_GPUS = (_GPU_BUILD, "cuda-bindings", "tensorrt", "tensorrt-rtx")


def _install(name: str, own: Sequence[Requirement], option: str, versions: Mapping[str, str]) -> str:
    """The command that brings the extra, without the build for processors where the other one is; or nothing."""
    wanted = [f"'{each.text}'" for each in own if each.name != _MODULE]
    if len(wanted) < len(own) and _GPU_BUILD in versions:
        return f"pip install {' '.join(wanted)}" if wanted else ""
    return f"pip install {option}'rexport[{name}]'"


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
    found = [*_onnxruntime_conflicts(versions, bool(gpus)), *_version_conflicts(versions, gpus)]
    return found or [Finding("conflicts", "packages", "ok", "no-conflicts", "none among the installed packages")]


def _onnxruntime_conflicts(versions: Mapping[str, str], with_gpu: bool) -> Iterator[Finding]:
    """Of rivals, two that are both there, and what pip leaves when it uninstalls one of two."""
    present = [name for name in RIVALS if name in versions]
    if len(present) > 1:
        kept = _GPU_BUILD if with_gpu and _GPU_BUILD in present else present[0]
        listed = " and ".join(f"{name} {versions[name]}" for name in present)
        reason = Reason(
            "rival-packages",
            f"{listed} are both installed, and have overwritten each other's files: one of them has to go",
        )
        commands = f"pip uninstall -y {' '.join(present)}", f"pip install --force-reinstall --no-deps {kept}"
        yield from_message("conflicts", " and ".join(present), "broken", reason, *commands)
    spec = importlib.util.find_spec(_MODULE)
    if spec is not None and spec.origin is None:
        package = present[0] if present else _MODULE
        reason = Reason(
            "package-files-missing",
            f"the folder {_MODULE} is there without the package's own files, as after a rival's removal",
        )
        command = f"pip install --force-reinstall --no-deps {package}"
        yield from_message("conflicts", package, "broken", reason, command)


def _version_conflicts(versions: Mapping[str, str], gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """TensorRT beside a provider for another version of it, and CUDA bindings that the driver does not serve."""
    names = [name for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12") if name in versions]
    newer = next((name for name in names if at_least(versions[name], "11")), None)
    if newer is not None and _GPU_BUILD in versions:
        reason = Reason(
            "provider-needs-tensorrt-10",
            f"{newer} {versions[newer]} is for rexport's own backend; onnxruntime-gpu's TensorRT provider wants "
            "TensorRT 10, and is left out here: it needs an environment of its own",
        )
        yield from_message("conflicts", f"{newer} and {_GPU_BUILD}", "warning", reason)
    own, served = versions.get("cuda-bindings"), next((gpu.cuda for gpu in gpus if gpu.cuda != UNKNOWN), None)
    if own is None or served is None:
        return
    major, newest = int(own.split(".")[0]), int(served.split(".")[0])
    if major > newest:
        reason = Reason(
            "cuda-bindings-too-new",
            f"cuda-bindings {own} is for CUDA {major}, the driver serves CUDA {served} at most: a newer driver, or "
            "older bindings",
        )
        command = f"pip install 'cuda-bindings>=12.8,<{newest + 1}'"
        yield from_message("conflicts", "cuda-bindings and the driver", "broken", reason, command)
