"""Opening, profiling and inspecting of engines, and of ONNX files through the engines built from them."""

from __future__ import annotations

from dataclasses import replace

from runtimes import files, parity
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine
from runtimes.backends.tensorrt import compatibility, inspector
from runtimes.backends.tensorrt.build_on_open import engine_of
from runtimes.backends.tensorrt.engine import LoadedEngine, deserialise, specs
from runtimes.backends.tensorrt.execution_context import row_bytes
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor
from runtimes.backends.tensorrt.inspector import EngineLayer
from runtimes.backends.tensorrt.profiler import context_for, durations
from runtimes.backends.tensorrt.session import CONTEXTS, EngineSession
from runtimes.errors import ResourceError, RexportError
from runtimes.onnx import graph as onnxfile
from runtimes.onnx.graph import OnnxGraph
from runtimes.protocol import Description, DeviceSession, Layer, Options
from runtimes.runtime import Runtime
from runtimes.tensors import cuda
from runtimes.tensors.cuda import Device
from runtimes.tensors.spec import Arrays


def open_session(artifact: Artifact, options: Options, flavor: Flavor) -> DeviceSession:
    """Open a session on an engine, or on the engine of an ONNX file, which is built on first use.

    An engine that was built without a GPU to run it is compared with its test vectors first.

    Args:
        artifact: The engine or the ONNX file.
        options: The options of the user.
        flavor: The library.

    Raises:
        CheckFailedError: The logits of the engine differ from its test vectors.
        RexportError: As for ``compatibility.check``, ``engine.deserialise`` and ``build_on_open.engine_of``.
    """
    device = cuda.device(options.device_index)
    with cuda.current(device.ordinal):
        return _session(_engine(artifact, options, flavor, device), options, flavor, device)


def _engine(artifact: Artifact, options: Options, flavor: Flavor, device: Device) -> Artifact:
    """Return the artifact itself if it is an engine, or the cached engine of an ONNX file."""
    if artifact.format.name == "engine":
        return artifact

    def open_engine(engine: Artifact) -> Runtime:
        return Runtime(engine, _session(engine, options, flavor, device))

    return engine_of(artifact, flavor, device, open_engine, options.batch)


def _session(artifact: Artifact, options: Options, flavor: Flavor, device: Device) -> EngineSession:
    record = compatibility.check(artifact, flavor, device)
    loaded = deserialise(artifact, record, flavor)
    inputs, outputs = specs(loaded)
    description = Description(
        backend=flavor.backend,
        version=flavor.version(),
        device=str(options.device_name),
        provider=device.name,
        precision=_precision(loaded, artifact),
        threads=1,
        compiled=str(artifact.path),
    )
    session = EngineSession(
        library=loaded.library,
        engine=loaded.engine,
        description=description,
        profiles=record.profiles,
        cuda_graphs=options.cuda_graphs,
        inputs=inputs,
        outputs=outputs,
        contexts=_count_calls(artifact, loaded, record, options.gpu_mem_limit),
        describe_errors=loaded.log.describe_errors,
        device_index=device.ordinal,
    )
    try:
        _check_outputs(artifact, record, session)
    except BaseException:
        session.close()
        raise
    return session


def _count_calls(artifact: Artifact, loaded: LoadedEngine, record: Engine, gpu_mem_limit: int | None) -> int:
    """Return how many calls of each profile may run at once within the limit of the GPU's memory.

    Raises:
        ResourceError: Not even one call of each profile fits.
    """
    if gpu_mem_limit is None:
        return CONTEXTS
    image_bytes = sum(row_bytes(spec) for kind in specs(loaded) for spec in kind)
    call_bytes = sum(
        int(loaded.engine.get_device_memory_size_for_profile_v2(number)) + profile.most * image_bytes
        for number, profile in enumerate(record.profiles)
    )
    weights_bytes = artifact.path.stat().st_size
    calls = (gpu_mem_limit - weights_bytes) // call_bytes
    if calls < 1:
        raise ResourceError(
            f"the engine needs about {weights_bytes + call_bytes:,} bytes of GPU memory, and the limit is "
            f"{gpu_mem_limit:,}",
            code="gpu-memory-limit-too-small",
            path=artifact.path,
            hint="raise gpu_mem_limit, or build the engine for smaller batches",
        )
    return min(CONTEXTS, calls)


def _precision(loaded: LoadedEngine, artifact: Artifact) -> str:
    """Return the precisions of the weighted layers from the engine, or the precision of the graph if not reported."""
    try:
        precisions = {row.layer.precision for row in inspector.layers(loaded) if row.layer.weighted}
    except RexportError:
        precisions = set()
    known = " ".join(sorted(precisions - {"unknown"}))
    return known or ("unknown" if artifact.manifest is None else artifact.manifest.precision)


def _check_outputs(artifact: Artifact, record: Engine, session: EngineSession) -> None:
    manifest = artifact.manifest
    if manifest is None or manifest.parity is not None or manifest.vectors is None or record.tolerance is None:
        return
    runtime = Runtime(artifact, session)  # not closed, because the caller owns the session
    parity.check(runtime, artifact.vectors(), record.tolerance, "PyTorch fp32", "the engine's test vectors")


def profile(artifact: Artifact, options: Options, arrays: Arrays, flavor: Flavor) -> tuple[Layer, ...]:
    """Return the layers of an engine with their times, as ``Backend.profile``.

    Args:
        artifact: The engine or the ONNX file.
        options: The options of the user.
        arrays: The inputs by name.
        flavor: The library.

    Raises:
        RexportError: As for ``open_session`` and ``profiler.durations``.
    """
    device = cuda.device(options.device_index)
    with cuda.current(device.ordinal):
        engine = _engine(artifact, options, flavor, device)
        record = compatibility.check(engine, flavor, device)
        loaded = deserialise(engine, record, flavor)
        rows, times = durations(loaded, specs(loaded), record.profiles, arrays, _graph(artifact, engine))
        return tuple(replace(row.layer, duration_s=times.get(row.title), tactic=row.tactic) for row in rows)


def inspect_layers(artifact: Artifact, device_index: int = 0) -> tuple[EngineLayer, ...]:
    """Return the layers of an engine with their kernels, at the batch size that its first profile is tuned for.

    Args:
        artifact: The engine.
        device_index: The number of the GPU.

    Raises:
        BackendUnavailableError: The library or a GPU is missing.
        CompatibilityError: The engine was built for another GPU or version.
        RexportError: As for ``compatibility.check`` and ``engine.deserialise``.
    """
    flavor = FLAVORS["tensorrt"]
    if artifact.manifest is not None and artifact.manifest.engine is not None:
        flavor = FLAVORS[artifact.manifest.engine.flavor]
    device = cuda.device(device_index)
    with cuda.current(device.ordinal):
        record = compatibility.check(artifact, flavor, device)
        loaded = deserialise(artifact, record, flavor)
        context = context_for(loaded, specs(loaded)[0], record.profiles, record.profiles[0].best)
        return inspector.layers(loaded, context, _graph(artifact, artifact))


def _graph(artifact: Artifact, engine: Artifact) -> OnnxGraph | None:
    """Return the graph of the ONNX file that the engine was built from, or ``None`` if the file is missing."""
    if artifact.format.name == "onnx":
        return onnxfile.graph(artifact.path)
    manifest = engine.manifest
    if manifest is None or manifest.engine is None:
        return None
    try:
        source = engine.sibling(manifest.engine.onnx, manifest.parent)
        return onnxfile.graph(source) if files.sha256_of(source) == manifest.parent else None
    except RexportError:
        return None
