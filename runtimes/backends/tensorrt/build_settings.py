"""The settings of an engine build, and the parsing of their text forms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifacts.manifest import (
    DEFAULT_OPT_LEVEL,
    HARDWARE_COMPAT,
    TILING,
    Engine,
    HardwareCompat,
    Profile,
    Tiling,
)
from runtimes.backends.tensorrt.flavors import Flavor, compute_capability
from runtimes.codec import MAX_INTEGER
from runtimes.errors import UsageError, quote

OPT_LEVELS = range(6)
"""The optimisation levels of the builder."""

DEFAULT_PROFILE = Profile(1, 8, 64)
"""The default profile of a graph that takes any number of images."""


@dataclass(frozen=True)
class Settings:
    """The settings of an engine build.

    Attributes:
        profiles: The optimisation profiles. Empty means ``DEFAULT_PROFILE``, or the batch of a fixed-batch graph.
        tf32: Whether float32 may be computed in TensorFloat-32.
        opt_level: The optimisation level, 0 to 5. A higher level takes longer and can find faster kernels.
        workspace_bytes: The GPU memory that a kernel may use besides its tensors. ``None`` means no limit.
        hardware_compat: The GPUs that the engine runs on: only the model it is built on (``none``), NVIDIA Ampere and
            later (``ampere+``), or GPUs of the same compute capability (``same-cc``).
        version_compat: Whether later versions of TensorRT can run the engine.
        strip_weights: Whether the engine has no weights. Opening it takes them from the ONNX file.
        targets: The compute capabilities that TensorRT-RTX builds for, for example ``8.6``. Empty means 8.0 and later.
        timing_cache: A file for measured times of kernels, which is read and written. ``None`` for no file. It only
            shortens the build.
        aux_streams: The limit of additional streams on which layers run at the same time; 0 for none. ``None`` leaves
            the choice to the library.
        tiling: How far the builder searches for tilings that keep data in the cache from layer to layer.
        avg_timing: The runs that are averaged to time a kernel. ``None`` means the library's own number.
        sparse_weights: Whether kernels for 2:4 sparse weights may be used for layers whose weights are so.
        refit: Whether the weights of the engine can be replaced later. Such an engine can be slower.

    Raises:
        UsageError: A value is out of range.
    """

    profiles: tuple[Profile, ...] = ()
    tf32: bool = False
    opt_level: int = DEFAULT_OPT_LEVEL
    workspace_bytes: int | None = None
    hardware_compat: HardwareCompat = "none"
    version_compat: bool = False
    strip_weights: bool = False
    targets: tuple[str, ...] = ()
    timing_cache: Path | None = None
    aux_streams: int | None = None
    tiling: Tiling = "none"
    avg_timing: int | None = None
    sparse_weights: bool = False
    refit: bool = False

    def __post_init__(self) -> None:
        if self.opt_level not in OPT_LEVELS:
            raise UsageError(
                f"the optimisation level must be from 0 to {OPT_LEVELS[-1]}, not {self.opt_level}",
                code="opt-level-invalid",
            )
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(
                f"the workspace must be at least 1 byte, not {self.workspace_bytes}", code="workspace-too-small"
            )
        if self.hardware_compat not in HARDWARE_COMPAT:
            raise UsageError(
                f"unknown hardware compatibility {quote(self.hardware_compat)!r}",
                code="hardware-compat-unknown",
                hint=f"choose one of {', '.join(HARDWARE_COMPAT)}",
            )
        if self.tiling not in TILING:
            raise UsageError(
                f"unknown level of tiling {quote(self.tiling)!r}",
                code="tiling-unknown",
                hint=f"choose one of {', '.join(TILING)}",
            )
        for name, value, least in (("streams", self.aux_streams, 0), ("averaged runs", self.avg_timing, 1)):
            if value is not None and value < least:
                raise UsageError(f"the number of {name} must be at least {least}, not {value}", code="count-too-small")
        if self.refit and self.strip_weights:
            raise UsageError(
                "an engine without weights takes them from its own ONNX file, so they cannot be replaced",
                code="refit-excludes-strip",
                hint="omit one of the two",
            )
        for kind, values in (("profile", self.profiles), ("compute capability", self.targets)):
            if len(set(values)) != len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise UsageError(f"the {kind} {twice} was given twice", code="setting-given-twice")

    def check(self, flavor: Flavor) -> Settings:
        """Check that a library supports the settings, and return them.

        Raises:
            UsageError: The library does not support a setting. The message names it.
            BackendUnavailableError: There are ``targets``, and the library cannot be imported.
        """
        for requested, setting, hint in self._unsupported(flavor):
            if requested:
                raise UsageError(f"{flavor.title} does not support {setting}", code="setting-unsupported", hint=hint)
        for target in self.targets:
            compute_capability(flavor, target)
        return self

    def _unsupported(self, flavor: Flavor) -> tuple[tuple[bool, str, str], ...]:
        """Return, for each unsupported setting, whether it is requested, its description, and a hint."""
        if flavor.name != "rtx":
            return ((bool(self.targets), "builds for another GPU than the present one", "use the flavor rtx"),)
        no_kernels = "omit it, because this library measures no kernels"
        gpus = "give the compute capabilities of the GPUs, or none for all"
        return (
            (self.hardware_compat != "none", "hardware compatibility levels", gpus),
            (self.version_compat, "engines for later versions", "build the engine again with the later version"),
            (self.timing_cache is not None, "a timing cache", no_kernels),
            (self.avg_timing is not None, "averages of the times of kernels", no_kernels),
        )


def settings_of(record: Engine) -> Settings:
    """Return the settings that an engine was built with, from its record. The timing cache is not recorded."""
    return Settings(
        profiles=record.profiles,
        tf32=record.tf32,
        opt_level=record.opt_level,
        workspace_bytes=record.workspace_bytes,
        hardware_compat=record.hardware_compat,
        version_compat=record.version_compat,
        strip_weights=record.stripped,
        targets=record.targets,
        aux_streams=record.aux_streams,
        tiling=record.tiling,
        avg_timing=record.avg_timing,
        sparse_weights=record.sparse_weights,
        refit=record.refittable,
    )


_UNIT_BYTES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``4GiB``, ``512 MB`` or ``1000000``.

    Raises:
        UsageError: The text is not a size, or the size is below one byte or above 63 bits.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text, re.IGNORECASE | re.ASCII)
    size = float(match[1]) * _UNIT_BYTES[(match[2] or "").lower()] if match else 0
    if not 1 <= size <= MAX_INTEGER:
        raise UsageError(
            f"invalid size {quote(text)!r}",
            code="size-invalid",
            hint="give a number and a unit, for example 512MiB or 4GiB",
        )
    return int(size)


def parse_profile(text: str) -> Profile:
    """Return a profile such as ``1:8:64`` (batches of 1 to 64 images, tuned for 8) or ``8`` (only batches of 8).

    Raises:
        UsageError: The text is not a profile, or its batch sizes are not in order.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?::\s*(\d{1,9})\s*:\s*(\d{1,9})\s*)?", text, re.ASCII)
    if match is None:
        raise UsageError(
            f"invalid profile {quote(text)!r}",
            code="profile-invalid",
            hint="give the least, best and most images, for example 1:8:64",
        )
    least = int(match[1])
    return Profile(least, int(match[2] or least), int(match[3] or least))


def parse_target(text: str) -> str:
    """Return a compute capability in the form of manifests, ``8.6``, from ``8.6``, ``86`` or ``sm_86``.

    Raises:
        UsageError: The text is not a compute capability.
    """
    match = re.fullmatch(r"\s*(?:sm_?)?(\d{1,2})\.?(\d)\s*", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise UsageError(
            f"invalid compute capability {quote(text)!r}",
            code="compute-capability-invalid",
            hint="give it for example as 8.6 or sm_86",
        )
    return f"{match[1]}.{match[2]}"
