"""A network with its weights and test vectors, from which all target formats are exported."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data.class_matching import are_foreign, check_class_order, map_classes, position_example
from exporter.data.dataset import Dataset
from exporter.data.labels_file import read_labels
from exporter.data.noise import noise_inputs
from exporter.data.opening import BUNDLED_NAME, open_dataset
from exporter.export_request import ExpectedAccuracy, ExportListener, ExportRequest
from exporter.guesses import GuessLog
from exporter.models.custom import AnyNetwork, CustomNetwork
from exporter.models.memory import require_image_memory, require_memory
from exporter.models.outputs import DEFAULT_OUTPUTS, LOGITS, needs_classifier, output_names
from exporter.models.variants import VARIANTS, Variant
from exporter.preprocessing.description import assumption, black_margin, describe_transform, scale_notice
from exporter.preprocessing.options import PreprocessingOptions, choose_preprocessing
from exporter.weights.recognition import VariantOptions, from_checkpoint
from exporter.weights.sources import ORIGINS, LoadedWeights, from_file, resolve
from runtimes.artifacts.artifact import VECTORS_LIMIT_BYTES, Vectors
from runtimes.artifacts.manifest import Weights
from runtimes.class_outputs import BINARY, activation_notice
from runtimes.errors import ModelMismatchError, Reason, ResourceError, UsageError, quote
from runtimes.images.preprocessing import Preprocessing, normalise
from runtimes.images.spec import IMAGE_CHANNELS
from runtimes.parity import IMAGES
from runtimes.protocol import Array
from runtimes.tensors.activation import Activation, check_activation, first_outside, guess_activation

if TYPE_CHECKING:
    from torch import nn

INPUT = "input"
"""The name of the input of an artifact. ``exporter.models.outputs`` names the outputs."""


@dataclass(frozen=True)
class Network:
    """A network with weights in evaluation mode, and the fields of its artifact's manifest.

    Attributes:
        model: The module, which takes float32 (n, in_channels, height, width) and returns (n, classes).
        variant: The variant, or ``None`` for a module that is none.
        name: The name of the variant or of the module.
        classes: The number of outputs.
        in_channels: The number of input channels.
        size: The (height, width) of the input in pixels.
        weights: The origin of the weights.
        labels: The name of each class, or ``None`` if unknown.
        preprocessing: The preprocessing of images, or ``None`` if unknown.
        dataset: The name of the dataset that defines the classes, or ``None`` if unknown.
        vectors: The test vectors, whose inputs are pixels, uint8 (n, h, w, c), if ``raw`` is true.
        images: A description of the test vectors.
        data: The labelled images for the accuracy gate, as for ``exporter.data.opening.open_dataset``, or ``None``.
        raw: Whether artifacts take raw pixels.
        seed: The seed of all noise.
        expected: The expected accuracy on ``data``, or ``None`` without a check.
        outputs: The names of the outputs of artifacts, in their order.
        activation: The step from the logits to probabilities, or ``None`` for the softmax that nobody chose.
        guesses: The notices about what was guessed.
    """

    model: nn.Module
    variant: Variant | None
    name: str
    classes: int
    in_channels: int
    size: tuple[int, int]
    weights: Weights
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    dataset: str | None
    vectors: Vectors
    images: str
    data: str | None = None
    raw: bool = False
    seed: int = 0
    expected: ExpectedAccuracy | None = None
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    activation: Activation | None = None
    guesses: tuple[Reason, ...] = ()


def prepare(request: ExportRequest, listener: ExportListener) -> Network:
    """Load the weights, build the network, and compute its test vectors with PyTorch in fp32.

    Args:
        request: The request.
        listener: Receives the progress and notices.

    Raises:
        ResourceError: As for ``require_memory`` or ``require_image_memory``, or the test vectors are too large.
        RexportError: As for ``resolve``, or labels, mean, std or data do not fit the variant.
    """
    from exporter.models.several_outputs import reference_outputs, with_outputs

    if isinstance(request.variant, Variant):
        require_memory(request.variant, max(IMAGES, request.batch or 1))
    else:
        module = request.variant
        require_image_memory(module.name, module.in_channels, module.size, max(IMAGES, request.batch or 1))
    if request.data is None:  # otherwise the data may have fewer images
        size = IMAGES * request.variant.in_channels * math.prod(request.variant.size)
        _check_vectors_size(size * np.dtype(np.uint8 if request.raw else np.float32).itemsize)
    listener.step("loading the weights")
    log = GuessLog(listener.notice)
    listener = replace(listener, notice=log)
    request, loaded = _load(request, listener)
    variant = request.variant
    outputs = output_names(request.outputs, variant)
    _check_use_of_outputs(request, outputs)
    labels = _labels(request, listener)
    preprocessing = _preprocessing(request, loaded, listener)
    model = variant.module if isinstance(variant, CustomNetwork) else _build(variant, loaded)
    listener.step("computing the test vectors")
    data = request.data or (loaded.dataset if loaded.dataset == BUNDLED_NAME else None)
    if request.expected is not None and data is None:
        raise UsageError(
            "--expect-top1 needs labelled images", code="expected-top1-needs-data", hint="--data DIR names them"
        )
    inputs, images, dataset = _inputs(request, data, preprocessing, loaded.record.trained, listener)
    floats = normalise(inputs, preprocessing) if request.raw and preprocessing is not None else inputs
    known_labels = labels or loaded.labels
    if dataset is not None and needs_classifier(outputs):
        known_labels = _match_classes(known_labels, dataset, variant.classes, listener)
    expected = reference_outputs(with_outputs(model, outputs), outputs, floats)
    _check_vectors_size(inputs.nbytes + sum(array.nbytes for array in expected.values()))
    activation = request.activation
    if activation is None and LOGITS in outputs:
        activation = _activation(request, expected[LOGITS], listener)
    if activation is not None and LOGITS in outputs:
        check_activation(activation, variant.classes)
        if activation == "none" and (value := first_outside(expected[LOGITS])) is not None:
            listener.notice(
                Reason(
                    "outputs-not-probabilities",
                    f"{quote(variant.name)}: the activation is none, but the test vectors have the output {value:g}, "
                    "which is no probability, so predictions are refused; --activation softmax or --activation sigmoid "
                    "makes probabilities of logits",
                )
            )
    return Network(
        model=model,
        variant=None if isinstance(variant, CustomNetwork) else variant,
        name=variant.name,
        classes=variant.classes,
        in_channels=variant.in_channels,
        size=variant.size,
        weights=loaded.record,
        labels=known_labels if needs_classifier(outputs) else None,
        preprocessing=preprocessing,
        dataset=loaded.dataset if dataset is None else dataset.name,
        vectors=Vectors(inputs, expected),
        images=images,
        data=data,
        raw=request.raw,
        seed=request.seed,
        expected=request.expected,
        outputs=outputs,
        activation=activation,
        guesses=tuple(dict.fromkeys((*loaded.guesses, *log.guesses))),
    )


def _check_vectors_size(size_bytes: int) -> None:
    """Check that an artifact can hold test vectors of this size.

    Raises:
        ResourceError: It cannot.
    """
    if size_bytes > VECTORS_LIMIT_BYTES:
        raise ResourceError(
            f"the test vectors have {size_bytes:,} bytes, and at most {VECTORS_LIMIT_BYTES:,} are supported",
            code="vectors-too-large",
            hint="choose a smaller --size or --in-channels, or fewer outputs: --output stages has the most numbers",
        )


def _match_classes(
    labels: tuple[str, ...] | None, dataset: Dataset, classes: int, listener: ExportListener
) -> tuple[str, ...] | None:
    """Return the labels of the network: those that are known, or else the class names of the dataset.

    Raises:
        ModelMismatchError: The order of the classes is unclear.
    """
    if not dataset.classes or len(dataset.classes) != classes:
        return labels
    if labels is None:
        check_class_order(dataset.classes)
        names = quote(", ".join(dataset.classes))
        listener.notice(
            Reason(
                "labels-from-data",
                f"the labels are the classes of {dataset.name} in their order: {names}; --labels FILE names others",
            )
        )
        return dataset.classes
    if are_foreign(dataset.classes, labels):
        try:
            map_classes(dataset.classes, labels, classes)
        except ModelMismatchError:
            return labels  # where the classes are used, the error is raised
        listener.notice(
            Reason(
                "classes-by-position",
                f"not every class of {dataset.name} has the name of a label, so classes are matched by position: "
                f"{position_example(dataset.classes, labels)}; --labels FILE names the classes",
            )
        )
    return labels


def _activation(request: ExportRequest, logits: Array, listener: ExportListener) -> Activation | None:
    """Return the step from the logits to probabilities, or ``None`` for the usual softmax.

    The outputs of a variant are logits. Those of a module may be probabilities already.

    Raises:
        UsageError: The outputs may be logits or probabilities.
    """
    if isinstance(request.variant, CustomNetwork):
        activation = guess_activation(logits)
    else:
        activation = "sigmoid" if request.variant.classes == 1 else "softmax"
    if activation == "softmax":
        return None
    listener.notice(activation_notice(activation, request.variant.name))
    return activation


def _build(variant: Variant, loaded: LoadedWeights) -> nn.Module:
    from exporter.models.resnet import build

    model = build(variant)
    model.load_state_dict(loaded.state)
    return model


def _check_use_of_outputs(request: ExportRequest, outputs: tuple[str, ...]) -> None:
    """Raise ``UsageError`` if the user gives what only missing outputs use."""
    if request.labels is not None and not needs_classifier(outputs):
        raise UsageError(
            "labels name classes, and no chosen output has classes",
            code="labels-without-classes",
            hint="omit --labels, or add --output logits",
        )
    if request.expected is not None and LOGITS not in outputs:
        raise UsageError(
            "--expect-top1 needs the logits", code="expected-top1-needs-logits", hint="--output logits adds them"
        )


def _load(request: ExportRequest, listener: ExportListener) -> tuple[ExportRequest, LoadedWeights]:
    """Return the weights, and the request with their variant.

    A file determines classes, channels, stride and shortcut option, unless the user chose them.
    """
    variant, weights = request.variant, request.weights
    if isinstance(weights, LoadedWeights):
        return request, weights
    assert isinstance(variant, Variant)  # a module comes with its weights
    if weights in ORIGINS or not Path(weights).is_file():
        return request, resolve(weights, variant, request.seed, listener.notice, listener.progress)
    if variant.name not in VARIANTS:
        return request, from_file(weights, variant, listener.notice, request.selection)
    row = VARIANTS[variant.name]
    changed = {name for name in ("stride", "size") if getattr(variant, name) != getattr(row, name)}
    options = VariantOptions(variant.name, **{name: getattr(variant, name) for name in request.chosen | changed})
    recognised = from_checkpoint(weights, options, listener.notice, request.selection)
    return replace(request, variant=recognised.variant), recognised.weights


def reference_logits(
    model: nn.Module, inputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the logits of PyTorch in eager fp32 on the CPU: float32 (n, classes).

    Args:
        model: The network.
        inputs: The prepared images, float32 (n, c, h, w).

    Raises:
        ArtifactError: A logit is not finite, because the weights overflow or belong to another network.
    """
    from exporter.models.several_outputs import reference_outputs

    return reference_outputs(model, DEFAULT_OUTPUTS, inputs)[LOGITS]


