"""An engine in the library's hands: deserialised after the gates, given its weights where it was built without."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine
from runtimes.artifacts.rebuild_command import remedy
from runtimes.backends.tensorrt.flavors import Flavor, Log, logger, needing_driver
from runtimes.backends.tensorrt.parser import DTYPES
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    IntegrityError,
    ResourceError,
    RexportError,
    UnsafeArtifactError,
    quote,
)
from runtimes.protocol import TensorSpec


@dataclass(frozen=True)
class LoadedEngine:
    """A deserialised engine, the library that it belongs to, and what that library has said of it. It is freed with
    the last reference."""

    library: ModuleType
    engine: Any
    log: Log


def deserialise(artifact: Artifact, about: Engine, flavor: Flavor) -> LoadedEngine:
    """The engine, which passed ``gates.check``. An engine without weights has got them.

    Its bytes are read once, held against the manifest's digest, and these very bytes are deserialised.

    Raises:
        IntegrityError: they are not those that the manifest records, or of another library.
        BackendUnavailableError: the library finds no GPU.
        CompatibilityError: the library refuses it; the message has its reason.
        ResourceError: unreadable, or too large for the GPU's memory.
        ArtifactError: the ONNX file that its weights are in is missing, or another.
    """
    plan = _plan(artifact, flavor)
    library, log = flavor.library(), Log()
    with needing_driver(flavor, log):
        runtime = library.Runtime(logger(flavor, log))
    if about.version_compat:
        # Such an engine brings the runtime of its own version along, which is code; its digest was checked.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise _refusal_error(artifact, flavor, log)
    loaded = LoadedEngine(library, engine, log)
    if about.stripped:
        _refit_weights(loaded, artifact, about, flavor)
    return loaded


def _refit_weights(loaded: LoadedEngine, artifact: Artifact, about: Engine, flavor: Flavor) -> None:
    """Gives the engine its weights, from the very file whose digest was looked at."""
    place = _source_path(artifact, about)
    before = files.identity(place)
    _check_source(artifact, place)
    _refit(loaded, place, flavor)
    if files.identity(place) != before:
        raise IntegrityError(
            "it was replaced while the engine's weights were taken from it",
            code="weights-replaced-during-refit",
            path=place,
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
            "its bytes are not those that its manifest records",
            code="engine-digest-mismatch",
            path=artifact.path,
            hint=remedy(artifact.path, artifact.manifest),
        )
    if not plan.startswith(flavor.magic):
        raise IntegrityError(
            f"its manifest says that it is of {flavor.title}, and it does not begin like that",
            code="engine-flavor-mismatch",
            path=artifact.path,
            hint=remedy(artifact.path, artifact.manifest),
        )
    return plan


def _refusal_error(artifact: Artifact, flavor: Flavor, log: Log) -> RexportError:
    words = log.describe_errors()
    if "memory" in words.lower() and ("out of" in words.lower() or "alloc" in words.lower()):
        return ResourceError(
            f"the GPU's memory does not hold it: {words}", code="engine-exceeds-memory", path=artifact.path
        )
    if "CUDA driver version" in words:
        return BackendUnavailableError(f"{flavor.title} finds no usable NVIDIA driver: {words}", code="driver-unusable")
    return CompatibilityError(
        f"{flavor.title} refused it: {words}",
        code="engine-refused",
        path=artifact.path,
        hint=remedy(artifact.path, artifact.manifest),
    )


def _source_path(artifact: Artifact, about: Engine) -> Path:
    """Where the ONNX file lies that the engine was built from.

    Raises:
        ArtifactError: it is missing.
        UnsafeArtifactError: the manifest names a file outside the engine's folder.
    """
    if Path(about.onnx).name != about.onnx or about.onnx in ("", ".", ".."):
        raise UnsafeArtifactError(
            "its manifest names an ONNX file outside its folder", code="manifest-onnx-outside", path=artifact.path
        )
    place = artifact.path.with_name(about.onnx)
    if not place.exists():
        raise ArtifactError(
            f"it was built without its weights, and {quote(about.onnx)}, which has them, does not lie beside it",
            code="engine-weights-absent",
            path=artifact.path,
            hint="put the ONNX file there",
        )
    return place


def _check_source(artifact: Artifact, place: Path) -> None:
    """Compares the ONNX file with the digest that the engine's manifest has of it.

    Raises:
        ArtifactError: it is damaged, or another file.
    """
    source = Artifact.read(place)
    if artifact.manifest is None or files.sha256_of(place) != artifact.manifest.parent:
        raise IntegrityError(
            f"it was built without its weights, and {quote(place.name)} is not the file that it was built from",
            code="engine-weights-mismatch",
            path=artifact.path,
            hint=remedy(artifact.path, artifact.manifest),
        )
    source.check_digest()  # of the files of weights that lie beside a large one


def _refit(loaded: LoadedEngine, onnx: Path, flavor: Flavor) -> None:
    library, heard = loaded.library, logger(flavor, loaded.log)
    refitter = library.Refitter(loaded.engine, heard)
    parser = library.OnnxParserRefitter(refitter, heard)
    if not parser.refit_from_file(str(onnx)):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ArtifactError(
            f"{flavor.title} cannot take the engine's weights from it: "
            f"{quote('; '.join(reasons)) if reasons else loaded.log.describe_errors()}",
            code="engine-weights-unreadable",
            path=onnx,
        )
    if not refitter.refit_cuda_engine():
        raise CompatibilityError(
            f"{flavor.title} did not take all weights: {loaded.log.describe_errors()}",
            code="engine-weights-incomplete",
            path=onnx,
        )


def specs(loaded: LoadedEngine) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The engine's inputs and outputs, as it tells them. The first dimension, where it varies, is ``batch``.

    Raises:
        CompatibilityError: one is of a type that no runtime here takes.
    """
    engine = loaded.engine
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        taken = engine.get_tensor_mode(name) == loaded.library.TensorIOMode.INPUT
        (inputs if taken else outputs).append(_spec(engine, name))
    return tuple(inputs), tuple(outputs)


def _spec(engine: Any, name: str) -> TensorSpec:
    kind = str(engine.get_tensor_dtype(name).name)
    if kind not in DTYPES:
        raise CompatibilityError(
            f"{quote(name)} has the type {quote(kind)}, which no runtime here takes", code="tensor-type-unsupported"
        )
    sizes = enumerate(engine.get_tensor_shape(name))
    shape = tuple(int(size) if size >= 0 else (f"dim{axis}" if axis else "batch") for axis, size in sizes)
    return TensorSpec(name, DTYPES[kind], shape)
