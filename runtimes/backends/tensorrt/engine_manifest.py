"""The manifest of an engine: the manifest of its ONNX file, with the record of the build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine, Manifest, Weights
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import BuiltEngine
from runtimes.backends.tensorrt.flavors import Flavor
from runtimes.onnx import graph as onnxfile
from runtimes.tensors.cuda import Device


def manifest(
    source: Artifact, plan: Path, built: BuiltEngine, settings: Settings, flavor: Flavor, device: Device | None
) -> Manifest:
    """Return the manifest of an engine, without test vectors and results of checks.

    Args:
        source: The ONNX file.
        plan: The engine file.
        built: The result of the build.
        settings: The settings of the build.
        flavor: The library.
        device: The GPU of the build, or ``None`` without a GPU.

    Raises:
        ResourceError: A file cannot be read.
    """
    parent = source.manifest or _minimal_manifest(source, built)
    tolerance = None if source.manifest is None or parent.parity is None else parent.parity.tolerance
    return replace(
        parent,
        format="engine",
        sha256=files.sha256_of(plan),
        size_bytes=plan.stat().st_size,
        inputs=built.inputs if source.manifest is None else parent.inputs,
        outputs=built.outputs if source.manifest is None else parent.outputs,
        opset=None,
        producers={**parent.producers, flavor.module: flavor.version()},
        parent=parent.sha256,
        parity=None,
        vectors=None,
        external=(),
        gate=None,
        tuning=None,
        engine=Engine(
            flavor=flavor.name,
            version=flavor.version(),
            gpu=None if device is None else device.name,
            compute_capability=None if device is None else device.compute_capability,
            driver=None if device is None else device.driver,
            targets=settings.targets,
            profiles=built.profiles,
            opt_level=settings.opt_level,
            workspace_bytes=settings.workspace_bytes,
            tf32=settings.tf32,
            hardware_compat=settings.hardware_compat,
            version_compat=settings.version_compat,
            stripped=settings.strip_weights,
            onnx=source.path.name,
            tolerance=tolerance,
            aux_streams=settings.aux_streams,
            tiling=settings.tiling,
            avg_timing=settings.avg_timing,
            sparse_weights=settings.sparse_weights,
            refittable=settings.refit,
        ),
    )


def _minimal_manifest(source: Artifact, built: BuiltEngine) -> Manifest:
    """Return a manifest for an ONNX file without one."""
    digest = files.sha256_of(source.path)
    return Manifest(
        name=source.path.stem,
        format=source.format.name,
        sha256=digest,
        size_bytes=source.path.stat().st_size,
        variant={},
        weights=Weights("file", True, digest, source=source.path.name),
        precision=" ".join(onnxfile.graph(source.path).arithmetic),
        inputs=built.inputs,
        outputs=built.outputs,
        labels=None,
        preprocessing=None,
        dataset=None,
        opset=None,
        producers={},
        parent=None,
        parity=None,
        vectors=None,
    )
