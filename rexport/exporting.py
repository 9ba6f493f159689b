"""Export from Python: a variant, a checkpoint or a module in, an artifact out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.export_request import ExpectedAccuracy, ExportListener, ExportRequest
from exporter.models.custom import AnyNetwork
from exporter.models.outputs import DEFAULT_OUTPUTS, check_outputs, needs_classifier
from exporter.models.variants import VARIANTS, Shortcut, Stride, Variant
from exporter.models.variants import variant as find_variant
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import CALIBRATION_IMAGES, GATE_IMAGES, TOLERANCE_PP, Target
from exporter.precision.table import precision as find_precision
from exporter.preprocessing.options import PreprocessingOptions
from exporter.weights.checkpoint import stem
from exporter.weights.entries import ANY_ENTRY, Selection, parse_digest
from exporter.weights.modules import NamedModule, from_module
from exporter.weights.recognition import VariantOptions, from_checkpoint
from exporter.weights.sources import ORIGINS, PREPARED, LoadedWeights
from rexport.progress import Progress, listen_to_export
from rexport.wording import python_wording
from runtimes.arguments import is_count, require_names, require_not_empty, require_not_too_large
from runtimes.artifacts.artifact import Artifact
from runtimes.errors import UsageError, quote
from runtimes.images.spec import ChannelOrder, CropOffset, Interpolation, Preprocessing, Scale
from runtimes.tensors.activation import Activation, require_activation

if TYPE_CHECKING:
    from torch import Tensor, nn

ONNX, ENGINE = ".onnx", ".engine"

SUFFIXES = (ONNX, ".pt2", ENGINE)
"""Of the files that can be written."""


def variants() -> tuple[Variant, ...]:
    """The networks that can be exported, as ``rexport list`` shows them.

    Returns:
        A row for each: its ``name``, ``depths``, ``widths``, ``classes``, ``size`` as (height, width) in pixels.

    Examples:
        >>> [variant.name for variant in rexport.variants()][:2]
        ['resnet18', 'resnet34']
    """
    return tuple(VARIANTS.values())


def export(
    model: str | os.PathLike[str] | nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    variant: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    key: str | None = None,
    strip_prefix: str | None = None,
    expect_sha256: str | None = None,
    outputs: str | Sequence[str] = DEFAULT_OUTPUTS,
    precision: str = "fp32",
    calibration: str | os.PathLike[str] | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    target: Target | None = None,
    data: str | os.PathLike[str] | None = None,
    gate_images: int = GATE_IMAGES,
    max_drop: float | None = None,
    recipe: str | None = None,
    float_layers: Sequence[str] = (),
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    activation: Activation | None = None,
    preprocessing: Preprocessing | None = None,
    transform: str | os.PathLike[str] | None = None,
    resize: int | tuple[int, int] | None = None,
    crop: int | tuple[int, int] | None = None,
    pad: int | None = None,
    interpolation: Interpolation | None = None,
    antialias: bool | None = None,
    channels_order: ChannelOrder | None = None,
    scale: Scale | None = None,
    crop_offset: CropOffset | None = None,
    scaled_decoding: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    expect_top1: float | None = None,
    tolerance: float = TOLERANCE_PP,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    example: Tensor | Sequence[int] | None = None,
    stride: Stride | None = None,
    shortcut: Shortcut | None = None,
    batch: int | None = None,
    raw_input: bool = False,
    opset: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> Artifact:
    """Exports a network to one file, checked against PyTorch; blocks for seconds, for int8 up to minutes.

    The file takes normalised images (batch, channels, height, width) float32 and gives logits (batch, classes) float32.
    It is written only if its outputs are PyTorch's and, below fp32, if its precision passes the gate. A manifest and
    test vectors lie beside it. What fails leaves no file. Notices go to the logger ``rexport``.

    Args:
        model: One of three things. The name of a variant, as in ``variants()``. The path of a checkpoint (``.pt``,
            ``.pth``, ``.ckpt``, ``.safetensors``), which is read without running code from it. A PyTorch module that
            takes images and returns logits: a variant if it has the tensors and, on seeded noise, the outputs of one;
            any other module is exported as it is. A notice says which. The module is not changed, and its weights
            count as trained.
        path: The file to write. Its suffix is the format: ``.onnx``, ``.pt2`` for a PyTorch program, ``.engine`` for
            TensorRT, which leaves the ONNX file beside it. No suffix, or a folder that exists: an ONNX file in the
            folder with the name of the variant, the checkpoint or the module's class. By default the current folder.
        variant: For a checkpoint or a module, the variant's name. By default the one whose tensors these are, which a
            warning on the logger names for a checkpoint; what is taken from the tensors are its classes, channels and
            shortcut option, never its stride or input size, which the warning names as assumed. For a module, its
            outputs tell the stride.
        weights: For a variant's name: ``random`` (untrained, the default), ``bundled`` (ResNet-20 on Fashion-MNIST),
            ``imagenet`` (torchvision's), or the path of a checkpoint.
        key: The entry of the checkpoint that holds the weights, with dots for entries inside others, as ``ema``. By
            default ``state_dict``, ``model``, ``net`` or another usual name.
        strip_prefix: The beginning of the names of the network's tensors; tensors with other names are left out. By
            default the one that all layers of the network have.
        expect_sha256: The SHA-256 that the checkpoint must have, as 64 hexadecimal digits. It is recorded in the
            manifest. By default any.
        outputs: One or several of ``logits``, ``features``, ``stages``, ``cam``. Features are the pooled input of the
            classifier (batch, channels). Stages are the maps after the stages, called ``stage1`` and so on (batch,
            channels, height, width). The heat maps ``cam`` have (batch, classes, height, width). All are float32, in
            this order. A checkpoint without a classifier has features and stages.
        precision: ``fp32``, ``tf32``, ``fp16``, ``bf16``, ``int8`` or ``fp8``. Input and output stay float32.
        calibration: Training images for int8 and fp8: a name or folder, as ``data``. By default the bundled ones where
            they fit, and noise for untrained weights.
        calibration_images: The number of them.
        target: Deployment target of int8. By default ``tensorrt`` for an engine, else ``cpu``. fp8 is for TensorRT.
        data: Labelled images for the checks: ``fashion-mnist``, a data set on disk or a folder with a folder for each
            class. By default the bundled ones where they fit, else noise.
        gate_images: The most images on which a precision below fp32 is compared with fp32.
        max_drop: The largest loss of top-1 accuracy against fp32 in percentage points, measured on ``data``. By default
            the limit of the precision, which is 0.5 for int8 and fp8.
        recipe: The only way of calibration that int8 or fp8 tries, as ``more-images``. By default the recipes in turn,
            until one passes the gate.
        float_layers: Names of layers that are not quantised, as ``layer1.0.conv1/Conv``. By default none, unless
            no recipe passes the gate.
        labels: A list with one a class, or the path of a text file with one label a line.
        activation: The step from the logits to probabilities: ``softmax``, ``sigmoid``, or ``none`` for a network that
            ends in probabilities. By default found from the outputs, and a warning says so unless it is the softmax.
        preprocessing: What images go through before the network: resize, crop, padding, channel order, scale, mean and
            standard deviation. By default what the weights are known to need, else ImageNet's, scaled to the input
            size; fields that are assumed are named in a warning and in the manifest.
        transform: In place of ``preprocessing``, a JSON file with it: timm's pretrained config, a
            ``preprocessor_config.json`` of Hugging Face, a preset of torchvision, or a manifest.
        resize: Pixels of the shorter side, or the (height, width) that images are squashed to. Like the next arguments,
            this replaces one field of the preprocessing.
        crop: Height and width of the centre that is cut out, or one number for both. Without ``input_size``, the
            network takes images of this size; without both, of ``resize`` if that is smaller than the usual size.
        pad: Black pixels added on each side.
        interpolation: Filter of resizing: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos``, ``box``, ``hamming``.
        antialias: Whether a filter averages all pixels when it shrinks, as Pillow's do.
        channels_order: ``RGB`` or ``BGR``, the order of the channels that the network takes.
        scale: The divisor of pixels: 255, or 1 to keep 0 to 255.
        crop_offset: The rounding of the position of the centre: ``round`` as torchvision, ``floor`` as Hugging Face.
        scaled_decoding: Whether large JPEG files are decoded at 1/2, 1/4 or 1/8 of their size, which is faster. The
            predictions on ``data`` are compared with those after full decoding.
        mean: Mean of each channel, in the order of the channels. ``mean`` and ``std`` go together.
        std: Standard deviation of each channel.
        expect_top1: The top-1 accuracy on ``data`` in percent, as you measured it. Another accuracy is an error, which
            says what other preprocessings, channel orders and orders of labels would give.
        tolerance: The allowed difference from ``expect_top1`` in percentage points.
        num_classes: Number of outputs of the classifier. By default read from the weights.
        in_channels: Number of channels of the input. By default read from the weights.
        input_size: Height and width in pixels, or one number for both. By default the variant's; for another module,
            that of the preprocessing, else of the module's ``example_input_array`` or ``pretrained_cfg``, else 224; a
            notice says which.
        example: For a module, an input or its shape (batch, channels, height, width), in place of ``in_channels`` and
            ``input_size``. Only its shape is used.
        stride: Where bottlenecks stride: in the first 1x1 convolution (``v1``) or in the 3x3 (``v1.5``).
        shortcut: Padding (A), projection where needed (B), or projection always (C).
        batch: A fixed number of images in one call. By default any.
        raw_input: Takes uint8 pixels (batch, height, width, channels) and normalises them in the graph.
        opset: Of the ONNX standard. By default 20, and 22 for bf16.
        seed: Of random weights and of noise.
        overwrite: Replaces the file if it exists.
        progress: A function of ``(done, total, description)``, called at the beginning of each step; ``total`` is
            ``None``. ``True`` prints the command's status line to stderr. By default nothing is printed.

    Returns:
        The artifact, with its ``path`` and its ``manifest``.

    Raises:
        UsageError: An unknown variant, precision or suffix; the file exists; arguments that contradict each other.
        ModelMismatchError: The weights, the module, the labels or the data are of another network; a checkpoint fits
            several variants, holds several networks, or has no classifier of one linear layer.
        ArtifactError: The checkpoint is damaged, or is none.
        UnsafeArtifactError: The checkpoint holds code.
        CheckFailedError: The file's logits are not PyTorch's, the precision failed its gate, or the top-1 accuracy is
            not the expected one.
        CompatibilityError: This torch or TensorRT cannot write the graph.
        BackendUnavailableError: A library is missing.
        ResourceError: The disk, the memory, or the network.

    Examples:
        >>> rexport.export("resnet20", "out/", weights="bundled", precision="int8").path
        PosixPath('out/resnet20.onnx')
        >>> rexport.export("best.pth", "best.onnx", variant="resnet56", labels=["cat", "dog"])
        >>> rexport.export(torchvision.models.resnet50(weights="DEFAULT"), "resnet50.onnx", precision="fp16")
    """
    with python_wording(), listen_to_export(progress) as listener:
        require_not_empty(
            model=model,
            path=path,
            variant=variant,
            weights=weights,
            calibration=calibration,
            data=data,
            labels=labels if isinstance(labels, str | os.PathLike) else None,
            transform=transform,
        )
        require_not_too_large(batch=batch, opset=opset, num_classes=num_classes, in_channels=in_channels, pad=pad)
        for name, value in (("input_size", input_size), ("resize", resize), ("crop", crop), ("example", example)):
            for side in value if isinstance(value, tuple | list) else (value,):
                require_not_too_large(**{name: side})
        place = _Place.of(path)
        typed_for_engine = place.suffix == ENGINE and find_precision(precision).calibrated
        precision_spec = PrecisionSpec(
            precision,
            None if calibration is None else os.fspath(calibration),
            calibration_images,
            target or ("tensorrt" if typed_for_engine else "cpu"),
            gate_images,
            max_drop,
            recipe,
            tuple(float_layers),
        )
        if transform is not None:
            _refuse_second("preprocessing", preprocessing, "a transform is given")
        in_channels, size = _input_shape(model, example, in_channels, _both_sides(input_size))
        chosen = PreprocessingOptions(
            resize=resize,
            crop=_both_sides(crop),
            pad=pad,
            interpolation=interpolation,
            antialias=antialias,
            channel_order=channels_order,
            scale=scale,
            crop_offset=crop_offset,
            scaled_decoding=scaled_decoding,
            mean=None if mean is None else tuple(mean),
            std=None if std is None else tuple(std),
            base=preprocessing,
        ).with_file(None if transform is None else Path(transform), size)
        options = VariantOptions(
            variant,
            num_classes,
            in_channels,
            size or chosen.input_size(),
            stride,
            shortcut,
            None if str(weights).lower() in PREPARED else chosen.resized_side(),
        )
        chosen_outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        check_outputs(chosen_outputs)
        digest = None if expect_sha256 is None else parse_digest(expect_sha256)
        selection = Selection(key, strip_prefix, headless=not needs_classifier(chosen_outputs), sha256=digest)
        named = _Named(model, None if weights is None else os.fspath(weights), selection)
        if activation is not None:
            require_activation(activation)
        row, source = _find_network(named, options, seed, listener)
        request = ExportRequest(
            row,
            weights=source,
            chosen=options.chosen,
            selection=named.selection,
            name=stem(model) if isinstance(model, str | os.PathLike) and named.is_checkpoint else None,
            out=place.out,
            seed=seed,
            batch=_at_least_one("batch", batch),
            activation=activation,
            labels=_labels(labels),
            data=None if data is None else os.fspath(data),
            force=overwrite,
            raw=raw_input,
            preprocessing=chosen,
            expected=ExpectedAccuracy.from_percent(expect_top1, tolerance),
            outputs=chosen_outputs,
        )
        return _write(request, place.suffix, _at_least_one("opset", opset), precision_spec, listener)


@dataclass(frozen=True)
class _Place:
    """Where the file goes, as ``ExportRequest.out`` has it, and the suffix that says its format."""

    out: str
    suffix: str

    @classmethod
    def of(cls, path: str | os.PathLike[str] | None) -> _Place:
        """A path without a suffix is a folder. Raises UsageError for another suffix."""
        out = "." if path is None else os.fspath(path)
        suffix = Path(out).suffix
        if Path(out).is_dir() or not suffix:
            return cls(f"{out}{os.sep}", ONNX)
        if suffix not in SUFFIXES:
            raise UsageError(
                f"the suffix says the format: one of {', '.join(SUFFIXES)}, not {suffix}",
                code="export-suffix-unknown",
                path=out,
                hint="end the path in one of them; without a suffix it is a folder for an ONNX file",
            )
        return cls(out, suffix)


def _both_sides(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _input_shape(
    model: str | os.PathLike[str] | nn.Module,
    example: Tensor | Sequence[int] | None,
    in_channels: int | None,
    size: tuple[int, int] | None,
) -> tuple[int | None, tuple[int, int] | None]:
    """The channels and the (height, width) of the input, from the example if there is one.

    Raises:
        UsageError: an example for a model that is no module; one of another shape; or its shape is said once more.
    """
    if example is None:
        return in_channels, size
    if isinstance(model, str | os.PathLike):
        raise UsageError("example is for modules", code="example-needs-module", hint="leave example out")
    _refuse_second("in_channels", in_channels, "the example has the channels")
    _refuse_second("input_size", size, "the example has the size")
    shape = tuple(int(side) for side in getattr(example, "shape", example))
    if len(shape) != 4 or min(shape) < 1:
        raise UsageError(
            f"the example has the shape {shape}; (batch, channels, height, width) is expected",
            code="example-shape",
            hint="example=(1, 3, 224, 224)",
        )
    return shape[1], (shape[2], shape[3])


def _at_least_one(name: str, value: int | None) -> int | None:
    if value is not None and not is_count(value):
        raise UsageError(f"{name} must be an integer of at least 1, not {quote(repr(value))}", code="count-below-one")
    return value


def _labels(labels: str | os.PathLike[str] | Sequence[str] | None) -> Path | tuple[str, ...] | None:
    """The file of the labels, or the labels. Raises UsageError where they are neither."""
    if labels is None:
        return None
    return Path(labels) if isinstance(labels, str | os.PathLike) else require_names(labels)


@dataclass(frozen=True)
class _Named:
    """What the caller named: a model, weights of a variant, and the part of a checkpoint."""

    model: str | os.PathLike[str] | nn.Module
    weights: str | None
    selection: Selection

    @property
    def is_checkpoint(self) -> bool:
        """Whether the model is the path of a checkpoint."""
        return isinstance(self.model, os.PathLike) or (isinstance(self.model, str) and _is_path(self.model))


def _find_network(
    named: _Named, options: VariantOptions, seed: int, listener: ExportListener
) -> tuple[AnyNetwork, str | LoadedWeights]:
    """What the model means: a network, and its weights or where they come from.

    Raises:
        UsageError: it is neither a variant's name nor a path nor a module, or what it says is said once more.
        RexportError: as ``from_checkpoint`` and ``from_module``.
    """
    model, weights = named.model, named.weights
    if (
        replace(named.selection, headless=False) != ANY_ENTRY
        and not named.is_checkpoint
        and weights in (None, *ORIGINS)
    ):
        raise UsageError("key, strip_prefix and expect_sha256 are for checkpoints", code="selection-needs-checkpoint")
    if isinstance(model, str) and not _is_path(model):
        _refuse_second("variant", options.name, f"the model {quote(model)!r} names a variant already")
        return options.apply(find_variant(model)), weights or "random"
    _refuse_second("weights", weights, "the model has its own weights")
    if isinstance(model, str | os.PathLike):
        listener.step("reading the checkpoint")
        found = from_checkpoint(model, options, listener.notice, named.selection)
        return found.variant, found.weights
    torch = sys.modules.get("torch")  # whoever has a module has imported it
    if torch is None or not isinstance(model, torch.nn.Module):
        raise UsageError(
            f"the model is a {quote(type(model).__name__)}; a variant's name, a checkpoint's path or a torch.nn.Module "
            "is expected",
            code="model-kind-unknown",
        )
    listener.step("comparing the module with the variants")
    built = from_module(NamedModule.of(model), options, seed, listener.notice, named.selection.headless)
    return built.network, built.weights


def _is_path(model: str) -> bool:
    """Whether a text names a file and no variant, known or not; ``./resnet20`` is a file."""
    return model not in VARIANTS and (os.sep in model or "." in model or Path(model).exists())


def _refuse_second(name: str, value: object, reason: str) -> None:
    if value is not None:
        raise UsageError(f"{name} is given, and {reason}", code="argument-given-twice", hint=f"leave {name} out")


def _write(
    request: ExportRequest, suffix: str, opset: int | None, precision_spec: PrecisionSpec, listener: ExportListener
) -> Artifact:
    """The artifact in the suffix's format, checked and published."""
    from exporter.targets import onnx_file, tensorrt_engine, torch_program

    if suffix == ONNX:
        return onnx_file.export(request, listener, opset, precision_spec)
    if suffix == ENGINE:
        return tensorrt_engine.export(request, tensorrt_engine.EngineRequest(), listener, opset, precision_spec)
    if opset is not None:
        raise UsageError(f"opset is for ONNX files, not for {suffix}", code="opset-needs-onnx", hint="leave opset out")
    return torch_program.export(request, listener, precision_spec)
