"""Replacement of the weights of an engine, which takes seconds where a build takes minutes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Manifest
from runtimes.artifacts.rebuild_command import rebuild_command
from runtimes.backends.tensorrt import compatibility
from runtimes.backends.tensorrt.builder import BuiltEngine
from runtimes.backends.tensorrt.engine import LoadedEngine, deserialise, load_weights_from, specs
from runtimes.backends.tensorrt.flavors import Flavor
from runtimes.errors import ArtifactError, CompatibilityError, quote
from runtimes.tensors import cuda
from runtimes.tensors.cuda import Device


def refit(engine: Artifact, onnx: Path, flavor: Flavor, device: Device) -> BuiltEngine:
    """Return a copy of an engine with the weights of an ONNX file. It can be refitted again.

    Weights of the engine that the file does not name stay as they are. The caller therefore compares the outputs with
    those of the file.

    Args:
        engine: The engine, which is not changed.
        onnx: The ONNX file of the same network, which ``Artifact.read`` must have checked.
        flavor: The library.
        device: The GPU.

    Raises:
        CompatibilityError: The engine was not built for replaced weights, does not fit this machine, or the library
            does not accept the weights.
        ArtifactError: The library cannot read weights of this engine from the file.
        RexportError: As for ``engine.deserialise``.
    """
    started = time.perf_counter()
    check_refittable(engine, flavor)
    with cuda.current(device.ordinal):
        record = compatibility.check(engine, flavor, device)
        loaded = deserialise(engine, record, flavor)
        load_weights_from(onnx, loaded, flavor)
        inputs, outputs = specs(loaded)
        plan, layers = _serialise(loaded, engine), int(loaded.engine.num_layers)
    return BuiltEngine(plan, record.profiles, inputs, outputs, layers, time.perf_counter() - started)


def check_refittable(engine: Artifact, flavor: Flavor) -> Manifest:
    """Check that an engine was built for replaced weights, by the installed version, and return its manifest.

    Args:
        engine: The engine.
        flavor: The library.

    Raises:
        ArtifactError: The file is not an engine.
        CompatibilityError: The weights of the engine cannot be replaced here.
    """
    manifest = engine.manifest
    if manifest is None or manifest.engine is None:
        raise ArtifactError(
            f"only an engine has weights to replace, but this file has the format {engine.format.name}",
            code="refit-needs-engine",
            path=engine.path,
            hint="rexport tensorrt ARTIFACT.onnx --refit builds an engine",
        )
    command = rebuild_command(engine.path, manifest, replace(manifest.engine, refittable=True))
    if not manifest.engine.refittable:
        raise CompatibilityError(
            "the engine was built without --refit, so its weights cannot be replaced",
            code="engine-not-refittable",
            path=engine.path,
            hint=f"build the engine again: {command}",
        )
    if manifest.engine.version != flavor.version():  # also if the engine is version-compatible
        raise CompatibilityError(
            f"the engine was built with {flavor.title} {quote(manifest.engine.version)}, and only that version "
            f"replaces its weights, but {flavor.version()} is installed",
            code="refit-needs-version",
            path=engine.path,
            hint=f"build the engine again: {command}",
        )
    return manifest


def _serialise(loaded: LoadedEngine, engine: Artifact) -> memoryview:
    config = loaded.engine.create_serialization_config()
    config.set_flag(loaded.library.SerializationFlag.INCLUDE_REFIT)
    memory = loaded.engine.serialize_with_config(config)
    if memory is None:
        raise CompatibilityError(
            f"the library cannot write the engine with its new weights: {loaded.log.describe_errors()}",
            code="engine-not-serialised",
            path=engine.path,
        )
    return memoryview(memory).cast("B")