def _inputs(
    request: ExportRequest,
    data: str | None,
    preprocessing: Preprocessing | None,
    trained: bool,
    listener: ExportListener,
) -> tuple[Array, str, Dataset | None]:
    """Return the test inputs, their description, and their dataset."""
    variant = request.variant
    if data is not None and variant.in_channels not in IMAGE_CHANNELS:
        raise UsageError(
            f"--data has images of 1 or 3 channels, but the network has {variant.in_channels} input channels",
            code="data-channel-count",
            hint="omit --data: noise takes the place of images",
        )
    if preprocessing is None and (request.raw or data is not None):
        option = "--input raw" if request.raw else "--data"
        raise UsageError(
            f"{option} with {variant.in_channels} input channels needs --mean and --std", code="option-needs-statistics"
        )
    if data is None or preprocessing is None:
        inputs = noise_inputs((variant.in_channels, *variant.size), IMAGES, request.seed, request.raw)
        return inputs, f"seeded noise, seed {request.seed}", None
    dataset = open_dataset(data, IMAGES)
    for notice in dataset.notices:
        listener.notice(notice)
    if needs_classifier(request.outputs) and (len(dataset.classes) != variant.classes or variant.classes == 1):
        raise ModelMismatchError(
            f"the dataset {quote(data)!r} has {len(dataset.classes)} classes, but the network has {variant.classes}",
            code="data-class-count",
            hint=_class_count_hint(variant, trained, len(dataset.classes)),
        )
    _, pixels = next(dataset.pixels(preprocessing, IMAGES))
    inputs = pixels if request.raw else normalise(pixels, preprocessing)
    return inputs, f"{len(inputs)} images of {dataset.name}", dataset


