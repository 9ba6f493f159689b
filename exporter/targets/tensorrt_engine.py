"""A TensorRT engine of an ONNX artifact, or of a variant by way of one. It is a plain engine, which other tools read.

An engine runs where its GPU is. It is checked here if that is here; else it carries its test vectors along, and is
checked where it is first opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from exporter.network import ExportListener, ExportRequest, Network, prepare, target_file
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets.onnx_file import ExportTarget, export_network
from exporter.targets.publish import check_gate
from exporter.targets.rebuild import network_of
from runtimes import Artifact, Manifest, Runtime, files, open_artifact, parity
from runtimes.artifacts.artifact import VECTORS_LIMIT_BYTES, publish, vectors_name
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import FileRecord, Gate, Parity
from runtimes.backends.tensorrt import compatibility, engine_manifest
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import BuiltEngine, build
from runtimes.backends.tensorrt.flavors import Flavor, default_flavor, flavor
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError, Reason, UsageError, quote
from runtimes.tensors import cuda

AUTO = "auto"
"""In place of a flavor's name: the most preferred one that is installed."""

TOLD_EVERY_S = 30.0
"""How often a notice says how far a long build is."""


@dataclass(frozen=True)
class EngineRequest:
    """What engine to build, and where to.

    Attributes:
        flavor: a name in ``runtimes.backends.tensorrt.flavors.FLAVORS``, or ``AUTO``.
        settings: of the builder; whether float32 may be TensorFloat-32 is the graph's to say and not theirs.
        out: a file, or a folder if it exists as one or ends in a slash; ``None`` is the folder of the ONNX file.
        force: whether what is there is replaced.
    """

    flavor: str = AUTO
    settings: Settings = field(default_factory=Settings)
    out: str | None = None
    force: bool = False

    def choose_flavor(self) -> Flavor:
        """The flavor, whose library is here and has all that the settings ask for.

        Raises:
            UsageError: there is no such flavor, or it lacks something.
            BackendUnavailableError: it is not installed, or none is.
        """
        found = default_flavor() if self.flavor == AUTO else flavor(self.flavor)
        found.library()
        self.settings.check(found)
        return found


def export(
    request: ExportRequest,
    order: EngineRequest,
    listener: ExportListener,
    opset: int | None = None,
    precision_spec: PrecisionSpec = FP32,
) -> Artifact:
    """Exports ``request.variant`` to an ONNX file, checked as ``exporter.targets.onnx_file.export`` does, and builds
    an engine of it in the same folder; ``request`` says where to, and ``order.out`` and ``order.force`` do not count.

    Raises:
        As ``exporter.targets.onnx_file.export`` and ``build_artifact``; the ONNX file stays where only the engine
    failed.
    """
    chosen = order.choose_flavor()
    target = request.target(".engine")
    source = target.with_suffix(".onnx")
    if source == target:
        raise UsageError(
            "an engine's name does not end in .onnx", code="engine-name-onnx", path=target, hint="-o NAME.engine"
        )
    if source.exists() and not request.force:
        raise UsageError(
            "the ONNX file that the engine would be built from is there already",
            code="engine-source-exists",
            path=source,
            hint=f"rexport tensorrt {quote(source)} builds from it, --force replaces it",
        )
    network = prepare(request, listener)
    parent = export_network(network, ExportTarget(source, request.batch, opset), precision_spec, listener)
    listener.notice(f"{source}: what the engine is built from")
    return _Building(parent, target, order.settings, chosen, listener).run(lambda: network, precision_spec)


def build_artifact(path: Path, order: EngineRequest, listener: ExportListener) -> Artifact:
    """Builds an engine of the ONNX artifact at ``path`` and publishes it; blocks for seconds, with TensorRT up to many
    minutes. With a GPU that runs it, it passes parity and its precision's gate first.

    Raises:
        UsageError: the target exists, or the settings do not fit the library or the graph.
        ArtifactError: no ONNX file, one that is damaged, or a foreign one.
        CompatibilityError: the library does not take the graph.
        CheckFailedError: the engine's logits are not the network's; nothing is left.
        BackendUnavailableError: the library is missing, or needs a GPU to build.
        ResourceError: disk or memory.
        KeyboardInterrupt: nothing is left.
    """
    chosen = order.choose_flavor()
    parent = Artifact.read(path)
    if parent.format.name != "onnx":
        raise ArtifactError(
            f"an engine is built from an ONNX file, and this is a .{parent.format.name}",
            code="engine-needs-onnx",
            path=path,
            hint="rexport onnx VARIANT makes one",
        )
    target = target_file(order.out or f"{path.parent}/", f"{path.stem}.engine", order.force)
    manifest, _, _ = _read_parent(parent)
    precision_spec = PrecisionSpec(manifest.precision) if manifest.precision in PRECISIONS else FP32
    building = _Building(parent, target, order.settings, chosen, listener)
    return building.run(lambda: network_of(parent, listener), precision_spec)


def _read_parent(parent: Artifact) -> tuple[Manifest, Parity, FileRecord]:
    """What is known of an ONNX file, and what its engine is held to.

    Raises:
        ArtifactError: nothing.
    """
    manifest = parent.manifest
    if manifest is None:
        raise ArtifactError(
            "a foreign file has no test vectors to check an engine with",
            code="engine-vectors-missing",
            path=parent.path,
            hint="export it with rexport onnx",
        )
    if manifest.parity is None or manifest.vectors is None:
        raise ArtifactError(
            "its manifest records no parity check", code="parity-unrecorded", path=parent.path, hint="export it again"
        )
    return manifest, manifest.parity, manifest.vectors


