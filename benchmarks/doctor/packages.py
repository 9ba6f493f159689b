"""The installed packages: those of each extra, and those that conflict."""

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
"""The packages that install the module ``onnxruntime``. Two of them overwrite each other's files."""


@dataclass(frozen=True)
class Requirement:
    """A line of a package's metadata, as ``onnxruntime-gpu[cuda,cudnn]>=1.24; extra == "gpu"``.

    Attributes:
        name: The normalised name, as ``onnxruntime-gpu``.
        extras: The extras of that package.
        least: The minimum version, or ``None``.
        extra: The extra that needs the package, or ``None`` if it is always needed.
        text: The requirement without its marker, as pip takes it.
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
    """Return the requirement in a line, or ``None`` if it is for another system or not valid."""
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
    """Return the name of a package as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_installed() -> dict[str, str]:
    """Return the versions of all installed packages by normalised name. The first one on the path counts."""
    packages = [(each.metadata["Name"], each.version) for each in metadata.distributions()]
    return {normalise_name(name): version for name, version in reversed(packages) if name}


def at_least(version: str, least: str) -> bool:
    """Return whether ``version`` is ``least`` or newer. Only numbers count: 2.0.dev1 equals 2.0."""
    starts = (re.split(r"[^\d.]", text)[0] for text in (version, least))
    own, needed = ([int(word) for word in re.findall(r"\d+", start)] for start in starts)
    return own + [0] * (len(needed) - len(own)) >= needed


def requirements(package: str) -> tuple[Requirement, ...]:
    """Return the requirements of an installed package; empty if it is not installed."""
    try:
        lines = metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        return ()
    return tuple(parsed for line in lines if (parsed := parse_requirement(line)) is not None)


def extras(versions: Mapping[str, str], with_gpu: bool) -> list[Finding]:
    """Return a finding for each extra of rexport.

    Args:
        versions: The installed packages.
        with_gpu: Whether there is a GPU.
    """
    own = requirements("rexport")
    if not own:
        reason = Reason("extras-unknown", "rexport is not installed, so its extras are not known")
        return [from_message("extras", "rexport", "missing", reason)]
    names = dict.fromkeys(each.extra for each in own if each.extra is not None)
    return [_extra(name, [each for each in own if each.extra == name], versions, with_gpu) for name in names]


def _extra(name: str, own: Sequence[Requirement], versions: Mapping[str, str], with_gpu: bool) -> Finding:
    brought = (
        each for requirement in own for each in requirements(requirement.name) if each.extra in requirement.extras
    )
    # The GPU build satisfies a requirement of the CPU build.
    names = {each: (each.name, _GPU_BUILD) if each.name == _MODULE else (each.name,) for each in (*own, *brought)}
    providers = {each: next((name for name in names[each] if name in versions), None) for each in names}
    lacking = [each for each, provider in providers.items() if provider is None]
    old = [
        each
        for each, provider in providers.items()
        if provider and each.least and not at_least(versions[provider], each.least)
    ]
    installed = ", ".join(f"{provider} {versions[provider]}" for provider in providers.values() if provider)
    if not lacking and not old:
        return Finding("extras", name, "ok", "extra-complete", f"{installed}")
    parts = [f"{each.name} is not installed" for each in lacking]
    parts += [f"{each.name} is older than {each.least}" for each in old]
    if installed:
        parts.append(f"installed: {installed}")
    if lacking and not with_gpu and any(each.name in _FOR_GPUS for each in providers):
        parts.append("needs an NVIDIA GPU to run")
    status: Status = "missing" if lacking else "warning"
    mend = [_install(name, own, "" if lacking else "--upgrade ", versions)]
    if _MODULE in versions and any(each.name == _GPU_BUILD for each in lacking):
        mend = [f"pip uninstall {_MODULE}", f"pip install 'rexport[{name}]'"] if with_gpu else []
    return Finding("extras", name, status, "extra-incomplete", f"{'; '.join(parts)}", tuple(filter(None, mend)))


_FOR_GPUS = (_GPU_BUILD, "cuda-bindings", "tensorrt", "tensorrt-rtx")


