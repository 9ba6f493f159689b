"""The request of the user, and what is measured for it: networks in their precisions, backends, configurations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.records.plan import BUDGET_S, ROUNDS, SILENCE_S, STREAMS, Plan
from benchmarks.records.result import Baseline
from exporter.precision.spec import FP32 as FP32_SPEC
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import CALIBRATION_IMAGES, Target, precision
from runtimes import Artifact, Backend
from runtimes.arguments import LARGEST_COUNT, LARGEST_SEED, require_not_too_large
from runtimes.artifacts.manifest import Weights
from runtimes.backends import registry
from runtimes.devices import join_devices, parse_devices
from runtimes.errors import ArtifactError, Reason, UsageError
from runtimes.parity import LOGITS

REFERENCE = registry.reference_backend().name
"""The backend of PyTorch in eager mode. It is the baseline if it is measured and no other baseline is requested."""

BUNDLED_VARIANT = "resnet20"
"""The variant of the bundled model."""

BUNDLED_WEIGHTS = "bundled"
"""The name of the bundled weights."""

NOISE = "noise"
"""The name of random inputs, where images of a data set are not used."""

FP32 = FP32_SPEC.precision
"""The default precision of a variant, and the precision of the reference."""

TYPED_FORMAT = "onnx"
"""The file format that can hold any precision."""

PROGRAM_FORMAT = "pt2"
"""The file format of PyTorch programs."""

REMADE_FORMATS = frozenset({TYPED_FORMAT, PROGRAM_FORMAT, "engine"})
"""The file formats whose network can be rebuilt in PyTorch."""


@dataclass(frozen=True)
class RunListener:
    """The callbacks that report the progress of a run.

    Attributes:
        step: Called with the subject of the work and its current step.
        notice: Called with a line that the user must see.
        left: Called with the estimated seconds left, or ``None`` while there is no estimate.
        position: Called with the planned configurations at work: the first, the last, and their number in all. Three
            zeros mean that none is at work.
    """

    step: Callable[[str, str], None]
    notice: Callable[[str | Reason], None]
    left: Callable[[float | None], None] = lambda _: None
    position: Callable[[int, int, int], None] = lambda *_: None


@dataclass(frozen=True)
class BenchmarkRequest:
    """The request of the user.

    Attributes:
        subjects: The paths of artifacts and checkpoints, and names of variants. If empty, the bundled trained model.
        backends: The backends by name or alias; no others are measured. If empty, all that open the artifact and can
            run on the device, except those that are measured only by name.
        baseline: The backend that the others are compared with, by name or alias, which is always measured; ``None``
            for PyTorch if it is measured, otherwise the first backend that runs.
        device: The device, as ``runtimes.open`` takes it; or several GPUs separated by commas. Each of them is measured
            alone, and then all at once.
        cuda_graphs: Whether CUDA graphs are allowed, as ``runtimes.open`` takes it.
        throughput: The numbers of calls at the same time for which the throughput of a GPU is measured. If empty,
            ``STREAMS``. On a processor it is not measured.
        trtexec: The path of ``trtexec``, which measures the engines of TensorRT once more; ``None`` to leave that out.
        batches: The batch sizes. If empty, 1, or the fixed batch size of the artifact.
        precisions: The precisions of the graphs. If empty, fp32 for a variant and the artifact's own precision.
        threads: The threads that one call may use; ``None`` for all processors that this process may use.
        data: The images, as ``exporter.data.opening.open_dataset`` takes them; ``None`` for the bundled images where
            they fit, otherwise noise.
        limit: The maximum number of images to evaluate; ``None`` for all.
        sizes: The (height, width) of the inputs of variants and checkpoints in pixels. Each is a network of its own. If
            empty, the variant's size.
        weights: The weights of the variants, as ``exporter.weights.sources.resolve`` takes them; ``None`` for random
            weights.
        key: The entry of a checkpoint that holds the weights, as ``exporter.weights.entries.Selection`` takes it.
        strip_prefix: The prefix of the names in a checkpoint, as ``exporter.weights.entries.Selection`` takes it.
        expect_sha256: The SHA-256 of the checkpoint, as ``exporter.weights.entries.parse_digest`` takes it.
        raw: Whether the variants take pixels; ``None`` for the default, floats.
        calibration: The images for the calibration of int8, as ``PrecisionSpec`` takes them.
        calibration_images: The number of images for the calibration.
        target: The deployment target of int8.
        seed: The seed of random weights, noise and resampling.
        duration_s: The sampling time in each process, for each of latency, compute and device time.
        warmup_limit_s: The time limit of the warm-up of each clock in each process.
        processes: The number of processes of each configuration; ``None`` for as many as fit into ``budget_s``, as
            ``benchmarks.harness.scheduler.expect_processes`` says.
        rounds: The number of rounds in each process. Slow calls reduce it.
        budget_s: The time budget for each network and batch size.
        max_samples: The maximum number of samples of each clock in each process.
        silence_s: The time that a worker may take for one step.
        show_errors: Whether the standard error of the workers is shown.
        strict: Whether invalid results fail, and results without a record of the machine's state.
        roofline: Whether peak FLOPS and bandwidth of the machine are measured first.
        quick: Whether the run is short, so that its results are preliminary.
        command: The command line, for the results.

    Raises:
        UsageError: A duration or number is out of range, or a backend, precision or device is unknown.
    """

    subjects: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    baseline: str | None = None
    device: str = "cpu"
    cuda_graphs: bool = True
    throughput: tuple[int, ...] = ()
    trtexec: str | None = None
    batches: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()
    threads: int | None = None
    data: str | None = None
    limit: int | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    weights: str | None = None
    key: str | None = None
    strip_prefix: str | None = None
    expect_sha256: str | None = None
    raw: bool | None = None
    calibration: str | None = None
    calibration_images: int = CALIBRATION_IMAGES
    target: Target = "cpu"
    seed: int = 0
    duration_s: float = 0.2
    warmup_limit_s: float = Plan.warmup_limit_s
    processes: int | None = None
    rounds: int = ROUNDS
    budget_s: float = BUDGET_S
    max_samples: int = Plan.max_samples
    silence_s: float = SILENCE_S
    show_errors: bool = False
    strict: bool = False
    roofline: bool = True
    quick: bool = False
    command: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, value in (("duration", self.duration_s), ("timeout", self.silence_s), ("budget", self.budget_s)):
            if not (math.isfinite(value) and value > 0):
                raise UsageError(
                    f"the {name} is {value}, expected a number of seconds above 0", code="seconds-not-positive"
                )
        self._check_counts()
        # Aliases and other spellings are replaced by the names of the backends.
        names = dict.fromkeys(registry.find_backend(name).name for name in self.backends)
        object.__setattr__(self, "backends", tuple(names))
        if self.baseline is not None:
            object.__setattr__(self, "baseline", registry.find_backend(self.baseline).name)
        for name in self.precisions:
            self.precision_spec(name)

    def _check_counts(self) -> None:
        """Raise ``UsageError`` for a number that is too small or too large, or an unknown device."""
        for name, number, least in (
            *(("batch", batch, 1) for batch in self.batches),
            *(("streams", streams, 1) for streams in self.throughput),
            ("threads", self.threads, 1),
            ("limit", self.limit, 1),
            ("processes", self.processes, 1),
            ("rounds", self.rounds, 1),
            ("calibration images", self.calibration_images, 1),
            ("seed", self.seed, 0),
        ):
            if number is not None and number < least:
                raise UsageError(f"{name} is {number}, expected at least {least}", code="number-too-small")
            require_not_too_large(LARGEST_SEED if name == "seed" else LARGEST_COUNT, **{name: number})
        require_not_too_large(size=max((side for size in self.sizes for side in size), default=0))
        object.__setattr__(self, "device", join_devices(parse_devices(self.device)))

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices, each as ``runtimes.open`` takes it."""
        return tuple(map(str, parse_devices(self.device)))

    def device_of(self, configuration: Configuration) -> str:
        """Return the device of a configuration, as ``runtimes.open`` takes it."""
        return configuration.device or self.devices[0]

    @property
    def device_kind(self) -> str:
        """The kind of all devices."""
        return parse_devices(self.device)[0].kind

    def precision_spec(self, name: str) -> PrecisionSpec:
        """Return how a graph is converted to the precision ``name``.

        Raises:
            UsageError: The precision is unknown, or its number of calibration images is below 1.
        """
        if not precision(name).calibrated:
            return PrecisionSpec(name)
        return PrecisionSpec(name, self.calibration, self.calibration_images, self.target)


