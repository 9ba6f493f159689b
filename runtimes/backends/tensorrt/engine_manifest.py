"""The manifest of an engine: its ONNX file's, with what was built of it and where."""

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
    """Of the engine at ``plan``, which was built of ``source`` on ``device``. Nothing is said of checks and vectors.

    Raises:
        ResourceError: a file cannot be read.
    """
    parent = source.manifest or _foreign(source, built)
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
        ),
    )


def _foreign(source: Artifact, built: BuiltEngine) -> Manifest:
    """What can be said of an ONNX file that came without a manifest."""
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
