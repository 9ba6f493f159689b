"""What the user asked for, and what is measured for it: networks in their precisions, backends, configurations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.records.plan import BUDGET_S, DEVICES, ROUNDS, SILENCE_S, Plan
from benchmarks.records.result import Baseline
from exporter.precision.spec import FP32 as FP32_SPEC
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import CALIBRATION_IMAGES, Target, precision
from runtimes import Artifact, Backend
from runtimes.artifacts.manifest import Weights
from runtimes.backends import registry
from runtimes.errors import ArtifactError, Reason, UsageError, quote

REFERENCE = registry.reference_backend().name
"""The backend that is the baseline where it is measured and no other is named: the network in eager mode."""

BUNDLED_VARIANT = "resnet20"
BUNDLED_WEIGHTS = "bundled"

NOISE = "noise"

FP32 = FP32_SPEC.precision
"""What a variant is typed in if nothing else is asked for, and what the reference computes in."""

TYPED_FORMAT = "onnx"
"""Of the files that can be typed in any precision."""

PROGRAM_FORMAT = "pt2"
"""Of the files that PyTorch itself runs."""

REMADE_FORMATS = frozenset({TYPED_FORMAT, PROGRAM_FORMAT, "engine"})
"""Of the files whose network can be made again in PyTorch."""


@dataclass(frozen=True)
class RunListener:
    """Hears what a run does.

    Attributes:
        step: Gets what is being worked on, and the step that it is at.
        notice: Gets a line that the user must see.
        left: Gets an estimate of the seconds that are left, or ``None`` while there is none.
        position: Gets which of the planned configurations are at work: the first, the last, and their number in all.
    """

    step: Callable[[str, str], None]
    notice: Callable[[str | Reason], None]
    left: Callable[[float | None], None] = lambda _: None
    position: Callable[[int, int, int], None] = lambda *_: None


@dataclass(frozen=True)
class BenchmarkRequest:
    """What the user asked for.

    Attributes:
        subjects: paths of artifacts and names of variants; none means the bundled trained model.
        backends: by name or alias, and no others are measured; none means all that open the artifact and can run on
            the device, but for those that a benchmark measures only where they are named.
        baseline: the backend that the others are compared with, by name or alias; it is measured in any case. ``None``
            means PyTorch where it is measured, else the first that runs.
        device, cuda_graphs: as ``runtimes.open`` takes them.
        batches: images in one call; none means 1, or what the artifact is fixed at.
        precisions: that the graphs are typed in; none means fp32 for a variant, and its own for an artifact.
        threads: processors that one call may use; ``None`` means all that this process may use.
        data: as ``exporter.data.dataset.open_dataset`` takes it; ``None`` means the bundled set where it fits, else
        noise.
        limit: images to evaluate at most.
        weights: of the variants, as ``exporter.weights.sources.resolve`` takes them; ``None`` means random.
        raw: whether the variants take pixels; ``None`` means that nothing was said, and they take floats.
        calibration, calibration_images, target: of int8, as in ``exporter.precision.spec.PrecisionSpec``.
        seed: of random weights, of noise and of resampling.
        duration_s: of sampling in each process, for latency, for compute and for the device's own time each.
        warmup_limit_s: of the warm-up of each clock in each process.
        processes: of each configuration; ``None`` means as many as fit into ``budget_s``, as
            ``benchmarks.harness.scheduler.expect_processes`` says.
        rounds: in each process; fewer where calls are slow.
        max_samples: of each clock in each process at most.
        strict: whether an invalid result is a failure, and one whose machine was not recorded.
        roofline: whether the machine's ceilings are measured first.
        quick: whether it is a short run, whose results are preliminary.
        command: the command line that this comes from, for the rows.
        silence_s: how long a worker may take for one step.
        show_errors: whether the workers' standard error is shown.

    Raises:
        UsageError: a duration or a number out of range; an unknown backend, precision or device.
    """

    subjects: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    baseline: str | None = None
    device: str = "cpu"
    cuda_graphs: bool = True
    batches: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()
    threads: int | None = None
    data: str | None = None
    limit: int | None = None
    weights: str | None = None
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
                    f"the {name} must be a number of seconds above 0, not {value}", code="seconds-not-positive"
                )
        self._check_counts()
        # By their names from here on, whatever alias or case was typed.
        names = dict.fromkeys(registry.find_backend(name).name for name in self.backends)
        object.__setattr__(self, "backends", tuple(names))
        if self.baseline is not None:
            object.__setattr__(self, "baseline", registry.find_backend(self.baseline).name)
        for name in self.precisions:
            self.precision_spec(name)

    def _check_counts(self) -> None:
        """Raises UsageError for a number below the least one that it can be, or an unknown device."""
        for what, number, least in (
            *(("batch", batch, 1) for batch in self.batches),
            ("threads", self.threads, 1),
            ("limit", self.limit, 1),
            ("processes", self.processes, 1),
            ("rounds", self.rounds, 1),
            ("calibration images", self.calibration_images, 1),
            ("seed", self.seed, 0),
        ):
            if number is not None and number < least:
                raise UsageError(f"{what} must be at least {least}, not {number}", code="number-too-small")
        if self.device not in DEVICES:
            raise UsageError(
                f"no device {quote(self.device)!r}", code="device-unknown", hint=f"one of {', '.join(DEVICES)}"
            )

    def precision_spec(self, name: str) -> PrecisionSpec:
        """How a graph is to be typed for the precision of that name.

        Raises:
            UsageError: no such precision, or no image to calibrate on.
        """
        if not precision(name).calibrated:
            return PrecisionSpec(name)
        return PrecisionSpec(name, self.calibration, self.calibration_images, self.target)


def complete_request(request: BenchmarkRequest) -> BenchmarkRequest:
    """The request with the bundled model in it where no subject was named."""
    if request.subjects:
        return request
    return replace(request, subjects=(BUNDLED_VARIANT,), weights=request.weights or BUNDLED_WEIGHTS)


def select_backends(request: BenchmarkRequest) -> tuple[Backend, ...]:
    """The backends that were named, or all that can run on the device and are measured unnamed; and the baseline, if
    one was named. The reference is the first of all."""
    if request.backends:
        chosen = [*map(registry.find_backend, request.backends)]
    else:
        usual = (backend for backend in registry.all_backends() if not backend.named_only)
        chosen = [backend for backend in usual if backend.reference or request.device in backend.devices]
    if request.baseline is not None and request.baseline not in [backend.name for backend in chosen]:
        chosen.insert(0, registry.find_backend(request.baseline))
    return tuple(sorted(chosen, key=lambda backend: backend.name != (request.baseline or REFERENCE)))


@dataclass(frozen=True)
class Configuration:
    """What one row is of. ``cuda_graphs`` as ``runtimes.open`` takes it."""

    pair: Pair
    batch: int
    threads: int
    cuda_graphs: bool = True

    @property
    def reference(self) -> bool:
        """Whether it is PyTorch in fp32."""
        return self.pair.backend.name == REFERENCE and self.pair.typed.precision == FP32


@dataclass(frozen=True)
class Refusal:
    """Why there is nothing to measure, and the status of the results that say so."""

    status: Literal["failed", "skipped", "error"]
    reason: Reason


@dataclass(frozen=True)
class PrecisionVariant:
    """A network in one precision, ``None`` for a foreign file: the artifact, or why there is none. ``wanted`` is the
    format that it was to have, ``file`` the name of the artifact where the network was named by several."""

    precision: str | None
    made: Artifact | Refusal
    wanted: str = TYPED_FORMAT
    file: str | None = None

    @property
    def format(self) -> str:
        """Of the artifact, or that it would have had."""
        return self.made.format.name if isinstance(self.made, Artifact) else self.wanted


@dataclass(frozen=True)
class Subject:
    """One network to measure.

    Attributes:
        name: as the user knows it: the variant's or the file's name; of several files, the variant's.
        own: the file that was named, or the first of several; ``None`` for a variant.
        network: the variant's name, or a foreign file's own name.
        weights: ``None`` for a foreign file.
        typed: in the precisions asked for, in that order; of several files, each of them.
        reference: the network in PyTorch, which computes in fp32; or why there is none, as where no backend that is
            measured opens it.
        fixed_batch: that the artifacts take alone, or ``None``.
        data: the name of the images for it, or ``None`` for noise.
        programs: PyTorch's own in the precisions asked for, besides the twin: on a GPU alone, where they are what
            PyTorch's users run.
        baseline: what the others are compared with; ``None`` means PyTorch in fp32.
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


@dataclass(frozen=True)
class Pair:
    """A backend, and what it opens: the network in one precision, or its twin; or why it cannot."""

    backend: Backend
    typed: PrecisionVariant
    opens: Artifact | Refusal


def classes_of(artifact: Artifact) -> int:
    """How many classes an artifact with a manifest tells apart.

    Raises:
        ArtifactError: its manifest does not fix the number.
    """
    classes = None if artifact.manifest is None else artifact.manifest.outputs[0].shape[-1]
    if not isinstance(classes, int):
        raise ArtifactError(
            "its manifest does not say how many classes there are", code="classes-unknown", path=artifact.path
        )
    return classes