def complete_request(request: BenchmarkRequest) -> BenchmarkRequest:
    """Return the request, with the bundled model as its subject if it names none."""
    if request.subjects:
        return request
    return replace(request, subjects=(BUNDLED_VARIANT,), weights=request.weights or BUNDLED_WEIGHTS)


def select_backends(request: BenchmarkRequest) -> tuple[Backend, ...]:
    """Return the requested backends and the requested baseline, with the reference first.

    If no backends are requested, these are all that can run on the device, except those that are measured only by name.
    """
    if request.backends:
        chosen = [*map(registry.find_backend, request.backends)]
    else:
        usual = (backend for backend in registry.all_backends() if not backend.named_only)
        chosen = [backend for backend in usual if backend.reference or request.device_kind in backend.devices]
    if request.baseline is not None and request.baseline not in [backend.name for backend in chosen]:
        chosen.insert(0, registry.find_backend(request.baseline))
    return tuple(sorted(chosen, key=lambda backend: backend.name != (request.baseline or REFERENCE)))


@dataclass(frozen=True)
class Configuration:
    """The configuration that one row measures.

    Attributes:
        pair: The backend and the artifact that it opens.
        batch: The number of images in one call.
        threads: The number of threads that one call may use.
        cuda_graphs: Whether CUDA graphs are allowed, as ``runtimes.open`` takes it.
        streams: The number of calls at the same time, as ``runtimes.open`` takes it.
        model_cache: The folder of compiled models, as ``runtimes.open`` takes it.
        device: The device, as ``runtimes.open`` takes it; ``None`` for the first one of the request.
        at_once: All devices that work at the same time, if there are others.
        throughput: The numbers of calls at the same time for which the throughput is measured.
    """

    pair: Pair
    batch: int
    threads: int
    cuda_graphs: bool = True
    streams: int = 1
    model_cache: Path | None = None
    device: str | None = None
    at_once: tuple[str, ...] = ()
    throughput: tuple[int, ...] = ()

    @property
    def reference(self) -> bool:
        """Whether the configuration is PyTorch in fp32."""
        return self.pair.backend.name == REFERENCE and self.pair.typed.precision == FP32


