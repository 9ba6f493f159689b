"""Checks before a library reads an engine: manifest, library, version, GPU and driver.

Deserialising can run code from the file, and a library reports an engine of another library only in its log, if at all.
Therefore the manifest is compared with this machine first, and the error for a mismatch holds the command that builds
the engine again. ``runtimes.open`` checks the digest of the file, and ``engine.deserialise`` checks the digest of the
bytes that it deserialises.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine, Manifest
from runtimes.artifacts.rebuild_command import rebuild_command
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor, compute_capabilities
from runtimes.errors import CompatibilityError, IntegrityError, Reason, UnsafeArtifactError, quote
from runtimes.tensors.cuda import Device

_AMPERE = (8, 0)
"""The compute capability of the first GPUs that ``ampere+`` engines run on, and of TensorRT-RTX's default targets."""


def check(artifact: Artifact, flavor: Flavor, device: Device) -> Engine:
    """Check that the installed library can run an engine on a device, and return the record of its build.

    Args:
        artifact: The engine.
        flavor: The library.
        device: The GPU.

    Raises:
        UnsafeArtifactError: The engine has no manifest.
        IntegrityError: The manifest has no record of the build.
        CompatibilityError: The engine belongs to another library, another version, another GPU or a newer driver. The
            hint holds the command that builds the engine here.
    """
    manifest = artifact.manifest
    if manifest is None:
        raise UnsafeArtifactError(
            "opening an engine can run code, and this engine has no manifest",
            code="engine-without-manifest",
            path=artifact.path,
            hint="build the engine again: rexport tensorrt ARTIFACT.onnx",
        )
    if manifest.engine is None:
        raise IntegrityError(
            "the manifest has no record of how the engine was built",
            code="engine-record-absent",
            path=artifact.path,
            hint="build the engine again: rexport tensorrt ARTIFACT.onnx",
        )
    comparison = _Comparison(artifact.path, manifest, manifest.engine, flavor, device)
    comparison.check_flavor()
    comparison.check_version()
    if flavor.name == "rtx":
        comparison.check_targets()
    else:
        comparison.check_gpu()
    comparison.check_driver()
    return manifest.engine


class _Comparison:
    """The comparison of an engine with a library and a GPU. Each method raises CompatibilityError for a mismatch."""

    def __init__(self, path: Path, manifest: Manifest, engine: Engine, flavor: Flavor, device: Device) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine
        self.flavor = flavor
        self.device = device

    def check_flavor(self) -> None:
        """Check that the library built the engine."""
        if self.engine.flavor != self.flavor.name:
            other = FLAVORS[self.engine.flavor]
            raise self._error(
                Reason(
                    "engine-of-other-library",
                    f"the engine was built by {other.title}, and {self.flavor.title} cannot run it",
                ),
                alternative=f"use backend {other.backend}",
                engine=self._as_built_by(self.flavor),
            )

    def check_version(self) -> None:
        """Check that the version of the library can run the engine."""
        built, installed = self._release(self.engine.version), self._release(self.flavor.version())
        same_series = built[0] == installed[0] or (built[0], installed[0]) in _COMPATIBLE_MAJORS
        if built != installed and not (self.engine.version_compat and same_series and built <= installed):
            later = f" or a later version {built[0]}" if self.engine.version_compat else ""
            raise self._error(
                Reason(
                    "engine-of-other-version",
                    f"the engine needs {self.flavor.title} {quote(self.engine.version)}{later}, but version "
                    f"{self.flavor.version()} is installed",
                )
            )

    def check_targets(self) -> None:
        """Check that an engine of TensorRT-RTX was built for the compute capability of the GPU."""
        present, targets = self.device.compute_capability, self.engine.targets
        known = compute_capabilities(self.flavor)
        if present not in known:
            raise self._error(
                Reason(
                    "engine-gpu-unsupported",
                    f"{self.flavor.title} {self.flavor.version()} supports GPUs of compute capability "
                    f"{', '.join(known)}, but the GPU is {self.device.name} with {present}",
                ),
                engine=self._as_built_by(FLAVORS["tensorrt"]),
            )
        if present in targets or (not targets and _numbers(present) >= _AMPERE):
            return
        built_for = ", ".join(map(quote, targets)) or "8.0 and later"
        raise self._error(
            Reason(
                "engine-of-other-capability",
                f"the engine was built for GPUs of compute capability {built_for}, but {self._describe_device()}",
            ),
            engine=replace(self.engine, targets=(*targets, present)),
        )

    def check_gpu(self) -> None:
        """Check that an engine of TensorRT was built for the GPU."""
        engine, present = self.engine, self.device.compute_capability
        if engine.gpu is None or engine.compute_capability is None:
            raise self._error(
                Reason("engine-without-gpu", "the manifest does not name the GPU that the engine was built for")
            )
        built_for = f"{quote(engine.gpu)} with compute capability {quote(engine.compute_capability)}"
        fits = {
            "none": (engine.gpu, engine.compute_capability) == (self.device.name, present),
            "same-cc": engine.compute_capability == present,
            "ampere+": _numbers(present) >= _AMPERE,
        }
        if not fits[engine.hardware_compat]:
            raise self._error(
                Reason(
                    "engine-of-other-gpu",
                    f"the engine was built for {built_for}{_RUNS_ON[engine.hardware_compat]}, but "
                    f"{self._describe_device()}",
                )
            )

    def check_driver(self) -> None:
        """Check that the driver is not older than the driver of the build."""
        built = self.engine.driver
        if built is not None and _numbers(self.device.driver) < _numbers(built):
            raise self._error(
                Reason(
                    "engine-of-newer-driver",
                    f"the engine was built with a driver for CUDA {quote(built)}, but the driver here supports CUDA "
                    f"{self.device.driver}",
                ),
                alternative="update the NVIDIA driver",
            )

    def _release(self, version: str) -> tuple[int, ...]:
        """Return major, minor and patch of a version. Further numbers count builds of the same release.

        Raises:
            CompatibilityError: The text is not a version.
        """
        numbers = _numbers(version)[:3]
        if not numbers:
            raise self._error(
                Reason("engine-version-unknown", f"{quote(version)!r} is not a version of {self.flavor.title}")
            )
        return numbers

    def _describe_device(self) -> str:
        return f"the GPU is {self.device.name} with {self.device.compute_capability}"

    def _as_built_by(self, flavor: Flavor) -> Engine:
        """Return the record of the engine for a build with another library, without settings of the first library."""
        return replace(
            self.engine, flavor=flavor.name, targets=(), hardware_compat="none", version_compat=False, avg_timing=None
        )

    def _error(
        self, reason: Reason, alternative: str | None = None, engine: Engine | None = None
    ) -> CompatibilityError:
        command = rebuild_command(self.path, self.manifest, engine or self.engine)
        rebuild = f"build the engine again on this machine: {command}"
        hint = f"{alternative}, or {rebuild}" if alternative else rebuild
        return CompatibilityError(reason.sentence, code=reason.code, path=self.path, hint=hint)


_COMPATIBLE_MAJORS = {(10, 11)}
"""Pairs of major versions, besides equal ones, of a version-compatible engine and a library that runs it.

Source: the support matrix of TensorRT 11.4."""

_RUNS_ON = {
    "none": "",
    "same-cc": " and GPUs of the same compute capability",
    "ampere+": " and all GPUs of Ampere and later",
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
