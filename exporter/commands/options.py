"""The options of ``rexport`` that several of its commands share, and what they come to."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from exporter.commands.backend_option import backend_option
from exporter.commands.command import (
    DATA,
    MODEL,
    OUTPUT,
    PRECISION,
    PREPROCESSING,
    RUNTIME,
    NameChoice,
    stack_options,
)
from exporter.commands.terminal import debug_option
from exporter.commands.values import (
    DATASET,
    VARIANT,
    VARIANT_OR_FILE,
    WEIGHTS,
    BatchSize,
    Numbers,
    Resize,
    Size,
)
from exporter.precision.recipes import RECIPES
from exporter.precision.table import (
    CALIBRATION_IMAGES,
    GATE_IMAGES,
    INT8_BOUNDS,
    PRECISIONS,
    TARGETS,
    TOLERANCE_PP,
)
from runtimes.errors import BackendUnavailableError, Reason, UsageError, quote
from runtimes.images.spec import CHANNEL_ORDERS, CROP_OFFSETS, INTERPOLATIONS, SCALES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from exporter.models.variants import Variant
    from exporter.network import ExportListener, ExportRequest
    from exporter.preprocessing.options import PreprocessingOptions
    from exporter.weights.entries import Selection
    from exporter.weights.matching import Notify

    Command = TypeVar("Command", bound=Callable[..., Any])


def variant_options(command: Command) -> Command:
    """The options that change a variant's row."""
    return stack_options(
        MODEL.option(
            "--num-classes",
            type=click.IntRange(1),
            metavar="N",
            show_default="the variant's",
            help="Number of outputs of the classifier.",
        ),
        MODEL.option(
            "--in-channels",
            type=click.IntRange(1),
            metavar="N",
            show_default="the variant's",
            help="Number of input channels.",
        ),
        MODEL.option(
            "--size",
            type=Size(),
            metavar="N|HxW",
            show_default="the variant's",
            help="Height and width of the input in pixels, as 224 or 192x256.",
        ),
        MODEL.option(
            "--stride",
            type=NameChoice(("v1", "v1.5")),
            show_default="v1.5",
            help="Position of the stride in bottleneck blocks: the first 1x1 convolution (v1), or the 3x3 (v1.5).",
        ),
        MODEL.option(
            "--shortcut",
            type=NameChoice(("A", "B", "C")),
            show_default="the variant's",
            help="Shortcuts: zero padding (A), projection where dimensions change (B), or projection everywhere (C).",
        ),
    )(command)


def selection_options(command: Command) -> Command:
    """The options that say which part of a checkpoint is read."""
    return stack_options(
        MODEL.option(
            "--key",
            metavar="NAME",
            show_default="state_dict, model, net or another usual name",
            help="Entry of the CHECKPOINT that holds the weights, with dots for entries inside others, as ema.",
        ),
        MODEL.option(
            "--strip-prefix",
            metavar="TEXT",
            show_default="the one that all layers of the network have",
            help="Beginning of the names of the network's tensors; tensors with other names are left out.",
        ),
    )(command)


def selection_of(options: dict[str, Any]) -> Selection:
    """What the values of ``selection_options`` come to."""
    from exporter.weights.entries import Selection

    return Selection(options["key"], options["strip_prefix"])


def network_options(command: Command) -> Command:
    """The options that say what network is exported, and on what it is checked."""
    return stack_options(
        MODEL.option(
            "--weights",
            type=WEIGHTS,
            default="random",
            metavar="NAME|FILE",
            help="Weights of a VARIANT: random (untrained), bundled (resnet20 trained on Fashion-MNIST), imagenet "
            "(torchvision's), or a CHECKPOINT.",
        ),
        selection_options,
        MODEL.option("--seed", type=int, default=0, metavar="N", help="Seed of random weights and of noise images."),
        variant_options,
        MODEL.option(
            "--batch", type=BatchSize(), default="dynamic", metavar="dynamic|N", help="Batch size: any, or N images."
        ),
        MODEL.option(
            "--input",
            type=NameChoice(("float", "raw")),
            default="float",
            help="Input: normalised float32, or raw uint8 pixels (n, h, w, channels) that the graph normalises.",
        ),
        DATA.option(
            "--data",
            type=DATASET,
            metavar="NAME|DIR",
            show_default="fashion-mnist for bundled weights, else noise",
            help="Labelled images for the checks: fashion-mnist, cifar10:PATH, or a folder with one folder a class.",
        ),
        labels_option("those of the weights, else none"),
        DATA.option(
            "--expect-top1",
            type=float,
            metavar="PERCENT",
            show_default="no check",
            help="Top-1 accuracy on --data that was measured in training, as 67.6. The export fails if the file has "
            "another one.",
        ),
        DATA.option(
            "--tolerance",
            type=float,
            default=TOLERANCE_PP,
            metavar="PP",
            help="Allowed difference from --expect-top1 in percentage points.",
        ),
        preprocessing_options("that of the weights, else assumed"),
    )(command)