@dataclass(frozen=True)
class Refusal:
    """The reason why there is nothing to measure.

    Attributes:
        status: The status of the results.
        reason: The reason.
    """

    status: Literal["failed", "skipped", "error"]
    reason: Reason


@dataclass(frozen=True)
class PrecisionVariant:
    """A network in one precision.

    Attributes:
        precision: The precision; ``None`` for a model without a manifest.
        made: The artifact, or the reason why there is none.
        wanted: The intended format of the artifact.
        file: The name of the artifact if the user named several files of the network; otherwise ``None``.
    """

    precision: str | None
    made: Artifact | Refusal
    wanted: str = TYPED_FORMAT
    file: str | None = None

    @property
    def format(self) -> str:
        """The format of the artifact, or the intended format if there is none."""
        return self.made.format.name if isinstance(self.made, Artifact) else self.wanted


@dataclass(frozen=True)
class Subject:
    """One network to measure.

    Attributes:
        name: The name of the variant or file, as the user gave it. For several files, the name of the variant.
        own: The file that the user named, or the first of several; ``None`` for a variant.
        network: The name of the variant, or of the file for a model without a manifest.
        weights: The weights; ``None`` for a model without a manifest.
        typed: The network in the requested precisions, in their order. For several files, each of them.
        reference: The PyTorch reference, which computes in fp32, or the reason why there is none: for example, no
            measured backend opens it.
        fixed_batch: The only batch size of the artifacts, or ``None`` if any is possible.
        data: The name of the images, or ``None`` for noise.
        programs: The network as PyTorch programs in the requested precisions, in addition to the reference. There are
            such programs only on a GPU.
        baseline: The configuration that the others are compared with; ``None`` for PyTorch in fp32.
        size: The (height, width) of the input in pixels, or ``None`` if unknown.
    """

    name: str
    own: Artifact | None
    network: str
    weights: Weights | None
    typed: tuple[PrecisionVariant, ...]
    reference: PrecisionVariant
    fixed_batch: int | None
    data: str | None
    programs: tuple[PrecisionVariant, ...] = ()
    baseline: Baseline | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Pair:
    """A backend and the artifact that it opens.

    Attributes:
        subject: The network.
        backend: The backend.
        typed: The network in one precision.
        opens: The artifact of this network or of the PyTorch reference, or the reason why the backend cannot open it.
    """

    subject: Subject
    backend: Backend
    typed: PrecisionVariant
    opens: Artifact | Refusal


def throughput_streams(request: BenchmarkRequest) -> tuple[int, ...]:
    """Return the numbers of calls at the same time for which the throughput is measured; none on a processor."""
    return () if request.device_kind == "cpu" else tuple(sorted(set(request.throughput))) or STREAMS


def is_classifier(artifact: Artifact) -> bool:
    """Return whether an artifact may have an accuracy: it has logits, or no manifest says what its outputs are."""
    return artifact.manifest is None or any(spec.name == LOGITS for spec in artifact.manifest.outputs)


def classes_of(artifact: Artifact) -> int:
    """Return the number of classes of an artifact with a manifest.

    Raises:
        ArtifactError: The artifact has no manifest, or its manifest does not fix the number.
    """
    outputs = () if artifact.manifest is None else artifact.manifest.outputs
    logits = next((spec for spec in outputs if spec.name == LOGITS), None)
    classes = None if logits is None else logits.shape[-1]
    if not isinstance(classes, int):
        raise ArtifactError(
            "the manifest does not say how many classes there are", code="classes-unknown", path=artifact.path
        )
    return classes
