"""An engine of an ONNX file that is opened with TensorRT: built when it is first asked for, checked, and kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runtimes import files, parity
from runtimes.artifacts.artifact import Artifact, publish
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Manifest
from runtimes.backends.tensorrt import engine_manifest
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.engine_cache import Key, default_folder, entry
from runtimes.backends.tensorrt.flavors import Flavor, compute_capabilities
from runtimes.errors import CompatibilityError, IntegrityError, Reason
from runtimes.onnx import graph as onnxfile
from runtimes.runtime import Runtime
from runtimes.tensors.cuda import Device

LOG = logging.getLogger("rexport")


def engine_of(source: Artifact, flavor: Flavor, device: Device, opened: Callable[[Artifact], Runtime]) -> Artifact:
    """The engine for this device of the ONNX file ``source``, from the cache, into which it is built first where it is
    not there: that takes seconds to minutes, and is announced as a warning.

    A new engine is held to the file's test vectors, where it has some, before it comes into the cache. ``opened`` opens
    it for that.

    Raises:
        CheckFailedError: its answers are not those of the file.
        RexportError: as ``building.build``, ``cache.entry`` and ``opened``.
    """
    settings = Settings(tf32=source.allows_tf32, targets=_targets(source, flavor, device))
    key = Key(
        flavor=flavor.name,
        version=flavor.version(),
        gpu=device.name,
        compute_capability=device.compute_capability,
        driver=device.driver,
        onnx_sha256=_digest(source),
        settings=settings,
    )
    folder = default_folder()

    def make(target: Path) -> None:
        _warn(
            Reason(
                "engine-being-built",
                f"building an engine of {source.path.name} with {flavor.title} {key.version} for {device.name}, which "
                f"takes a while; it is kept in {folder}",
            )
        )
        _make(source, target, settings, flavor, device, opened)

    return Artifact.read(entry(key, folder, make, _warn))


def _warn(reason: Reason) -> None:
    LOG.warning("%s", reason, extra={"code": reason.code})


def _targets(source: Artifact, flavor: Flavor, device: Device) -> tuple[str, ...]:
    """What the library must be told to build for this GPU; nothing where it builds for the one in place anyway.

    Raises:
        CompatibilityError: it builds for other GPUs alone.
    """
    known = compute_capabilities(flavor)
    if not known:
        return ()
    if device.compute_capability not in known:
        raise CompatibilityError(
            f"{flavor.title} {flavor.version()} runs on GPUs of compute capability {', '.join(known)}; this is "
            f"{device.name}, {device.compute_capability}",
            code="engine-gpu-unsupported",
            path=source.path,
            hint="name another backend",
        )
    return (device.compute_capability,)


def _digest(source: Artifact) -> str:
    """Of all that the ONNX file is: of a foreign one, the files of its weights with it."""
    if source.manifest is not None:
        return source.manifest.sha256
    digests = [files.sha256_of(source.path)]
    for location in sorted({location for location, _ in onnxfile.read(source.path).external}):
        digests += [location, files.sha256_of(source.path.parent / location)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _make(
    source: Artifact,
    target: Path,
    settings: Settings,
    flavor: Flavor,
    device: Device,
    opened: Callable[[Artifact], Runtime],
) -> None:
    before = files.identity(source.path)
    source.check_digest()  # a damaged file must not become the cache's engine of the sound one
    built = build(source.path, settings, flavor)
    if files.identity(source.path) != before:
        raise IntegrityError(
            "it was replaced while its engine was built",
            code="source-replaced-during-build",
            path=source.path,
            hint="open it again",
        )
    with files.temporary_file(target) as plan:
        plan.write_bytes(built.plan)
        manifest = engine_manifest.manifest(source, plan, built, settings, flavor, device)
        publish(
            plan, target, _check_parity(source, Artifact(plan, FORMATS["engine"], manifest), manifest, opened), None
        )


def _check_parity(
    source: Artifact, engine: Artifact, manifest: Manifest, opened: Callable[[Artifact], Runtime]
) -> Manifest:
    """The manifest, with how the engine's answers compared with the ONNX file's test vectors.

    Raises:
        CheckFailedError: by more than the file's own parity allows.
    """
    tolerance = None if manifest.engine is None else manifest.engine.tolerance
    if (
        source.manifest is None
        or source.manifest.parity is None
        or source.manifest.vectors is None
        or tolerance is None
    ):
        return manifest
    before = source.manifest.parity
    with opened(engine) as runtime:
        found = parity.check(runtime, source.vectors(), tolerance, before.reference, before.images)
    return replace(manifest, parity=found)