def labels_option(default: str) -> Callable[[Command], Command]:
    """The option that names the classes."""
    return DATA.option(
        "--labels",
        type=click.Path(path_type=Path, dir_okay=False),
        show_default=default,
        help="Text file with the name of one class a line.",
    )


def preprocessing_options(default: str) -> Callable[[Command], Command]:
    """The options that say how images are prepared, with the default of all of them in words."""
    return stack_options(
        PREPROCESSING.option(
            "--transform",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            show_default="none",
            help="JSON file with the preprocessing: a config of timm, a preprocessor_config.json of Hugging Face, a "
            "preset of torchvision, or a manifest. The options below replace its values.",
        ),
        PREPROCESSING.option(
            "--resize",
            type=Resize(),
            metavar="N|HxW",
            show_default=default,
            help="Resize the shorter side to N pixels, or squash the image to HxW pixels.",
        ),
        PREPROCESSING.option(
            "--interpolation",
            type=NameChoice(INTERPOLATIONS),
            show_default=default,
            help="Filter of resizing.",
        ),
        PREPROCESSING.option(
            "--antialias/--no-antialias",
            default=None,
            show_default=default,
            help="Average all pixels when shrinking, as Pillow does; or sample few, as OpenCV does.",
        ),
        PREPROCESSING.option(
            "--crop",
            type=Size(),
            metavar="N|HxW",
            show_default=default,
            help="Size of the centre that is cut out, in pixels.",
        ),
        PREPROCESSING.option(
            "--crop-offset",
            type=NameChoice(CROP_OFFSETS),
            show_default=default,
            help="Rounding of the position of the centre: round as torchvision, floor as Hugging Face.",
        ),
        PREPROCESSING.option(
            "--pad",
            type=click.IntRange(0),
            metavar="N",
            show_default=default,
            help="Number of black pixels added on each side.",
        ),
        PREPROCESSING.option(
            "--channels-order",
            "channel_order",
            type=NameChoice(CHANNEL_ORDERS),
            show_default=default,
            help="Order of the colours in the input; BGR for networks trained with OpenCV.",
        ),
        PREPROCESSING.option(
            "--scale",
            type=NameChoice(tuple(map(str, SCALES))),
            show_default=default,
            help="Divisor of pixels: 255 gives 0 to 1, and 1 keeps 0 to 255.",
        ),
        PREPROCESSING.option(
            "--mean",
            type=Numbers(),
            metavar="R,G,B",
            show_default=default,
            help="Mean of the training images for each channel, after the division by --scale, in the order of the "
            "channels.",
        ),
        PREPROCESSING.option(
            "--std",
            type=Numbers(),
            metavar="R,G,B",
            show_default=default,
            help="Standard deviation of the training images for each channel, on the same scale.",
        ),
    )


def preprocessing_of(options: dict[str, Any], size: tuple[int, int] | None = None) -> PreprocessingOptions:
    """The choice that the values of ``preprocessing_options`` come to; ``size`` of the input, if it is chosen too.

    Raises:
        RexportError: the file cannot be read, or is of no known kind.
    """
    from exporter.preprocessing.options import PreprocessingOptions

    same = ("resize", "crop", "pad", "interpolation", "antialias", "channel_order", "crop_offset", "mean", "std")
    scale = None if options["scale"] is None else next(value for value in SCALES if str(value) == options["scale"])
    given = PreprocessingOptions(**{name: options[name] for name in same}, scale=scale)
    return given.with_file(options["transform"], size)


def network_argument(command: Command) -> Command:
    """The network, by its name or by the file of its weights."""
    return click.argument(
        "network",
        type=VARIANT_OR_FILE,
        metavar="VARIANT|CHECKPOINT",
        help="Network, for example resnet50; or a .pt, .pth, .ckpt or .safetensors file, whose network is recognised.",
    )(command)


def variant_argument(command: Command) -> Command:
    """The network, by its name."""
    return click.argument(
        "variant", type=VARIANT, metavar="VARIANT", help="Network, for example resnet50; rexport list shows all."
    )(command)


def artifact_argument(command: Command) -> Command:
    """The file, which rexport made."""
    return click.argument(
        "artifact",
        metavar="ARTIFACT",
        type=click.Path(path_type=Path),
        help="Model file that rexport wrote, for example resnet20.onnx.",
    )(command)


