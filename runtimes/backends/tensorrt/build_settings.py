"""What a user may decide about an engine, and how it is typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.flavors import Flavor, compute_capability
from runtimes.errors import UsageError, quote

OPT_LEVELS = range(6)


@dataclass(frozen=True)
class Settings:
    """How an engine is built.

    Attributes:
        profiles: the batches that it takes; none means ``building.DEFAULT_PROFILE``, or for a graph of a fixed batch
            that batch.
        tf32: whether float32 may be computed in TensorFloat-32.
        opt_level: how long the builder looks for fast kernels, 0 to 5.
        workspace_bytes: of GPU memory that a kernel may use beside its tensors; ``None`` means all that is there.
        hardware_compat: GPUs that it runs on beside the one that it is built on: ``none``, those of NVIDIA Ampere and
            later (``ampere+``), or those of the ``same-cc``, compute capability.
        version_compat: whether later versions of TensorRT shall run it.
        strip_weights: whether its weights are left out, to be taken from the ONNX file when it is opened.
        targets: compute capabilities that TensorRT-RTX builds for, as ``8.6``; none means all from 8.0 on.
        timing_cache: a file that remembers how long kernels took, read and written; ``None`` for none. It changes how
            long a build takes, and is no part of what is built.

    Raises:
        UsageError: a value that no library takes.
    """

    profiles: tuple[Profile, ...] = ()
    tf32: bool = False
    opt_level: int = 3
    workspace_bytes: int | None = None
    hardware_compat: Literal["none", "ampere+", "same-cc"] = "none"
    version_compat: bool = False
    strip_weights: bool = False
    targets: tuple[str, ...] = ()
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.opt_level not in OPT_LEVELS:
            raise UsageError(
                f"the optimisation level is one of 0 to {OPT_LEVELS[-1]}, not {self.opt_level}",
                code="opt-level-invalid",
            )
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(f"a workspace has at least 1 byte, not {self.workspace_bytes}", code="workspace-too-small")
        if self.hardware_compat not in HARDWARE_COMPAT:
            raise UsageError(
                f"no hardware compatibility {quote(self.hardware_compat)!r}",
                code="hardware-compat-unknown",
                hint=f"one of {', '.join(HARDWARE_COMPAT)}",
            )
        for kind, values in (("profile", self.profiles), ("compute capability", self.targets)):
            if len(set(values)) != len(values):
                raise UsageError(f"a {kind} was given twice", code="setting-given-twice")

    def check(self, flavor: Flavor) -> Settings:
        """The settings, which the flavor's library has all of.

        Raises:
            UsageError: it lacks one; the message says which.
            BackendUnavailableError: there are ``targets``, and the library cannot be imported.
        """
        for wanted, lacking, hint in self._lacks(flavor):
            if wanted:
                raise UsageError(f"{flavor.title} has no {lacking}", code="setting-unsupported", hint=hint)
        for target in self.targets:
            compute_capability(flavor, target)
        return self

    def _lacks(self, flavor: Flavor) -> tuple[tuple[bool, str, str], ...]:
        """What is wanted, what is not there, and what to do."""
        if flavor.name != "rtx":
            return ((bool(self.targets), "builds for a GPU that is not there", "flavor rtx has them"),)
        gpus = "name the GPUs' compute capabilities, or none for all"
        return (
            (self.hardware_compat != "none", "hardware compatibility levels", gpus),
            (self.version_compat, "engines for later versions", "build it again with the later one"),
            (self.timing_cache is not None, "timing cache", "leave it out: no kernels are timed"),
        )


HARDWARE_COMPAT = ("none", "ampere+", "same-cc")

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of a size as people type it: ``4GiB``, ``512 MB``, ``1000000``.

    Raises:
        UsageError: it is none, or below one byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text, re.IGNORECASE | re.ASCII)
    size = int(float(found[1]) * _UNITS[(found[2] or "").lower()]) if found else 0
    if size < 1:
        raise UsageError(
            f"no size: {quote(text)!r}", code="size-invalid", hint="a number and a unit, as 512MiB or 4GiB"
        )
    return size


def parse_profile(text: str) -> Profile:
    """A profile as people type it: ``1:8:64`` for batches of 1 to 64 images, tuned for 8; ``8`` for 8 alone.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*(?::\s*(\d{1,9})\s*:\s*(\d{1,9})\s*)?", text, re.ASCII)
    if found is None:
        raise UsageError(
            f"no profile: {quote(text)!r}", code="profile-invalid", hint="least:best:most images, as 1:8:64"
        )
    least = int(found[1])
    return Profile(least, int(found[2] or least), int(found[3] or least))


def parse_target(text: str) -> str:
    """A compute capability as manifests record it, ``8.6``, of ``8.6``, ``86`` or ``sm_86``.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"\s*(?:sm_?)?(\d{1,2})\.?(\d)\s*", text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise UsageError(
            f"no compute capability: {quote(text)!r}", code="compute-capability-invalid", hint="as 8.6, or sm_86"
        )
    return f"{found[1]}.{found[2]}"
