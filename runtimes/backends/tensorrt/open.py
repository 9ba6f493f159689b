"""From an artifact to a session, by one way for both libraries: an engine through the gates, an ONNX file through the
engine that is built of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runtimes import files, parity
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine
from runtimes.backends.tensorrt import compatibility, inspector
from runtimes.backends.tensorrt.build_on_open import engine_of
from runtimes.backends.tensorrt.engine import LoadedEngine, deserialise, specs
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor
from runtimes.backends.tensorrt.inspector import EngineLayer
from runtimes.backends.tensorrt.profiler import context_for, durations
from runtimes.backends.tensorrt.session import EngineSession
from runtimes.errors import Reason, RexportError
from runtimes.onnx import graph as onnxfile
from runtimes.onnx.graph import OnnxGraph
from runtimes.protocol import Arrays, Backend, Description, DeviceSession, Layer, Options
from runtimes.runtime import Runtime
from runtimes.tensors import cuda
from runtimes.tensors.cuda import Device

_ORDINAL = 0
"""Of the GPU, among those that CUDA_VISIBLE_DEVICES leaves."""


def backend(flavor: Flavor, priority: int) -> Backend:
    """The row of the library."""
    return Backend(
        name=flavor.backend,
        formats=("engine", "onnx"),
        devices=("cuda",),
        priority=priority,
        missing=lambda: missing(flavor),
        open=lambda artifact, options: open_session(artifact, options, flavor),
        profile=lambda artifact, options, arrays: profile(artifact, options, arrays, flavor),
    )


def missing(flavor: Flavor) -> Reason | None:
    """Why the flavor's engines cannot run here, or ``None`` if they can."""
    return flavor.missing() or cuda.missing()


def open_session(artifact: Artifact, options: Options, flavor: Flavor) -> DeviceSession:
    """The session on an engine; of an ONNX file, on the engine that is built of it when it is first opened.

    An engine that was built where it could not run has its answers checked before it gives any.

    Raises:
        CheckFailedError: the answers are not those of its test vectors.
        RexportError: as ``gates.check``, ``engine.deserialise`` and ``firstuse.engine_of``.
    """
    device = cuda.device(_ORDINAL)
    with cuda.current(_ORDINAL):
        return _session(_engine(artifact, options, flavor, device), options, flavor, device)


def _engine(artifact: Artifact, options: Options, flavor: Flavor, device: Device) -> Artifact:
    """The artifact itself where it is an engine, else the one of the cache."""
    if artifact.format.name == "engine":
        return artifact

    def first(engine: Artifact) -> Runtime:
        return Runtime(engine, _session(engine, options, flavor, device))

    return engine_of(artifact, flavor, device, first)


def _session(artifact: Artifact, options: Options, flavor: Flavor, device: Device) -> EngineSession:
    about = compatibility.check(artifact, flavor, device)
    loaded = deserialise(artifact, about, flavor)
    inputs, outputs = specs(loaded)
    description = Description(
        backend=flavor.backend,
        version=flavor.version(),
        device=options.device,
        provider=device.name,
        precision=_precision(loaded, artifact),
        threads=1,
    )
    session = EngineSession(
        library=loaded.library,
        engine=loaded.engine,
        about=description,
        profiles=about.profiles,
        cuda_graphs=options.cuda_graphs,
        inputs=inputs,
        outputs=outputs,
        heard=loaded.log.describe_errors,
    )
    try:
        _check_outputs(artifact, about, session)
    except BaseException:
        session.close()
        raise
    return session


def _precision(loaded: LoadedEngine, artifact: Artifact) -> str:
    """The arithmetic of the layers that have weights, as the engine tells it; where it does not, what its graph was
    typed in."""
    try:
        found = {row.layer.precision for row in inspector.layers(loaded) if row.layer.weighted}
    except RexportError:
        found = set()
    known = " ".join(sorted(found - {"unknown"}))
    return known or ("unknown" if artifact.manifest is None else artifact.manifest.precision)


def _check_outputs(artifact: Artifact, about: Engine, session: EngineSession) -> None:
    manifest = artifact.manifest
    if manifest is None or manifest.parity is not None or manifest.vectors is None or about.tolerance is None:
        return
    runtime = Runtime(artifact, session)  # which is not closed: the session is its caller's
    parity.check(runtime, artifact.vectors(), about.tolerance, "PyTorch fp32", "the engine's test vectors")


def profile(artifact: Artifact, options: Options, arrays: Arrays, flavor: Flavor) -> tuple[Layer, ...]:
    """The engine's layers with the time that each takes in a run on ``arrays``."""
    device = cuda.device(_ORDINAL)
    with cuda.current(_ORDINAL):
        engine = _engine(artifact, options, flavor, device)
        about = compatibility.check(engine, flavor, device)
        loaded = deserialise(engine, about, flavor)
        rows, times = durations(loaded, specs(loaded), about.profiles, arrays, _graph(artifact, engine))
        return tuple(replace(row.layer, duration_s=times.get(row.title)) for row in rows)


def inspect_layers(artifact: Artifact) -> tuple[EngineLayer, ...]:
    """The layers of an engine, with the kernels that were chosen for them, at the batch that it is tuned for.

    Raises:
        BackendUnavailableError: its library or a GPU is missing.
        RexportError: as ``gates.check`` and ``engine.deserialise``; CompatibilityError where this is another GPU.
    """
    flavor = FLAVORS["tensorrt"]
    if artifact.manifest is not None and artifact.manifest.engine is not None:
        flavor = FLAVORS[artifact.manifest.engine.flavor]
    device = cuda.device(_ORDINAL)
    with cuda.current(_ORDINAL):
        about = compatibility.check(artifact, flavor, device)
        loaded = deserialise(artifact, about, flavor)
        context = context_for(loaded, specs(loaded)[0], about.profiles, about.profiles[0].best)
        return inspector.layers(loaded, context, _graph(artifact, artifact))


def _graph(artifact: Artifact, engine: Artifact) -> OnnxGraph | None:
    """Of the ONNX file that the engine was built from, if it is at hand."""
    if artifact.format.name == "onnx":
        return onnxfile.graph(artifact.path)
    manifest = engine.manifest
    if manifest is None or manifest.engine is None or Path(manifest.engine.onnx).name != manifest.engine.onnx:
        return None
    place = engine.path.with_name(manifest.engine.onnx)
    try:
        return onnxfile.graph(place) if files.sha256_of(place) == manifest.parent else None
    except RexportError:
        return None
