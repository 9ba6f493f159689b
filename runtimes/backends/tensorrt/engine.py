"""Loading of engines: deserialisation, and refitting of engines that were built without weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine
from runtimes.artifacts.rebuild_command import rebuild_hint
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor, Log, logger, needing_driver
from runtimes.backends.tensorrt.parser import DTYPES
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    IntegrityError,
    ResourceError,
    RexportError,
    quote,
)
from runtimes.tensors.spec import TensorSpec


@dataclass(frozen=True)
class LoadedEngine:
    """A deserialised engine. It is freed with the last reference.

    Attributes:
        library: The library of the engine.
        engine: The library's engine.
        log: The messages of the library about the engine.
    """

    library: ModuleType
    engine: Any
    log: Log


def deserialise(artifact: Artifact, record: Engine, flavor: Flavor) -> LoadedEngine:
    """Deserialise an engine, and load its weights if it was built without them.

    The bytes are read once, compared with the digest in the manifest, and deserialised.

    Args:
        artifact: The engine, which ``compatibility.check`` has accepted.
        record: The record of the build.
        flavor: The library.

    Raises:
        IntegrityError: The digest differs from the manifest, or the engine belongs to another library. Also if the ONNX
            file with the weights is not the one the engine was built from.
        BackendUnavailableError: The library finds no usable driver.
        CompatibilityError: The library does not accept the engine or its weights. The message gives the reason.
        ResourceError: The file cannot be read, or the engine is too large for the GPU's memory.
        ArtifactError: The ONNX file with the weights is missing or cannot be read.
        UnsafeArtifactError: The manifest names an ONNX file outside the folder of the engine.
    """
    plan = _plan(artifact, flavor)
    library, log = flavor.library(), Log()
    with needing_driver(flavor, log):
        runtime = library.Runtime(logger(flavor, log))
    if record.version_compat:
        # Such an engine contains the runtime of its own version, which is code. The digest was checked.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise _deserialisation_error(artifact, flavor, log)
    loaded = LoadedEngine(library, engine, log)
    if record.stripped:
        _load_weights(loaded, artifact, record, flavor)
    return loaded


def _load_weights(loaded: LoadedEngine, artifact: Artifact, record: Engine, flavor: Flavor) -> None:
    """Load the weights of an engine from its ONNX file, after checking the digest of that file."""
    source = _source_path(artifact, record)
    before = files.identity(source)
    _check_source(artifact, source)
    load_weights_from(source, loaded, flavor)
    if files.identity(source) != before:
        raise IntegrityError(
            "the ONNX file was replaced while the weights of the engine were read from it",
            code="weights-replaced-during-refit",
            path=source,
            hint="open the engine again",
        )


def _plan(artifact: Artifact, flavor: Flavor) -> bytes:
    with files.open_regular(artifact.path) as file:
        try:
            plan = file.read()
        except OSError as error:
            raise ResourceError.from_os(error, artifact.path, "read") from error
    if artifact.manifest is None or hashlib.sha256(plan).hexdigest() != artifact.manifest.sha256:
        raise IntegrityError(
            "the SHA-256 of the engine differs from the one in the manifest",
            code="engine-digest-mismatch",
            path=artifact.path,
            hint=rebuild_hint(artifact.path, artifact.manifest),
        )
    if any(plan.startswith(other.magic) for other in FLAVORS.values() if other != flavor):
        raise IntegrityError(
            f"the manifest says that the engine belongs to {flavor.title}, but its first bytes do not",
            code="engine-flavor-mismatch",
            path=artifact.path,
            hint=rebuild_hint(artifact.path, artifact.manifest),
        )
    return plan


def _deserialisation_error(artifact: Artifact, flavor: Flavor, log: Log) -> RexportError:
    reason = log.describe_errors()
    if "memory" in reason.lower() and ("out of" in reason.lower() or "alloc" in reason.lower()):
        return ResourceError(
            f"the GPU does not have enough memory for the engine: {reason}",
            code="engine-exceeds-memory",
            path=artifact.path,
        )
    if "CUDA driver version" in reason:
        return BackendUnavailableError(
            f"{flavor.title} finds no usable NVIDIA driver: {reason}", code="driver-unusable"
        )
    return CompatibilityError(
        f"{flavor.title} cannot deserialise the engine: {reason}",
        code="engine-refused",
        path=artifact.path,
        hint=rebuild_hint(artifact.path, artifact.manifest),
    )


def _source_path(artifact: Artifact, record: Engine) -> Path:
    """Return the path of the ONNX file that the engine was built from.

    Raises:
        ArtifactError: The file is missing.
        UnsafeArtifactError: The manifest names a file outside the engine's folder.
    """
    source = artifact.sibling(record.onnx, artifact.manifest.parent if artifact.manifest else None)
    if not source.exists():
        raise ArtifactError(
            f"the engine was built without weights, and the ONNX file {quote(record.onnx)} with the weights is missing",
            code="engine-weights-absent",
            path=artifact.path,
            hint="copy the ONNX file to the folder of the engine",
        )
    return source


def _check_source(artifact: Artifact, path: Path) -> None:
    """Compare the ONNX file with its digest in the engine's manifest.

    Raises:
        IntegrityError: The file is damaged, or another file.
        ArtifactError: The file is not an ONNX file.
    """
    source = Artifact.read(path)
    if artifact.manifest is None or files.sha256_of(path) != artifact.manifest.parent:
        raise IntegrityError(
            f"the engine was built without weights, and {quote(path.name)} is not the ONNX file it was built from",
            code="engine-weights-mismatch",
            path=artifact.path,
            hint=rebuild_hint(artifact.path, artifact.manifest),
        )
    source.check_digest()  # covers external data, which the digest of the ONNX file does not


def load_weights_from(onnx: Path, loaded: LoadedEngine, flavor: Flavor) -> None:
    """Replace the weights of an engine by those of the same names in an ONNX file.

    Args:
        onnx: The ONNX file.
        loaded: The engine.
        flavor: The library.

    Raises:
        ArtifactError: The library cannot read weights of this engine from the file.
        CompatibilityError: The engine lacks weights that depend on the replaced ones.
    """
    library, library_logger = loaded.library, logger(flavor, loaded.log)
    refitter = library.Refitter(loaded.engine, library_logger)
    parser = library.OnnxParserRefitter(refitter, library_logger)
    if not parser.refit_from_file(str(onnx)):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ArtifactError(
            f"{flavor.title} cannot read the weights of the engine from this file: "
            f"{quote('; '.join(reasons)) if reasons else loaded.log.describe_errors()}",
            code="engine-weights-unreadable",
            path=onnx,
        )
    if not refitter.refit_cuda_engine():
        raise CompatibilityError(
            f"{flavor.title} did not accept all weights: {loaded.log.describe_errors()}",
            code="engine-weights-incomplete",
            path=onnx,
        )


def specs(loaded: LoadedEngine) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the specifications of the engine's inputs and outputs. A first dimension that varies is called ``batch``.

    Raises:
        CompatibilityError: The type of a tensor is not supported.
    """
    engine = loaded.engine
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == loaded.library.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(_spec(engine, name))
    return tuple(inputs), tuple(outputs)


def _spec(engine: Any, name: str) -> TensorSpec:
    kind = str(engine.get_tensor_dtype(name).name)
    if kind not in DTYPES:
        raise CompatibilityError(
            f"the type {quote(kind)} of {quote(name)} is not supported", code="tensor-type-unsupported"
        )
    sizes = enumerate(engine.get_tensor_shape(name))
    shape = tuple(int(size) if size >= 0 else (f"dim{axis}" if axis else "batch") for axis, size in sizes)
    return TensorSpec(name, DTYPES[kind], shape)