def _install(name: str, own: Sequence[Requirement], option: str, versions: Mapping[str, str]) -> str:
    """Return the command that installs the extra, without the CPU build beside the GPU build; empty if none does."""
    wanted = [f"'{each.text}'" for each in own if each.name != _MODULE]
    if len(wanted) < len(own) and _GPU_BUILD in versions:
        return f"pip install {' '.join(wanted)}" if wanted else ""
    return f"pip install {option}'rexport[{name}]'"


def adapt_commands(finding: Finding, versions: Mapping[str, str]) -> Finding:
    """Return the finding with commands that do not install a rival of an installed package.

    Args:
        finding: The finding.
        versions: The installed packages.
    """
    if _GPU_BUILD not in versions:
        return finding
    return replace(finding, mend=tuple(command.replace("rexport[cpu]", "rexport[gpu]") for command in finding.mend))


def for_processors(versions: Mapping[str, str]) -> tuple[str, ...]:
    """Return the installed packages that are built without GPU support and have a build with it."""
    torch = "torch" if versions.get("torch", "").endswith("+cpu") else None
    onnxruntime = _MODULE if _MODULE in versions and _GPU_BUILD not in versions else None
    return tuple(filter(None, (torch, onnxruntime)))


def conflicts(versions: Mapping[str, str], gpus: Sequence[Gpu]) -> list[Finding]:
    """Return findings about conflicting packages, or a single finding if there are none.

    Args:
        versions: The installed packages.
        gpus: The GPUs.
    """
    findings = [*_onnxruntime_conflicts(versions, bool(gpus)), *_version_conflicts(versions, gpus)]
    return findings or [Finding("conflicts", "packages", "ok", "no-conflicts", "none among the installed packages")]


def _onnxruntime_conflicts(versions: Mapping[str, str], with_gpu: bool) -> Iterator[Finding]:
    """Yield findings about installed rivals, and about the folder that pip leaves when it uninstalls one of them."""
    present = [name for name in RIVALS if name in versions]
    if len(present) > 1:
        kept = _GPU_BUILD if with_gpu and _GPU_BUILD in present else present[0]
        listed = " and ".join(f"{name} {versions[name]}" for name in present)
        reason = Reason(
            "rival-packages",
            f"{listed} are both installed and have overwritten each other's files; only one of them can be installed",
        )
        commands = f"pip uninstall -y {' '.join(present)}", f"pip install --force-reinstall --no-deps {kept}"
        yield from_message("conflicts", " and ".join(present), "broken", reason, *commands)
    spec = importlib.util.find_spec(_MODULE)
    if spec is not None and spec.origin is None:
        package = present[0] if present else _MODULE
        reason = Reason(
            "package-files-missing",
            f"the folder {_MODULE} exists without the package's files, as after uninstalling a rival package",
        )
        command = f"pip install --force-reinstall --no-deps {package}"
        yield from_message("conflicts", package, "broken", reason, command)


def _version_conflicts(versions: Mapping[str, str], gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Yield findings about TensorRT with a provider for another version, and about CUDA bindings and the driver."""
    names = [name for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12") if name in versions]
    newer = next((name for name in names if at_least(versions[name], "11")), None)
    if newer is not None and _GPU_BUILD in versions:
        reason = Reason(
            "provider-needs-tensorrt-10",
            f"{newer} {versions[newer]} serves the backend of rexport; the TensorRT provider of onnxruntime-gpu needs "
            "TensorRT 10, so it is not used here; install it in another environment",
        )
        yield from_message("conflicts", f"{newer} and {_GPU_BUILD}", "warning", reason)
    bindings, served = versions.get("cuda-bindings"), next((gpu.cuda for gpu in gpus if gpu.cuda != UNKNOWN), None)
    if bindings is None or served is None:
        return
    major, newest = int(bindings.split(".")[0]), int(served.split(".")[0])
    if major > newest:
        reason = Reason(
            "cuda-bindings-too-new",
            f"cuda-bindings {bindings} needs CUDA {major}, but the driver supports at most CUDA {served}; install "
            "a newer driver or older bindings",
        )
        command = f"pip install 'cuda-bindings>=12.8,<{newest + 1}'"
        yield from_message("conflicts", "cuda-bindings and the driver", "broken", reason, command)
