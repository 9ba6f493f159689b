"""Engines for ONNX files opened with TensorRT: built on first use, checked, and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runtimes import files, notices, parity
from runtimes.artifacts.artifact import Artifact, publish
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Manifest, Profile
from runtimes.backends.tensorrt import engine_manifest, timing_cache
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import BuiltEngine, build
from runtimes.backends.tensorrt.engine_cache import Key, default_folder, entry
from runtimes.backends.tensorrt.flavors import Flavor, compute_capabilities
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError, Reason
from runtimes.onnx import graph as onnxfile
from runtimes.runtime import Runtime
from runtimes.tensors.cuda import Device


def engine_of(
    source: Artifact,
    flavor: Flavor,
    device: Device,
    open_engine: Callable[[Artifact], Runtime],
    batch: int | None = None,
) -> Artifact:
    """Return the engine of an ONNX file for this device, from the cache or newly built.

    Building takes seconds to minutes and is logged as a warning. A new engine is compared with the test vectors of the
    ONNX file, if there are any, before it enters the cache.

    Args:
        source: The ONNX file.
        flavor: The library.
        device: The GPU.
        open_engine: Opens the new engine for the comparison.
        batch: The batch size that the engine is built for, or ``None`` for ``DEFAULT_PROFILE``. A graph with a fixed
            batch keeps that.

    Raises:
        CheckFailedError: The logits of the new engine differ from the test vectors.
        RexportError: As for ``builder.build``, ``engine_cache.entry`` and ``open_engine``.
    """
    settings = Settings(
        profiles=_profiles(source, batch), tf32=source.allows_tf32, targets=_targets(source, flavor, device)
    )
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
    if flavor.measures_kernels:
        settings = replace(settings, timing_cache=folder / key.timing_cache_name)

    def make(target: Path) -> None:
        notices.warn(
            Reason(
                "engine-being-built",
                f"building an engine from {source.path.name} with {flavor.title} {key.version} for {device.name}"
                f"{'' if batch is None else f' and batches of {batch}'}; this takes seconds to minutes, and the engine "
                f"is cached in {folder}",
            )
        )
        _make(source, target, settings, flavor, device, open_engine)

    return Artifact.read(entry(key, folder, make, notices.warn))


def _targets(source: Artifact, flavor: Flavor, device: Device) -> tuple[str, ...]:
    """Return the compute capabilities to build for, or none if the library always builds for the present GPU.

    Raises:
        CompatibilityError: The library cannot build for this GPU.
    """
    known = compute_capabilities(flavor)
    if not known:
        return ()
    if device.compute_capability not in known:
        raise CompatibilityError(
            f"{flavor.title} {flavor.version()} supports GPUs of compute capability {', '.join(known)}, but the GPU is "
            f"{device.name} with {device.compute_capability}",
            code="engine-gpu-unsupported",
            path=source.path,
            hint="choose another backend",
        )
    return (device.compute_capability,)


def _profiles(source: Artifact, batch: int | None) -> tuple[Profile, ...]:
    """Return the profile of a batch size, or none for the default."""
    fixed = source.manifest is not None and source.manifest.inputs[0].fixed_batch is not None
    return () if batch is None or fixed else (Profile(batch, batch, batch),)


def _digest(source: Artifact) -> str:
    """Return the digest of an ONNX file. Without a manifest, it covers the files of external data as well."""
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
    open_engine: Callable[[Artifact], Runtime],
) -> None:
    before = files.identity(source.path)
    source.check_digest()  # the engine of a damaged file must not be cached for the undamaged file
    built = _build(source, settings, flavor, device.ordinal)
    if files.identity(source.path) != before:
        raise IntegrityError(
            "the file was replaced while its engine was built",
            code="source-replaced-during-build",
            path=source.path,
            hint="open the file again",
        )
    with files.temporary_file(target) as plan:
        plan.write_bytes(built.plan)
        manifest = engine_manifest.manifest(source, plan, built, settings, flavor, device)
        engine = Artifact(plan, FORMATS["engine"], manifest)
        publish(plan, target, _check_parity(source, engine, manifest, open_engine), None)


def _build(source: Artifact, settings: Settings, flavor: Flavor, device_index: int) -> BuiltEngine:
    """Build the engine. A timing cache that the library does not accept is replaced."""
    try:
        return build(source.path, settings, flavor, device_index=device_index)
    except (ArtifactError, CompatibilityError) as error:
        if error.code not in timing_cache.REFUSALS or settings.timing_cache is None:
            raise
        notices.warn(Reason("timing-cache-replaced", f"the timing cache is replaced: {error}"))
    settings.timing_cache.unlink(missing_ok=True)
    return build(source.path, settings, flavor, device_index=device_index)


def _check_parity(
    source: Artifact, engine: Artifact, manifest: Manifest, open_engine: Callable[[Artifact], Runtime]
) -> Manifest:
    """Compare the engine with the test vectors of the ONNX file and return the manifest with the result.

    Raises:
        CheckFailedError: The logits differ by more than the tolerance of the ONNX file.
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
    with open_engine(engine) as runtime:
        result = parity.check(runtime, source.vectors(), tolerance, before.reference, before.images)
    return replace(manifest, parity=result)