def out_option(default: str | None, words: str) -> Callable[[Command], Command]:
    """Where the file goes."""
    return OUTPUT.option(
        "-o",
        "--out",
        type=click.Path(),
        metavar="FILE|DIR/",
        default=default,
        show_default=words,
        help="File to write, or a folder if the path ends in a slash; such a folder is created.",
    )


force_option = OUTPUT.option("--force", is_flag=True, help="Replace existing files.")


def export_options(command: Command) -> Command:
    """What every export of a network takes."""
    return stack_options(
        network_argument,
        network_options,
        out_option("./", "./"),
        force_option,
        debug_option,
    )(command)


def customise_variant(variant: str, options: dict[str, Any]) -> Variant:
    """The variant with what ``variant_options`` change.

    Raises:
        UsageError: there is no such variant, the name is that of a file, or it does not take the change.
    """
    from exporter.models import variants

    if is_path(variant):
        hint = f"rexport inspect {shlex.quote(variant)} tells what it is, rexport list shows the variants"
        raise UsageError(f"{quote(variant)} is a file, and a variant was expected", code="variant-is-file", hint=hint)
    return variants.customise(variants.variant(variant), **_variant_fields(options))


def _variant_fields(options: dict[str, Any]) -> dict[str, Any]:
    """The values of ``variant_options`` by the fields of a variant."""
    names = ("in_channels", "size", "stride", "shortcut")
    return {"classes": options["num_classes"]} | {name: options[name] for name in names}


def is_path(network: str) -> bool:
    """Whether it names a file and no variant, known or not; ``./resnet20`` is a file."""
    from exporter.models.variants import VARIANTS
    from exporter.weights.checkpoint import SUFFIXES

    path = Path(network)
    return network.lower() not in VARIANTS and ("/" in network or path.suffix.lower() in SUFFIXES or path.exists())


def request_of(network: str, options: dict[str, Any], listener: ExportListener) -> ExportRequest:
    """The request that the values of ``export_options`` come to. A checkpoint is read here. Without ``--size``, the
    input has the size of the images after preprocessing, if that is chosen.

    Raises:
        UsageError: as ``customise_variant``; or weights or a part of a checkpoint are named where there are none.
        RexportError: as ``preprocessing_of``, ``ExpectedAccuracy.from_percent`` and
            ``exporter.weights.recognition.from_checkpoint``.
    """
    from exporter.network import ExpectedAccuracy, ExportRequest
    from exporter.weights.checkpoint import stem
    from exporter.weights.recognition import VariantOptions, from_checkpoint
    from exporter.weights.sources import ORIGINS

    preprocessing = preprocessing_of(options, options["size"])
    options = options | {"size": options["size"] or preprocessing.input_size()}
    same = ("out", "seed", "batch", "labels", "data", "force")
    given = {name: options[name] for name in same} | {"raw": options["input"] == "raw", "preprocessing": preprocessing}
    given["expected"] = ExpectedAccuracy.from_percent(options["expect_top1"], options["tolerance"])
    fields, selection = VariantOptions(**_variant_fields(options)), selection_of(options)
    if is_path(network):
        if given_options(click.get_current_context(), ("weights",)):
            raise UsageError(
                f"--weights is given, and {quote(network)} has its own weights",
                code="weights-given-twice",
                hint="omit one",
            )
        listener.step("reading the checkpoint")
        recognised = from_checkpoint(network, fields, listener.notice, selection)
        return ExportRequest(recognised.variant, weights=recognised.weights, name=stem(network), **given)
    variant, weights = customise_variant(network, options), options["weights"]
    if weights in ORIGINS:
        announce_idle(click.get_current_context(), "without a checkpoint", SELECTED, listener.notice)
    return ExportRequest(variant, weights=weights, chosen=fields.chosen, selection=selection, **given)


SELECTED = ("key", "strip_prefix")
"""What ``selection_options`` call their values."""


def precision_option(command: Command) -> Command:
    """In what the graph computes."""
    return PRECISION.option(
        "--precision",
        type=NameChoice(tuple(PRECISIONS)),
        default="fp32",
        help="Precision in which the graph computes; tf32 is fp32 that a GPU may round to 10 bits.",
    )(command)


def gate_options(command: Command) -> Command:
    """By what, and on how many images, a precision is judged."""
    return stack_options(
        PRECISION.option(
            "--max-drop",
            type=click.FloatRange(0, 100),
            metavar="POINTS",
            show_default=f"by precision, {100 * INT8_BOUNDS.drop:g} for int8",
            help="Largest loss of top-1 accuracy against fp32 in percentage points, measured on --data.",
        ),
        PRECISION.option(
            "--gate-images",
            type=click.IntRange(1),
            default=GATE_IMAGES,
            metavar="N",
            help="Maximum number of images on which a precision below fp32 is compared with fp32.",
        ),
    )(command)


