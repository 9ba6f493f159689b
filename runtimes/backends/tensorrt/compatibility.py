"""What must hold before a library may read an engine: its manifest, its flavor, its version, this GPU and its driver.

Deserialising trusts the file: it can run code that the file brings, and a library that is given another's engine says
so at best in its log. So all that the manifest tells is held against what is here first, and the answer to a mismatch
is the command that builds the engine again. The digest is checked by ``runtimes.open``, and once more on the very
bytes that are handed over (``engine.deserialise``).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine, Manifest
from runtimes.artifacts.rebuild_command import rebuilding
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor, compute_capabilities
from runtimes.errors import CompatibilityError, IntegrityError, Reason, UnsafeArtifactError, quote
from runtimes.tensors.cuda import Device

_AMPERE = (8, 0)
"""The compute capability of the first GPUs that ``ampere+`` engines run on, and of TensorRT-RTX's default targets."""


def check(artifact: Artifact, flavor: Flavor, device: Device) -> Engine:
    """How the engine was built, if the flavor's library that is installed here can run it on the device.

    Raises:
        UnsafeArtifactError: it has no manifest.
        IntegrityError: its manifest does not say how it was built.
        CompatibilityError: it is another library's, another version's, another GPU's or a newer driver's; the hint is
            the command that builds it here.
    """
    manifest = artifact.manifest
    if manifest is None:
        raise UnsafeArtifactError(
            "an engine can run code, and this one has no manifest",
            code="engine-without-manifest",
            path=artifact.path,
            hint="build it with: rexport tensorrt ARTIFACT.onnx",
        )
    if manifest.engine is None:
        raise IntegrityError(
            "its manifest does not say how the engine was built",
            code="engine-record-absent",
            path=artifact.path,
            hint="build it with: rexport tensorrt ARTIFACT.onnx",
        )
    gate = _Gate(artifact.path, manifest, manifest.engine, flavor, device)
    gate.flavors()
    gate.versions()
    if flavor.name == "rtx":
        gate.targets()
    else:
        gate.gpus()
    gate.drivers()
    return manifest.engine


class _Gate:
    """One engine at one machine."""

    def __init__(self, path: Path, manifest: Manifest, engine: Engine, flavor: Flavor, device: Device) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine
        self.flavor = flavor
        self.device = device

    def flavors(self) -> None:
        if self.engine.flavor != self.flavor.name:
            other = FLAVORS[self.engine.flavor]
            raise self._refusal(
                Reason("engine-of-other-library", f"it was built by {other.title}, not by {self.flavor.title}"),
                instead=f"open it with {other.backend}",
                engine=self._as_built_by(self.flavor),
            )

    def versions(self) -> None:
        built, here = self._release(self.engine.version), self._release(self.flavor.version())
        known = built[0] == here[0] or (built[0], here[0]) in _MAJORS
        if built != here and not (self.engine.version_compat and known and built <= here):
            kept = f" or a later {built[0]}" if self.engine.version_compat else ""
            raise self._refusal(
                Reason(
                    "engine-of-other-version",
                    f"it was built by {self.flavor.title} {quote(self.engine.version)} and runs on that{kept} alone; "
                    f"here is {self.flavor.version()}",
                )
            )

    def targets(self) -> None:
        here, targets = self.device.compute_capability, self.engine.targets
        known = compute_capabilities(self.flavor)
        if here not in known:
            raise self._refusal(
                Reason(
                    "engine-gpu-unsupported",
                    f"{self.flavor.title} {self.flavor.version()} runs on GPUs of compute capability "
                    f"{', '.join(known)}; this is {self.device.name}, {here}",
                ),
                engine=self._as_built_by(FLAVORS["tensorrt"]),
            )
        if here in targets or (not targets and _numbers(here) >= _AMPERE):
            return
        built_for = ", ".join(map(quote, targets)) or "8.0 and later"
        raise self._refusal(
            Reason(
                "engine-of-other-capability",
                f"it was built for GPUs of compute capability {built_for}; {self._describe_device()}",
            ),
            engine=replace(self.engine, targets=(*targets, here)),
        )

    def gpus(self) -> None:
        engine, here = self.engine, self.device.compute_capability
        if engine.gpu is None or engine.compute_capability is None:
            raise self._refusal(Reason("engine-without-gpu", "its manifest does not say for which GPU it was built"))
        built_for = f"{quote(engine.gpu)}, compute capability {quote(engine.compute_capability)}"
        fits = {
            "none": (engine.gpu, engine.compute_capability) == (self.device.name, here),
            "same-cc": engine.compute_capability == here,
            "ampere+": _numbers(here) >= _AMPERE,
        }
        if not fits[engine.hardware_compat]:
            raise self._refusal(
                Reason(
                    "engine-of-other-gpu",
                    f"it was built for {built_for}{_RELAXED[engine.hardware_compat]}; {self._describe_device()}",
                )
            )

    def drivers(self) -> None:
        built = self.engine.driver
        if built is not None and _numbers(self.device.driver) < _numbers(built):
            raise self._refusal(
                Reason(
                    "engine-of-newer-driver",
                    f"it was built under a driver of CUDA {quote(built)}; the one here is of {self.device.driver}",
                ),
                instead="update the NVIDIA driver",
            )

    def _release(self, version: str) -> tuple[int, ...]:
        """Major, minor and patch; what comes behind is a build of the same release.

        Raises:
            CompatibilityError: no version.
        """
        numbers = _numbers(version)[:3]
        if not numbers:
            raise self._refusal(
                Reason("engine-version-unknown", f"{quote(version)!r} is no version of {self.flavor.title}")
            )
        return numbers

    def _describe_device(self) -> str:
        return f"this is {self.device.name}, {self.device.compute_capability}"

    def _as_built_by(self, flavor: Flavor) -> Engine:
        """The engine as another library would build it, without what the first alone has."""
        return replace(self.engine, flavor=flavor.name, targets=(), hardware_compat="none", version_compat=False)

    def _refusal(self, reason: Reason, instead: str | None = None, engine: Engine | None = None) -> CompatibilityError:
        again = f"build it again here: {rebuilding(self.path, self.manifest, engine or self.engine)}"
        hint = f"{instead}; or {again}" if instead else again
        return CompatibilityError(reason.sentence, code=reason.code, path=self.path, hint=hint)


_MAJORS = {(10, 11)}
"""Of an engine that is version compatible and of a library that runs it, beside equal ones: TensorRT 11.4's support
matrix names no others."""

_RELAXED = {"none": "", "same-cc": ", for that capability alone", "ampere+": ", for Ampere and later GPUs alone"}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