def _class_count_hint(variant: AnyNetwork, trained: bool, classes: int) -> str:
    """Return what helps against data of another number of classes. That of trained weights is what it is."""
    if variant.classes == 1:
        return "omit --data: the accuracy of a network with one output is not measured"
    if trained or not isinstance(variant, Variant):
        return f"use images of its {variant.classes} classes, with a folder for each"
    return f"export with --num-classes {classes}"


def _preprocessing(request: ExportRequest, loaded: LoadedWeights, listener: ExportListener) -> Preprocessing | None:
    """Return the preprocessing of the request or of the weights, and tell what comes from a file or is assumed.

    Fields are marked as assumed only for trained weights: for untrained ones, no preprocessing is right or wrong.

    Raises:
        UsageError: Decoding is scaled, and there are no images to compare predictions on.
        RexportError: As for ``choose_preprocessing``.
    """
    options = request.preprocessing
    chosen = choose_preprocessing(options, loaded.preprocessing, request.variant)
    if chosen is None:
        if loaded.record.trained:
            listener.notice(_unknown_preprocessing(request.variant.in_channels))
        return None
    margin = black_margin(chosen)
    if margin is not None:
        listener.notice(margin)
    if chosen.scaled_decoding and request.data is None:
        raise UsageError(
            "scaled decoding changes pixels, and there are no images to compare predictions on",
            code="scaled-decoding-without-data",
            hint="--data FOLDER names images like those to come, --full-decoding changes nothing",
        )
    if options.source is not None:
        listener.notice(describe_transform(options.source, chosen))
    if not loaded.record.trained:
        return replace(chosen, assumed=())
    if chosen.assumed:
        listener.notice(assumption(loaded.record.source, chosen))
    elif _is_scaled(request.variant, loaded, options):
        listener.notice(scale_notice(loaded.record.source or loaded.record.origin, chosen))
    return chosen


