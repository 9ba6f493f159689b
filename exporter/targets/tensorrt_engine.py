"""Build of a TensorRT engine from an ONNX artifact, or from a variant with an ONNX file between.

The engine is a plain engine file, which other tools can read. It runs only on some GPUs. If such a GPU is here, the
engine is checked on it. Otherwise the engine is checked against its test vectors when it is opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from exporter.export_request import ExportListener, ExportRequest, target_file
from exporter.network import Network, prepare
from exporter.precision.gate import AccuracyGate
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets import expected_accuracy
from exporter.targets.onnx_file import export_network
from exporter.targets.publish import ExportTarget
from exporter.targets.rebuild import network_of
from exporter.targets.sparse_weights import count_sparse_layers
from runtimes import Artifact, Manifest, Runtime, files, open_artifact, parity
from runtimes.artifacts.artifact import VECTORS_LIMIT_BYTES, publish, vectors_name
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Accuracy, FileRecord, Gate, Parity
from runtimes.backends.tensorrt import compatibility, engine_manifest
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import BuiltEngine, build
from runtimes.backends.tensorrt.flavors import Flavor, compute_capabilities, default_flavor, flavor
from runtimes.devices import CUDA, DeviceName
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError, Reason, UsageError, quote
from runtimes.escaping import shell_word
from runtimes.onnx import graph as onnxfile
from runtimes.tensors import cuda
from runtimes.tensors.presence import identify

AUTO = "auto"
"""The name that stands for the most preferred flavor that is installed."""

NOTICE_INTERVAL_S = 30.0
"""The time between two notices of a long build, in seconds."""


@dataclass(frozen=True)
class EngineRequest:
    """The requested engine.

    Attributes:
        flavor: A name in ``runtimes.backends.tensorrt.flavors.FLAVORS``, or ``AUTO``.
        settings: The settings of the builder. Their ``tf32`` is ignored, because the graph determines it.
        out: A file, or a folder if it exists or ends in a slash. ``None`` means the folder of the ONNX file.
        force: Whether existing files are replaced.
        device_index: The number of the GPU to build for and to check on.
    """

    flavor: str = AUTO
    settings: Settings = field(default_factory=Settings)
    out: str | None = None
    force: bool = False
    device_index: int = 0

    def choose_flavor(self) -> Flavor:
        """Return the flavor, whose library is installed and supports the settings.

        Raises:
            UsageError: The flavor is unknown, or does not support a setting.
            BackendUnavailableError: The library is not installed, or no library is.
        """
        chosen = default_flavor() if self.flavor == AUTO else flavor(self.flavor)
        chosen.library()
        self.settings.check(chosen)
        return chosen


def export(
    request: ExportRequest,
    order: EngineRequest,
    listener: ExportListener,
    opset: int | None = None,
    precision_spec: PrecisionSpec = FP32,
) -> Artifact:
    """Export ``request.variant`` to an ONNX file, and build an engine from it in the same folder.

    Args:
        request: The network and the destination.
        order: The engine. Its ``out`` and ``force`` are ignored.
        listener: Receives the progress and notices.
        opset: The opset, or ``None`` for the default of the precision.
        precision_spec: The precision.

    Returns:
        The published engine.

    Raises:
        RexportError: As for ``exporter.targets.onnx_file.export`` and ``build_artifact``. The ONNX file stays if only
            the engine fails.
    """
    chosen = order.choose_flavor()
    with request.target(".engine") as target:
        source = _source_beside(target, request.force)
        network = prepare(request, listener)
        place = ExportTarget(source, request.batch, opset, request.force)
        parent = export_network(network, place, precision_spec, listener)
        listener.notice(f"{source}: the ONNX file for the engine")
        building = EngineBuild(parent, target, replace(order, force=request.force), chosen, listener)
        return building.run(lambda: network, precision_spec, network)


def _source_beside(target: Path, force: bool) -> Path:
    """Return the ONNX file to write beside an engine."""
    source = target.with_suffix(".onnx")
    if source == target:
        raise UsageError(
            "the name of an engine must not end in .onnx", code="engine-name-onnx", path=target, hint="-o NAME.engine"
        )
    if source.exists() and not force:
        raise UsageError(
            "the ONNX file for the engine already exists",
            code="engine-source-exists",
            path=source,
            hint=f"rexport tensorrt {shell_word(source)} builds the engine from it, --force replaces it",
        )
    return source


def build_artifact(path: Path, order: EngineRequest, listener: ExportListener) -> Artifact:
    """Build an engine from an ONNX artifact and publish it.

    If a GPU that can run the engine is here, parity and the accuracy of the precision are checked first. The call
    blocks for seconds, with TensorRT up to many minutes.

    Args:
        path: The ONNX artifact.
        order: The engine.
        listener: Receives the progress and notices.

    Returns:
        The published engine.

    Raises:
        UsageError: The target exists, or the settings do not fit the library or the graph.
        ArtifactError: The file is not an ONNX file, is damaged, or has no manifest.
        CompatibilityError: The library does not support the graph.
        CheckFailedError: The logits of the engine differ from those of the network. No engine is left.
        BackendUnavailableError: The library is missing, or needs a GPU for the build.
        ResourceError: Disk space or memory is lacking.
        KeyboardInterrupt: The build was interrupted. No engine is left.
    """
    chosen = order.choose_flavor()
    parent = read_onnx(path)
    manifest, _, _ = _read_parent(parent)
    precision_spec = PrecisionSpec(manifest.precision) if manifest.precision in PRECISIONS else FP32
    with target_file(order.out or f"{path.parent}/", f"{path.stem}.engine", order.force) as target:
        building = EngineBuild(parent, target, order, chosen, listener)
        return building.run(lambda: network_of(parent, listener), precision_spec)


def read_onnx(path: Path) -> Artifact:
    """Return the ONNX artifact at ``path``, which has a manifest and test vectors.

    Raises:
        ArtifactError: The file is not an ONNX file, or lacks one of them.
    """
    parent = Artifact.read(path)
    if parent.format.name != "onnx":
        raise ArtifactError(
            f"the weights of an engine come from an ONNX file, but this file has the format {parent.format.name}",
            code="engine-needs-onnx",
            path=path,
            hint="rexport onnx VARIANT writes an ONNX file",
        )
    _read_parent(parent)
    return parent


def _read_parent(parent: Artifact) -> tuple[Manifest, Parity, FileRecord]:
    """Return the manifest, the parity record and the test vectors of an ONNX file.

    Raises:
        ArtifactError: One of them is missing.
    """
    manifest = parent.manifest
    if manifest is None:
        raise ArtifactError(
            "the file has no manifest, so there are no test vectors for a check of the engine",
            code="engine-vectors-missing",
            path=parent.path,
            hint="export the network with rexport onnx",
        )
    if manifest.parity is None or manifest.vectors is None:
        raise ArtifactError(
            "the manifest records no parity check",
            code="parity-unrecorded",
            path=parent.path,
            hint="export the network again",
        )
    return manifest, manifest.parity, manifest.vectors


FLOAT8_CAPABILITY = (8, 9)
"""The first compute capability with 8-bit floats: Ada. Hopper and Blackwell follow."""


def _float8_targets(parent: Artifact, order: EngineRequest, flavor: Flavor) -> tuple[str, ...]:
    """Return the compute capabilities to build for. For a graph with 8-bit floats, each of them must have these floats.

    Raises:
        CompatibilityError: A requested GPU, or the GPU of this machine that TensorRT builds for, has no 8-bit floats.
    """
    targets = order.settings.targets
    if "float8" not in onnxfile.graph(parent.path).arithmetic:
        return targets
    if flavor.name == "rtx":
        wanted = targets or tuple(filter(_has_float8, compute_capabilities(flavor)))
    else:
        wanted = () if cuda.missing() is not None else (cuda.device(order.device_index).compute_capability,)
    lacking = [target for target in wanted if not _has_float8(target)]
    if lacking:
        raise CompatibilityError(
            f"GPUs of compute capability {lacking[0]} have no 8-bit floats, which fp8 needs; Ada, Hopper and Blackwell "
            "have them (8.9 and later)",
            code="gpu-without-float8",
            path=parent.path,
            hint="--precision int8 or fp16 serves these GPUs",
        )
    return wanted if flavor.name == "rtx" else targets


def _has_float8(capability: str) -> bool:
    major, minor = map(int, capability.split("."))
    return (major, minor) >= FLOAT8_CAPABILITY


class EngineBuild:
    """The build of one engine from an ONNX file, with its checks."""

    def __init__(
        self, parent: Artifact, target: Path, order: EngineRequest, flavor: Flavor, listener: ExportListener
    ) -> None:
        self.parent, self.target, self.flavor, self.listener = parent, target, flavor, listener
        self.force, self.device = order.force, DeviceName(CUDA, order.device_index)
        self.manifest, self.parity, self.vectors = _read_parent(parent)
        targets = _float8_targets(parent, order, flavor)
        self.settings = replace(order.settings, tf32=parent.allows_tf32, targets=targets)
        if order.settings.strip_weights and target.parent.resolve() != parent.path.parent.resolve():
            raise UsageError(
                f"an engine without weights reads them from {quote(parent.path.name)}, which must be in the same "
                "folder",
                code="stripped-engine-apart",
                hint=f"-o {shell_word(parent.path.parent)}/",
            )

    def run(
        self, network: Callable[[], Network], precision_spec: PrecisionSpec, expecting: Network | None = None
    ) -> Artifact:
        """Build, check and publish the engine.

        Args:
            network: Returns the fp32 network for the accuracy gate, if there is one.
            precision_spec: The precision.
            expecting: The network with the expected accuracy, if that is known.

        Raises:
            IntegrityError: The ONNX file is damaged, or was replaced meanwhile.
            RexportError: As for ``build_artifact``.
        """
        identity = files.identity(self.parent.path)
        self.parent.check_digest()
        vectors = self._vectors()
        built = self._build_engine()
        with files.temporary_file(self.target) as file, files.temporary_file(self.target) as vectors_file:
            file.write_bytes(built.plan)
            if files.identity(self.parent.path) != identity:
                raise IntegrityError(
                    "the ONNX file was replaced while the engine was built",
                    code="engine-source-replaced",
                    path=self.parent.path,
                    hint="build the engine again",
                )
            manifest = self._check_engine(file, self._record(built, file), network, precision_spec, expecting)
            self.listener.step("writing the engine")
            digest = sha256(vectors).hexdigest()
            vectors_file.write_bytes(vectors)
            own = FileRecord(vectors_name(self.target, digest), digest)
            return publish(file, self.target, replace(manifest, vectors=own), vectors_file, self.force)

    def _vectors(self) -> bytes:
        """Return the content of the ONNX file's test vectors, after a check."""
        self.parent.vectors()  # raises an error if they are damaged
        return files.read_bounded(self.parent.path.with_name(self.vectors.name), VECTORS_LIMIT_BYTES)

    def _build_engine(self) -> BuiltEngine:
        if self.settings.sparse_weights:
            self._announce_sparse_weights()
        title = f"{self.flavor.title} {self.flavor.version()}"
        self.listener.step(f"building an engine with {title}")
        try:
            # A new thread uses the first GPU by itself, and TensorRT-RTX builds without a GPU.
            index = self.device.index or None
            built = build(self.parent.path, self.settings, self.flavor, BuildProgress(self.listener), index)
        except (ArtifactError, CompatibilityError) as error:
            raise self._add_hint(error) from error
        self.listener.notice(
            f"{title}: {len(built.plan):,} bytes from {built.layers} layers in {built.duration_s:.1f} s, for "
            f"{'; '.join(map(str, built.profiles))}"
        )
        return built

    def _announce_sparse_weights(self) -> None:
        sparse, layers = count_sparse_layers(self.parent.path)
        self.listener.notice(
            f"{sparse} of {layers} weighted layers have 2:4 sparse weights"
            if sparse
            else Reason(
                "sparse-weights-absent",
                f"none of the {layers} weighted layers has 2:4 sparse weights, so --sparse-weights has no effect",
            )
        )

    def _add_hint(self, error: ArtifactError | CompatibilityError) -> ArtifactError | CompatibilityError:
        """Return the error, with the mending command if the graph has unsigned int8."""
        calibration = self.manifest.calibration
        if calibration is None or calibration.target == "tensorrt":
            return error
        return type(error)(
            f"{error.what}; this int8 graph is for CPUs and has unsigned integers, but TensorRT supports only signed "
            "ones",
            code="int8-not-signed",
            path=error.path,
            hint=f"rexport onnx {shell_word(self.manifest.name)} --precision {shell_word(self.manifest.precision)} "
            "--target tensorrt",
        )

    def _record(self, built: BuiltEngine, file: Path) -> Manifest:
        """Return the manifest without the results of the checks."""
        gpu = identify(self.device)
        return engine_manifest.manifest(self.parent, file, built, self.settings, self.flavor, gpu)

    def _check_engine(
        self,
        file: Path,
        manifest: Manifest,
        network: Callable[[], Network],
        precision_spec: PrecisionSpec,
        expecting: Network | None,
    ) -> Manifest:
        """Return the manifest with the results of the checks that are possible on this machine."""
        missing = cuda.missing()
        reason = str(missing)
        if missing is None:
            self.listener.step("checking parity")
            engine = Artifact(file, FORMATS["engine"], manifest)
            try:
                compatibility.check(engine, self.flavor, cuda.device(self.device.index))
            except CompatibilityError as error:  # the GPU here cannot run the engine
                reason = error.what
            else:
                with open_artifact(engine, self.flavor.backend, str(self.device)) as runtime:
                    return replace(
                        manifest,
                        parity=self._parity(runtime),
                        gate=self._gate(runtime, network, precision_spec),
                        accuracy=None if expecting is None else self._accuracy(runtime, expecting),
                    )
        self.listener.notice(
            Reason(
                "engine-unchecked", f"the engine was not checked here: {reason}; it will be checked when it is opened"
            )
        )
        return manifest

    def _parity(self, runtime: Runtime) -> Parity:
        record = self.parity
        return parity.check(runtime, self.parent.vectors(), record.tolerance, record.reference, record.images)

    def _accuracy(self, runtime: Runtime, network: Network) -> Accuracy | None:
        if network.expected is None:
            return None
        return expected_accuracy.check(runtime, network, network.expected, self.listener)

    def _gate(self, runtime: Runtime, network: Callable[[], Network], precision_spec: PrecisionSpec) -> Gate | None:
        bounds = precision_spec.bounds
        if bounds is None:
            return None
        try:
            reference = network()
        except CompatibilityError as error:  # the fp32 weights are not available
            self.listener.notice(
                Reason(
                    "gate-not-repeated",
                    f"{precision_spec.precision}: parity passed, but the accuracy gate was not repeated: {error.what}",
                )
            )
            return None
        accuracy_gate = AccuracyGate(reference, precision_spec, bounds, self.listener)
        record = accuracy_gate.measure(runtime)
        accuracy_gate.check([record])
        return record


class BuildProgress:
    """Sends the progress of a build to a listener: each step, and a notice every ``NOTICE_INTERVAL_S``.

    Args:
        listener: Receives steps and notices.
        clock: Returns the time in seconds.
    """

    def __init__(self, listener: ExportListener, clock: Callable[[], float] = time.monotonic) -> None:
        self._listener = listener
        self._clock = clock
        self._began = self._last = clock()

    def __call__(self, phase: str, done: int, total: int) -> bool:
        """Receive that ``done`` of ``total`` steps of a phase are done, and return true to continue the build."""
        now = self._clock()
        text = f"building the engine: {quote(phase)}, {done} of {total}"
        self._listener.step(text)
        if now - self._last >= NOTICE_INTERVAL_S:
            self._last = now
            self._listener.notice(f"{text}, after {now - self._began:.0f} s")
        return True