def calibration_options(command: Command) -> Command:
    """What int8 is calibrated on."""
    return stack_options(
        PRECISION.option(
            "--calibration",
            type=DATASET,
            metavar="NAME|DIR",
            show_default="the bundled ones where they fit; noise if untrained",
            help="Training images that int8 is calibrated on.",
        ),
        PRECISION.option(
            "--calibration-images",
            type=click.IntRange(1),
            default=CALIBRATION_IMAGES,
            metavar="N",
            help="Maximum number of images that int8 is calibrated on.",
        ),
    )(command)


def recipe_options(command: Command) -> Command:
    """The one way in which int8 is made."""
    return stack_options(
        PRECISION.option(
            "--recipe",
            type=NameChoice(tuple(RECIPES)),
            metavar="NAME",
            show_default="the first that passes the gate",
            help=f"Only recipe that int8 tries: {', '.join(RECIPES)}.",
        ),
        PRECISION.option(
            "--float-layer",
            "float_layers",
            multiple=True,
            metavar="NAME",
            show_default="none, unless no recipe passes the gate",
            help="Layer that int8 leaves in float32, as layer1.0.conv1/Conv. Repeatable.",
        ),
    )(command)


def typing_options(command: Command) -> Command:
    """The options that say how a graph is typed."""
    return stack_options(
        precision_option,
        calibration_options,
        recipe_options,
        PRECISION.option(
            "--target",
            type=NameChoice(TARGETS),
            default="cpu",
            help="Deployment target of int8; TensorRT takes signed integers alone.",
        ),
        gate_options,
    )(command)


TYPING = (
    "precision", "calibration", "calibration_images", "target", "gate_images", "max_drop", "recipe", "float_layers",
)  # fmt: skip
"""What ``typing_options`` call their values, which are the fields of ``exporter.precision.spec.PrecisionSpec``."""

CALIBRATED = ("calibration", "calibration_images", "target", "recipe", "float_layers")
"""Of these, the ones that have an effect in int8 alone."""

GATED = ("gate_images", "max_drop")
"""And those that have an effect where a precision is judged by a gate."""


def opset_option(command: Command) -> Command:
    """The version of the ONNX standard."""
    return PRECISION.option(
        "--opset", type=click.IntRange(1), metavar="N", show_default="20; 22 for bf16", help="ONNX opset version."
    )(command)


def given_options(context: click.Context, names: Collection[str]) -> list[str]:
    """Which of the command's options with these parameters' names stand on the command line, by their flags."""
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def announce_unused(context: click.Context, precision: str, notify: Notify) -> None:
    """Says which of the options on the command line have no effect in that precision."""
    row = PRECISIONS[precision]
    if context.params["expect_top1"] is None:
        announce_idle(context, "without --expect-top1", ("tolerance",), notify)
    announce_idle(
        context,
        f"in {precision}",
        (*(() if row.calibrated else CALIBRATED), *(GATED if row.bounds is None else ())),
        notify,
    )


def announce_idle(context: click.Context, where: str, names: Collection[str], notify: Notify) -> None:
    """Says which of these options stand on the command line, as they have no effect there; ``where`` in words."""
    given = given_options(context, names)
    if given:
        notify(Reason("options-without-effect", f"no effect {where}: {', '.join(given)}"))


def backend_options(command: Command) -> Command:
    """The options that choose what opens an artifact."""
    return stack_options(
        backend_option(
            "backend",
            default="the one it was tuned for, else the first that runs it",
            help="Backend that runs the model: onnxruntime (ort), openvino (ov), tensorrt (trt), pytorch, ...",
        ),
        RUNTIME.option(
            "--device",
            type=NameChoice(("cpu", "cuda")),
            show_default="the one it was tuned for, else cpu where it runs there",
            help="Device that runs the model.",
        ),
        RUNTIME.option(
            "--threads",
            type=click.IntRange(1),
            metavar="N",
            show_default="all usable processors",
            help="Number of CPU threads.",
        ),
    )(command)


def require_device(device: str | None) -> None:
    """Raises BackendUnavailableError where a GPU is asked for and there is none, before anything heavy is imported."""
    if device != "cuda":
        return
    from runtimes.tensors import cuda

    missing = cuda.missing()
    if missing is not None and missing.code != "cuda-bindings-missing":  # without these, PyTorch may still have a GPU
        raise BackendUnavailableError(
            f"--device cuda: {missing}", code="device-missing", hint="--device cpu runs it on the processor"
        )
