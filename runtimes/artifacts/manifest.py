"""The manifest of a model file: the fields of the JSON file beside it.

All records are frozen, because an artifact is written once and never edited. ``runtimes.artifacts.artifact`` reads and
writes manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal, TypeAlias, get_args

from runtimes.codec import OMIT_DEFAULT
from runtimes.errors import Reason, UsageError
from runtimes.frozen_dataclass import dataclass
from runtimes.images.spec import Preprocessing
from runtimes.tensors.activation import Activation
from runtimes.tensors.spec import TensorSpec

FORMAT_VERSION = 1
"""The version of the manifest format. Reading a newer manifest is an error that names the upgrade command."""

TF32 = "tf32"
"""The precision of a float32 graph that a GPU may compute in TensorFloat-32. All other graphs rule this out."""

FP16 = "fp16"
"""The precision of a graph that computes in float16."""


@dataclass(frozen=True)
class FileRecord:
    """A file in the folder of an artifact that belongs to it.

    Attributes:
        name: The plain file name.
        sha256: The digest of the content as 64 hexadecimal digits.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """The origin of the weights.

    Attributes:
        origin: Random initialisation, the bundled weights, torchvision's ImageNet weights, a file, or a PyTorch module
            in memory.
        trained: Whether the weights are trained.
        sha256: The digest of the state dict's names, shapes and bytes in sorted order.
        seed: The seed of a random initialisation.
        source: The file or address of the weights, or the class of the module.
        key: The entry of a training checkpoint that held the weights, with dots for entries inside others.
        prefix: The beginning of the names in the file, which was removed.
        layout: The layout of the names in the file.
        assumed: The fields of the variant that neither the weights nor the user determined.
        file_sha256: The SHA-256 of the weights file, which the user expected and which it had. Left out of the file
            if nothing was expected.
    """

    origin: Literal["random", "bundled", "imagenet", "file", "module"]
    trained: bool
    sha256: str
    seed: int | None = None
    source: str | None = None
    key: str | None = None
    prefix: str | None = None
    layout: str | None = None
    assumed: tuple[str, ...] = ()
    file_sha256: str | None = field(default=None, metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class OutputParity:
    """The passed parity check of an output beside the first one.

    Attributes:
        name: The name of the output.
        max_difference: The largest absolute difference of two numbers.
        relative_difference: The largest distance of an image's values from the reference, divided by the root mean
            square of the lengths of the reference's values.
        tolerance: The limit for ``relative_difference``.
    """

    name: str
    max_difference: float
    relative_difference: float
    tolerance: float


@dataclass(frozen=True)
class Parity:
    """The passed parity check: an artifact's outputs compared with those of PyTorch in fp32.

    The figures are those of the first output, which is the logits of each classifier.

    Attributes:
        reference: A description of the reference.
        runtime: The backend that ran the artifact, with its version.
        images: A description of the images.
        batches: The batch sizes of the comparison.
        max_difference: The largest absolute difference of two numbers.
        relative_difference: The largest difference divided by the largest absolute logit of the reference. For another
            output than the logits, as in ``OutputParity``.
        tolerance: The limit for ``relative_difference``.
        agreement: The share of images with the same top-1 class, 0 to 1. ``None`` if the output is not the logits.
        output: The name of the output, left out of the file for the logits.
        others: The checks of the other outputs, left out of the file if there are none.
    """

    reference: str
    runtime: str
    images: str
    batches: tuple[int, ...]
    max_difference: float
    relative_difference: float
    tolerance: float
    agreement: float | None
    output: str = field(default="logits", metadata=OMIT_DEFAULT)
    others: tuple[OutputParity, ...] = field(default=(), metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class OutputGate:
    """The check of a precision on an output besides the logits, over the images of ``Gate``.

    Attributes:
        name: The name of the output.
        error: The root mean square of the differences, divided by that of the fp32 output.
        compared: What is compared for ``flips``: ``nearest neighbour`` for features, among the images and by cosine
            similarity; ``peak`` for class maps, the place of the largest value in the map of the best class. ``None``
            for the maps of stages, and for noise, which has no neighbours and no classes.
        flips: The number of confident changes: what is compared differs, and fp32 was confident.
        near_ties: The number of borderline changes: it differs, but fp32 gave both nearly the same value.
        bounds: The limits, by the names of these fields.
    """

    name: str
    error: float
    compared: str | None
    flips: int
    near_ties: int
    bounds: Mapping[str, float]


@dataclass(frozen=True)
class Gate:
    """The accuracy check of a precision: predictions of the artifact compared with PyTorch in fp32 over many images.

    A graph without logits has no predictions. The figures are then those of its first output.

    Attributes:
        runtime: The backend that ran the artifact.
        data: A description of the images.
        images: The number of images.
        error: The root mean square of the differences of the logits, divided by that of the fp32 logits.
        agreement: The share of images with the same top-1 class as fp32, 0 to 1. Without logits, the share of images
            with the same nearest neighbour or peak, as in ``OutputGate``; ``None`` if neither was compared.
        flips: The number of confident changes: the top-1 class differs, and fp32 was confident.
        near_ties: The number of borderline changes: the top-1 class differs, but fp32 gave both classes nearly the same
            probability.
        top1: The top-1 accuracy of the artifact, 0 to 1; ``None`` without labels.
        reference_top1: The top-1 accuracy of fp32, 0 to 1; ``None`` without labels.
        drop: ``reference_top1 - top1``. A negative number means that the artifact is more accurate.
        drop_interval: The (low, high) of the 95 % interval of ``drop``, from pairs of predictions for the same image.
        bounds: The limits, by the names of these fields.
        asked: Whether the user asked for the limit of ``drop``. The measured drop is then at most this limit.
        output: The name of the output, left out of the file for the logits.
        others: The checks of the other outputs, left out of the file if there are none.
    """

    runtime: str
    data: str
    images: int
    error: float
    agreement: float | None
    flips: int
    near_ties: int
    top1: float | None
    reference_top1: float | None
    drop: float | None
    drop_interval: tuple[float, float] | None
    bounds: Mapping[str, float]
    asked: bool = field(default=False, metadata=OMIT_DEFAULT)
    output: str = field(default="logits", metadata=OMIT_DEFAULT)
    others: tuple[OutputGate, ...] = field(default=(), metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class Slowdown:
    """The time of an int8 graph with float layers against the same graph without them.

    Both graphs took turns on the exporting machine, in rounds. A round gives the ratio of two medians.

    Attributes:
        ratio: The median of the ratios. 1.2 means that a call takes 1.2 times as long.
        interval: The (low, high) of the 95 % interval of ``ratio``, from the order of the rounds.
        runtime: The backend that ran both graphs, with its version.
        threads: The number of processors of a call.
        batch: The number of images of a call.
        rounds: The number of rounds.
    """

    ratio: float
    interval: tuple[float, float]
    runtime: str
    threads: int
    batch: int
    rounds: int


DEFAULT_RECIPE = "default"
"""The recipe of int8 that is tried first."""


@dataclass(frozen=True)
class Calibration:
    """The calibration of an int8 or fp8 graph.

    Attributes:
        quantiser: The quantisation library and its version.
        target: The deployment target, which determines signs and the placement of quantisation: ``cpu`` or
            ``tensorrt``.
        data: A description of the images.
        images: The number of images.
        recipe: The name of the recipe, a key of ``exporter.precision.recipes.RECIPES``.
        float_layers: The nodes of the graph that were not quantised for the sake of accuracy, those with the largest
            own error first.
        slowdown: The time that the float layers cost, or ``None`` without float layers or for fp8.
        kept_layers: The nodes that the precision never quantises, because they would be no faster.
        guesses: The lines that the export printed about what it guessed of the images, each with its code.
    """

    quantiser: str
    target: Literal["cpu", "tensorrt"]
    data: str
    images: int
    recipe: str = field(default=DEFAULT_RECIPE, metadata=OMIT_DEFAULT)
    float_layers: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)
    slowdown: Slowdown | None = field(default=None, metadata=OMIT_DEFAULT)
    kept_layers: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)
    guesses: tuple[Reason, ...] = field(default=(), metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class Tuning:
    """The best options that ``rbench tune`` found for an artifact. ``runtimes.open`` uses them by default.

    Attributes:
        runtime: The backend, as for ``runtimes.open``.
        device: The device, as for ``runtimes.open``.
        threads: The number of processors, as for ``runtimes.open``.
        batch: The number of images in one measured call.
        objective: ``latency`` or ``throughput``.
        p50_s: The median latency of one call in seconds.
        images_per_s: The throughput at this batch size.
        machine: A description of the machine of the measurement.
        streams: The number of calls at the same time, as for ``runtimes.open``. Left out of the file if it is 1.
    """

    runtime: str
    device: str
    threads: int
    batch: int
    objective: Literal["latency", "throughput"]
    p50_s: float
    images_per_s: float
    machine: str
    streams: int = field(default=1, metadata=OMIT_DEFAULT)


@dataclass(frozen=True)
class Profile:
    """An optimisation profile of an engine: the batch sizes that it takes.

    Attributes:
        least: The smallest batch size.
        best: The batch size that the profile is tuned for.
        most: The largest batch size.

    Raises:
        UsageError: The batch sizes are not in this order, or below 1.
    """

    least: int
    best: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.best <= self.most:
            raise UsageError(
                f"a profile must have 1 <= least <= best <= most images, not {self.least}, {self.best} and {self.most}",
                code="profile-out-of-order",
            )

    def __str__(self) -> str:
        """Return the profile as text, for example ``batches of 1 to 64, tuned for 8``."""
        if self.least == self.most:
            return f"batches of {self.most}"
        return f"batches of {self.least} to {self.most}, tuned for {self.best}"


Tiling: TypeAlias = Literal["none", "fast", "moderate", "full"]
"""How far a builder searches for tilings across layers, by the library's own names of the levels."""

TILING: tuple[Tiling, ...] = get_args(Tiling)
"""All values of ``Tiling``, from the least to the most effort."""

HardwareCompat: TypeAlias = Literal["none", "ampere+", "same-cc"]
"""The GPUs that an engine runs on: only its own model, Ampere and later, or those of the same compute capability."""

HARDWARE_COMPAT: tuple[HardwareCompat, ...] = get_args(HardwareCompat)
"""All values of ``HardwareCompat``."""

DEFAULT_OPT_LEVEL = 3
"""The default optimisation level of an engine builder."""


@dataclass(frozen=True)
class Engine:
    """The build of an engine: its library, its GPU and its settings.

    Attributes:
        flavor: The library: ``tensorrt``, or ``rtx`` for TensorRT-RTX.
        version: The version of the library.
        gpu: The name of the GPU that the engine was built on, for example ``NVIDIA H200``, or ``None`` without a GPU.
        compute_capability: The compute capability of that GPU, for example ``9.0``, or ``None`` without a GPU.
        driver: The CUDA version of the driver, for example ``13.0``, or ``None`` without a GPU.
        targets: The compute capabilities that TensorRT-RTX built for. Empty means 8.0 and later.
        profiles: The optimisation profiles, at least one.
        opt_level: The optimisation level of the builder, 0 to 5.
        workspace_bytes: The memory limit of the builder, or ``None`` if there was none.
        tf32: Whether float32 may be computed in TensorFloat-32.
        hardware_compat: The GPUs that the engine runs on, as in ``HardwareCompat``.
        version_compat: Whether later versions of the library can run the engine.
        stripped: Whether the engine has no weights. Opening it takes them from the ONNX file.
        onnx: The name of the ONNX file that the engine was built from. ``Manifest.parent`` is the file's digest.
        tolerance: The tolerance of the parity check, as in ``Parity``. An engine without ``Manifest.parity`` is checked
            when it is opened. ``None`` if there is nothing to compare with.
        aux_streams: The limit of additional streams that run layers at the same time, or ``None`` for the library's
            own choice.
        tiling: How far the builder searched for tilings across layers, as in ``Tiling``.
        avg_timing: The runs that the builder averaged to time a kernel, or ``None`` for the library's own number.
        sparse_weights: Whether kernels for 2:4 sparse weights were allowed.
        refittable: Whether the weights can be replaced, by ``rexport refit``.
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
    aux_streams: int | None = None
    tiling: Tiling = "none"
    avg_timing: int | None = None
    sparse_weights: bool = False
    refittable: bool = False


@dataclass(frozen=True)
class Accuracy:
    """The passed check of the top-1 accuracy: that of the artifact, and the one that the user had measured.

    Attributes:
        runtime: The backend that ran the artifact, with its version.
        data: The name of the labelled images.
        images: The number of images.
        top1: The top-1 accuracy of the artifact, 0 to 1.
        expected: The expected top-1 accuracy, 0 to 1.
        tolerance: The limit for the difference of the two.
    """

    runtime: str
    data: str
    images: int
    top1: float
    expected: float
    tolerance: float


@dataclass(frozen=True)
class DecodingCheck:
    """The passed check of scaled decoding: predictions of the artifact compared with those after full decoding.

    Attributes:
        runtime: The backend that ran the artifact, with its version.
        data: The name of the images.
        images: The number of images.
        scaled: The number of images whose pixels differ, because they were decoded at a fraction of their size.
        agreement: The share of images with the same top-1 class, 0 to 1.
        max_difference: The largest difference of the probability of a class.
        least: The limit for ``agreement``.
    """

    runtime: str
    data: str
    images: int
    scaled: int
    agreement: float
    max_difference: float
    least: float


@dataclass(frozen=True)
class Manifest:
    """The manifest of a model file.

    Attributes:
        name: The name of the variant or of the model.
        format: The format of the model file, a key of ``FORMATS``.
        sha256: The digest of the model file as 64 hexadecimal digits.
        size_bytes: The size of the model file.
        variant: The fields of the variant, or none for a module that is no variant.
        weights: The origin of the weights.
        precision: The precision of the graph.
        inputs: The specifications of the inputs.
        outputs: The specifications of the outputs.
        labels: The name of each class, or ``None`` if unknown.
        preprocessing: The preparation of images for the network, or ``None`` if unknown.
        dataset: The name of the dataset that defines the classes, or ``None`` if unknown.
        opset: The opset of an ONNX file.
        producers: The libraries that wrote the file, with their versions.
        parent: The digest of the artifact that this artifact was made from, or ``None``.
        parity: The passed parity check, or ``None`` if the check is still to be done.
        vectors: The test vectors: inputs and expected outputs of PyTorch in fp32, as ``.npz``.
        external: The files that hold the weights of an ONNX file beyond 2 GiB.
        gate: The accuracy check of a precision below fp32.
        calibration: The calibration of an int8 graph.
        tuning: The best options found by ``rbench tune``.
        engine: The build of a TensorRT engine.
        accuracy: The passed check of the expected top-1 accuracy, left out of the file if ``None``.
        decoding: The passed check of scaled decoding, left out of the file if ``None``.
        other_gates: The accuracy checks of an int8 graph on the other backends that were installed.
        activation: The step from the first output to probabilities, left out of the file if nobody gave one.
        guesses: The lines that the export printed about what it guessed, each with its code.
        format_version: The version of the manifest format.

    Raises:
        UsageError: There are no inputs or no outputs, or an input has no dimensions.
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
    accuracy: Accuracy | None = field(default=None, metadata=OMIT_DEFAULT)
    decoding: DecodingCheck | None = field(default=None, metadata=OMIT_DEFAULT)
    other_gates: tuple[Gate, ...] = field(default=(), metadata=OMIT_DEFAULT)
    activation: Activation | None = field(default=None, metadata=OMIT_DEFAULT)
    guesses: tuple[Reason, ...] = field(default=(), metadata=OMIT_DEFAULT)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise UsageError(
                f"a network must have inputs and outputs, not {len(self.inputs)} and {len(self.outputs)}",
                code="manifest-without-tensors",
            )
        if not all(spec.shape for spec in self.inputs):
            raise UsageError("an input must have dimensions", code="manifest-input-scalar")

    @property
    def channels(self) -> int | None:
        """The number of input channels, or ``None`` for an input that is not a batch of images."""
        shape = self.inputs[0].shape
        if len(shape) != 4:
            return None
        channels = shape[3 if self.inputs[0].dtype == "uint8" else 1]
        return channels if isinstance(channels, int) else None

    @property
    def size(self) -> tuple[int, int] | None:
        """The (height, width) of the input in pixels, or ``None`` for an input that is not a batch of images."""
        shape = self.inputs[0].shape
        if len(shape) != 4:
            return None
        height, width = shape[1:3] if self.inputs[0].dtype == "uint8" else shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None