class _Building:
    """One engine on its way from its ONNX file to its place."""

    def __init__(
        self, parent: Artifact, target: Path, settings: Settings, flavor: Flavor, listener: ExportListener
    ) -> None:
        self.parent, self.target, self.flavor, self.listener = parent, target, flavor, listener
        self.manifest, self.parity, self.vectors = _read_parent(parent)
        self.settings = replace(settings, tf32=parent.allows_tf32)
        if settings.strip_weights and target.parent.resolve() != parent.path.parent.resolve():
            raise UsageError(
                f"an engine without its weights takes them from {quote(parent.path.name)}, which must lie beside it",
                code="stripped-engine-apart",
                hint=f"-o {quote(parent.path.parent)}/",
            )

    def run(self, network: Callable[[], Network], precision_spec: PrecisionSpec) -> Artifact:
        """``network`` gives what the engine's precision is judged against, if it is judged here."""
        before = files.identity(self.parent.path)
        self.parent.check_digest()
        vectors = self._vectors()
        found = self._build_engine()
        with files.temporary_file(self.target) as file, files.temporary_file(self.target) as place:
            file.write_bytes(found.plan)
            if files.identity(self.parent.path) != before:
                raise IntegrityError(
                    "it was replaced while the engine was built",
                    code="engine-source-replaced",
                    path=self.parent.path,
                    hint="build it again",
                )
            manifest = self._check_engine(file, self._record(found, file), network, precision_spec)
            self.listener.step("writing the engine")
            digest = sha256(vectors).hexdigest()
            place.write_bytes(vectors)
            own = FileRecord(vectors_name(self.target, digest), digest)
            return publish(file, self.target, replace(manifest, vectors=own), place)

    def _vectors(self) -> bytes:
        """Those of the ONNX file, as they lie there."""
        self.parent.vectors()  # they are whole
        return files.read_bounded(self.parent.path.with_name(self.vectors.name), VECTORS_LIMIT_BYTES)

    def _build_engine(self) -> BuiltEngine:
        title = f"{self.flavor.title} {self.flavor.version()}"
        self.listener.step(f"building an engine with {title}")
        try:
            found = build(self.parent.path, self.settings, self.flavor, BuildProgress(self.listener))
        except (ArtifactError, CompatibilityError) as error:
            raise self._add_hint(error) from error
        self.listener.notice(
            f"{title}: {len(found.plan):,} bytes from {found.layers} layers in {found.duration_s:.1f} s, for "
            f"{'; '.join(map(str, found.profiles))}"
        )
        return found

    def _add_hint(self, error: ArtifactError | CompatibilityError) -> ArtifactError | CompatibilityError:
        """What else can be done about a graph that the library refuses."""
        calibration = self.manifest.calibration
        if calibration is None or calibration.target == "tensorrt":
            return error
        return type(error)(
            f"{error.what}; its int8 is for CPUs, with unsigned integers, and TensorRT takes signed ones alone",
            code="int8-not-signed",
            path=error.path,
            hint=f"rexport onnx {self.manifest.name} --precision {self.manifest.precision} --target tensorrt",
        )

    def _record(self, found: BuiltEngine, file: Path) -> Manifest:
        """What is known before any check."""
        gpu = cuda.device() if cuda.missing() is None else None
        return engine_manifest.manifest(self.parent, file, found, self.settings, self.flavor, gpu)

    def _check_engine(
        self, file: Path, manifest: Manifest, network: Callable[[], Network], precision_spec: PrecisionSpec
    ) -> Manifest:
        """The manifest with the checks that can be done here."""
        missing = cuda.missing()
        reason = str(missing)
        if missing is None:
            self.listener.step("checking parity")
            engine = Artifact(file, FORMATS["engine"], manifest)
            try:
                compatibility.check(engine, self.flavor, cuda.device())
            except CompatibilityError as error:  # it is for other GPUs than the one that is here
                reason = error.what
            else:
                with open_artifact(engine, self.flavor.backend, "cuda") as runtime:
                    return replace(
                        manifest, parity=self._parity(runtime), gate=self._gate(runtime, network, precision_spec)
                    )
        self.listener.notice(
            Reason("engine-unchecked", f"not checked here: {reason}; it is checked where it is opened")
        )
        return manifest

    def _parity(self, runtime: Runtime) -> Parity:
        was = self.parity
        return parity.check(runtime, self.parent.vectors(), was.tolerance, was.reference, was.images)

    def _gate(self, runtime: Runtime, network: Callable[[], Network], precision_spec: PrecisionSpec) -> Gate | None:
        bounds = precision_spec.row.bounds
        if bounds is None:
            return None
        try:
            found = network()
        except CompatibilityError as error:  # its fp32 weights are not at hand
            self.listener.notice(
                Reason(
                    "gate-not-repeated",
                    f"{precision_spec.precision}: parity holds, and its gate was not repeated: {error.what}",
                )
            )
            return None
        return check_gate(runtime, precision_spec, bounds, found, self.listener)


class BuildProgress:
    """Tells a listener how far a build is: each step where that is shown, and a notice now and then in any case."""

    def __init__(self, listener: ExportListener, clock: Callable[[], float] = time.monotonic) -> None:
        self._listener = listener
        self._clock = clock
        self._began = self._last = clock()

    def __call__(self, phase: str, done: int, total: int) -> bool:
        now = self._clock()
        words = f"building the engine: {quote(phase)}, {done} of {total}"
        self._listener.step(words)
        if now - self._last >= TOLD_EVERY_S:
            self._last = now
            self._listener.notice(f"{words}, after {now - self._began:.0f} s")
        return True
