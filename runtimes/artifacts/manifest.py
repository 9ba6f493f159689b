"""What is known about a model file: the JSON that lies beside it, field by field.

Every record is frozen: an artifact is made once and never edited. ``runtimes.artifacts.artifact`` reads and writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from runtimes.errors import UsageError
from runtimes.images.spec import Preprocessing
from runtimes.tensors.spec import TensorSpec

FORMAT_VERSION = 1
"""Of the manifest. A reader refuses a newer one and names the remedy."""

TF32 = "tf32"
"""The precision of a float32 graph that a GPU may compute in TensorFloat-32; without it, float32 is float32."""


@dataclass(frozen=True)
class FileRecord:
    """A file that belongs to an artifact and lies beside it."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """Where the numbers come from. ``sha256`` is over the state dict's names, shapes and bytes in sorted order.

    Weights of the origin ``module`` were taken from a PyTorch module in memory, whose class ``source`` names.
    """

    origin: Literal["random", "bundled", "imagenet", "file", "module"]
    trained: bool
    sha256: str
    seed: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class Parity:
    """How an artifact's logits compared with PyTorch's, in fp32, when it was made.

    ``relative_difference`` is the largest difference of a logit over the largest absolute logit; ``agreement`` the
    share of the images with the same top-1.
    """

    reference: str
    runtime: str
    images: str
    batches: tuple[int, ...]
    max_difference: float
    relative_difference: float
    tolerance: float
    agreement: float


@dataclass(frozen=True)
class Gate:
    """What a precision costs: the artifact's answers against the same network's in fp32 PyTorch, over many images.

    Attributes:
        runtime: that gave the answers.
        data: the images, in words.
        images: how many.
        error: root mean square of the logits' differences over that of the fp32 logits.
        agreement: share of the images with fp32's top-1.
        flips: images whose top-1 is another, though fp32 was decided.
        near_ties: images whose top-1 is another, where fp32 gave the two classes nearly the same probability.
        top1, reference_top1: shares of the images that are labelled rightly, by the artifact and by fp32; ``None``
            where there are no labels.
        drop: ``reference_top1 - top1``; below 0 the artifact is better.
        drop_interval: (low, high), 95 %, from the pairs of answers to the same image.
        bounds: what was allowed, by the names of these fields.
    """

    runtime: str
    data: str
    images: int
    error: float
    agreement: float
    flips: int
    near_ties: int
    top1: float | None
    reference_top1: float | None
    drop: float | None
    drop_interval: tuple[float, float] | None
    bounds: Mapping[str, float]


@dataclass(frozen=True)
class Calibration:
    """How the scales of an int8 graph were found.

    Attributes:
        quantiser: library and version.
        target: what the placement and the integers' signs are for: ``cpu`` or ``tensorrt``.
        data: the images, in words.
        images: how many.
    """

    quantiser: str
    target: Literal["cpu", "tensorrt"]
    data: str
    images: int


@dataclass(frozen=True)
class Tuning:
    """The options under which an artifact was the best of those tried, which ``runtimes.open`` takes by default.

    Attributes:
        runtime, device, threads: as ``runtimes.open`` takes them.
        batch: images in one call, when it was measured.
        objective: ``latency`` or ``throughput``.
        p50_s: seconds of one call, the median.
        images_per_s: at that batch.
        machine: that it was measured on, in words.
    """

    runtime: str
    device: str
    threads: int
    batch: int
    objective: Literal["latency", "throughput"]
    p50_s: float
    images_per_s: float
    machine: str


@dataclass(frozen=True)
class Profile:
    """The batches that one optimisation profile of an engine takes: the least, the one it is tuned for, the most.

    Raises:
        UsageError: they are not in this order, or below 1.
    """

    least: int
    best: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.best <= self.most:
            raise UsageError(
                f"a profile needs 1 <= least <= best <= most images, not {self.least}, {self.best} and {self.most}",
                code="profile-out-of-order",
            )

    def __str__(self) -> str:
        if self.least == self.most:
            return f"batches of {self.most}"
        return f"batches of {self.least} to {self.most}, tuned for {self.best}"


HardwareCompat: TypeAlias = Literal["none", "ampere+", "same-cc"]
HARDWARE_COMPAT: tuple[HardwareCompat, ...] = get_args(HardwareCompat)

DEFAULT_OPT_LEVEL = 3
"""Of a builder of engines."""


@dataclass(frozen=True)
class Engine:
    """How and for what an engine was built.

    Attributes:
        flavor: the library: ``tensorrt``, or ``rtx`` for TensorRT-RTX.
        version: the library's.
        gpu, compute_capability: that it was built on, as ``NVIDIA H200`` and ``9.0``; ``None`` where there was none.
        driver: the CUDA version of the driver there, as ``13.0``, or ``None``.
        targets: the compute capabilities that TensorRT-RTX was told to build for; none means all that it has.
        profiles: at least one.
        opt_level: the builder's optimisation level, 0 to 5.
        workspace_bytes: that the builder was held to, or ``None``.
        tf32: whether float32 may be computed in TensorFloat-32.
        hardware_compat: the GPUs that it runs on: ``none`` others than its own, ``ampere+``, or those of the
            ``same-cc``.
        version_compat: whether later versions of the library run it.
        stripped: whether it is without its weights, which are taken from the ONNX file when it is opened.
        onnx: name of the ONNX file that it was built from; the manifest's ``parent`` is its digest.
        tolerance: what parity allows its logits: of an engine without a ``Manifest.parity``, which is checked when it
            is opened; ``None`` where nothing is known to compare with.
    """

    flavor: Literal["tensorrt", "rtx"]
    version: str
    gpu: str | None
    compute_capability: str | None
    driver: str | None
    targets: tuple[str, ...]
    profiles: tuple[Profile, ...]
    opt_level: int
    workspace_bytes: int | None
    tf32: bool
    hardware_compat: HardwareCompat
    version_compat: bool
    stripped: bool
    onnx: str
    tolerance: float | None


@dataclass(frozen=True)
class Manifest:
    """All that is known about a model file.

    Attributes:
        name: of the variant, or what its maker called it.
        format: a key of ``FORMATS``.
        sha256, size_bytes: of the model file.
        variant: the variant's fields, for people and for the exporter.
        precision: of the graph.
        labels: one a class, or ``None``.
        dataset: the name of the data that the classes come from, or ``None``.
        opset: of an ONNX file.
        producers: libraries and their versions.
        parent: digest of the artifact that this one was made from.
        vectors: inputs and the expected logits, in fp32 PyTorch, as ``.npz``.
        external: files of weights beside an ONNX file past 2 GiB.
        gate: of a precision below fp32.
        calibration: of an int8 graph.
        tuning: of an artifact that ``rbench tune`` chose.
        engine: of a TensorRT engine.
    """

    name: str
    format: str
    sha256: str
    size_bytes: int
    variant: Mapping[str, object]
    weights: Weights
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    dataset: str | None
    opset: int | None
    producers: Mapping[str, str]
    parent: str | None
    parity: Parity | None
    vectors: FileRecord | None
    external: tuple[FileRecord, ...] = ()
    gate: Gate | None = None
    calibration: Calibration | None = None
    tuning: Tuning | None = None
    engine: Engine | None = None
    format_version: int = FORMAT_VERSION