def _is_scaled(variant: AnyNetwork, loaded: LoadedWeights, options: PreprocessingOptions) -> bool:
    """Return whether the preprocessing of the weights had to be changed for another size of the input."""
    if options.base is not None or loaded.preprocessing is None or not isinstance(variant, Variant):
        return False
    chosen = {"resize", "crop"} <= set(options.given())
    return variant.name in VARIANTS and variant.size != VARIANTS[variant.name].size and not chosen


def _unknown_preprocessing(channels: int) -> Reason:
    halves = ",".join(("0.5",) * channels)
    use = f"predict, label, serve and web need one: export with --mean and --std, as --mean {halves} --std {halves}"
    if channels not in IMAGE_CHANNELS:
        use = "image files have 1 or 3 channels, so predict, label and web refuse it, and serve takes tensors alone"
    return Reason(
        "preprocessing-unrecorded",
        f"the artifact records no preprocessing, because nothing is assumed for {channels} input channels; {use}",
    )


def _labels(request: ExportRequest, listener: ExportListener) -> tuple[str, ...] | None:
    labels, classes = request.labels, request.variant.classes
    if isinstance(labels, Path):
        return read_labels(labels, classes, listener.notice)
    if labels is not None and len(labels) != classes and (classes, len(labels)) != BINARY:
        raise ModelMismatchError(
            f"there are {len(labels)} labels, but the network has {classes} classes", code="label-count-mismatch"
        )
    return labels
