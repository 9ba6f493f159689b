"""The options of ``rexport`` that several of its commands share, and what they come to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from exporter.commands.backend_option import backend_option
from exporter.commands.checkpoint_options import (
    SELECTED,
    is_path,
    require_checkpoint,
    selection_of,
    selection_options,
)
from exporter.commands.command import (
    DATA,
    MODEL,
    OUTPUT,
    PRECISION,
    RUNTIME,
    NameChoice,
    stack_options,
)
from exporter.commands.preprocessing_options import preprocessing_of, preprocessing_options
from exporter.commands.terminal import debug_option
from exporter.commands.values import (
    COUNT,
    DATASET,
    DEVICE_OR_AUTO,
    SEED,
    VARIANT,
    VARIANT_OR_FILE,
    WEIGHTS,
    BatchSize,
    FiniteFloat,
    Names,
    OutputPath,
    Size,
)
from exporter.models.outputs import DEFAULT_OUTPUTS, OUTPUTS, needs_classifier
from exporter.precision.recipes import RECIPES
from exporter.precision.table import (
    CALIBRATION_IMAGES,
    GATE_IMAGES,
    INT8_BOUNDS,
    PRECISIONS,
    TARGETS,
    TOLERANCE_PP,
)
from runtimes.devices import AUTO, CPU, parse_device
from runtimes.errors import BackendUnavailableError, Reason, UsageError, quote
from runtimes.escaping import shell_word
from runtimes.tensors.activation import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from exporter.export_request import ExportListener, ExportRequest
    from exporter.models.variants import Variant
    from exporter.weights.matching import Notify

    Command = TypeVar("Command", bound=Callable[..., Any])


def variant_options(command: Command) -> Command:
    """The options that change a variant's row."""
    return stack_options(
        MODEL.option(
            "--num-classes",
            type=COUNT,
            metavar="N",
            show_default="the variant's",
            help="Number of outputs of the classifier.",
        ),
        MODEL.option(
            "--in-channels",
            type=COUNT,
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


def network_options(command: Command) -> Command:
    """The options that say what network is exported, and on what it is checked."""
    return stack_options(
        MODEL.option(
            "--weights",
            type=WEIGHTS,
            default="random",
            metavar="NAME|FILE",
            help="Weights of a VARIANT: random (untrained), bundled (resnet20 trained on Fashion-MNIST), imagenet "
            "(torchvision's), or a CHECKPOINT. For MODULE:FACTORY, a CHECKPOINT that fits exactly; without it, the "
            "module's own weights are taken.",
        ),
        selection_options,
        MODEL.option("--seed", type=SEED, default=0, metavar="N", help="Seed of random weights and of noise images."),
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
        MODEL.option(
            "--output",
            "outputs",
            type=Names(OUTPUTS),
            multiple=True,
            metavar="NAME,...",
            show_default="logits",
            help="Outputs of the graph: logits; features, the pooled input of the classifier; stages, the map after "
            "each stage; cam, a heat map for each class. The option can be repeated.",
        ),
        DATA.option(
            "--data",
            type=DATASET,
            metavar="NAME|DIR",
            show_default="fashion-mnist for bundled weights, else noise",
            help="Labelled images for the checks: fashion-mnist, cifar10:PATH, or a folder with one folder a class.",
        ),
        labels_option("those of the weights, else none"),
        activation_option("found from the outputs"),
        DATA.option(
            "--expect-top1",
            type=FiniteFloat(0, 100),
            metavar="PERCENT",
            show_default="no check",
            help="Top-1 accuracy on --data that was measured in training, as 67.6. The export fails if the file has "
            "another one.",
        ),
        DATA.option(
            "--tolerance",
            type=FiniteFloat(0, 100),
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


def activation_option(default: str) -> Callable[[Command], Command]:
    """The option that says how outputs become probabilities."""
    return DATA.option(
        "--activation",
        type=NameChoice(ACTIVATIONS),
        show_default=default,
        help="Step from the output to probabilities: softmax over the classes; sigmoid for each class alone, as for "
        "one output or several labels an image; or none for a network that ends in probabilities.",
    )


def network_argument(command: Command) -> Command:
    """The network, by its name, by the file of its weights, or by the code that builds it."""
    return click.argument(
        "network",
        type=VARIANT_OR_FILE,
        metavar="VARIANT|CHECKPOINT|MODULE:FACTORY",
        help="Network, for example resnet50; a .pt, .pth, .ckpt or .safetensors file, whose network is recognised; or "
        "your own code, for example nets:build, which is imported and run.",
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
        type=OutputPath(),
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
        hint = f"rexport inspect {shell_word(variant)} tells what it is, rexport list shows the variants"
        raise UsageError(f"{quote(variant)} is a file, and a variant was expected", code="variant-is-file", hint=hint)
    return variants.customise(variants.variant(variant), **_variant_fields(options))


def _variant_fields(options: dict[str, Any]) -> dict[str, Any]:
    """The values of ``variant_options``, and the side of resized images, by the arguments of ``customise``."""
    names = ("in_channels", "size", "stride", "shortcut")
    changed = {name: options[name] for name in names}
    return {"classes": options["num_classes"], "resized": options.get("resized")} | changed


def request_of(network: str, options: dict[str, Any], listener: ExportListener) -> ExportRequest:
    """The request that the values of ``export_options`` come to. A checkpoint is read and the user's code is
    run here. Without ``--size``, the input has the size of the images after preprocessing, if that is chosen; or of
    ``--resize`` alone, if that is smaller than the usual size.

    Raises:
        UsageError: as ``customise_variant``; or weights or a part of a checkpoint are named where there are none.
        RexportError: as ``preprocessing_of``, ``ExpectedAccuracy.from_percent``,
            ``exporter.weights.recognition.from_checkpoint`` and ``exporter.weights.modules.from_factory``.
    """
    from exporter.export_request import ExpectedAccuracy, ExportRequest
    from exporter.models import factory
    from exporter.weights.checkpoint import stem
    from exporter.weights.modules import FactoryRequest, from_factory
    from exporter.weights.recognition import VariantOptions, from_checkpoint
    from exporter.weights.sources import ORIGINS, PREPARED

    preprocessing = preprocessing_of(options, options["size"])
    options = options | {
        "size": options["size"] or preprocessing.input_size(),
        "resized": None if options["weights"].lower() in PREPARED else preprocessing.resized_side(),
    }
    same = ("out", "seed", "batch", "labels", "data", "force", "activation")
    given = {name: options[name] for name in same} | {"raw": options["input"] == "raw", "preprocessing": preprocessing}
    given["expected"] = ExpectedAccuracy.from_percent(options["expect_top1"], options["tolerance"])
    given["outputs"] = outputs = tuple(name for names in options["outputs"] for name in names) or DEFAULT_OUTPUTS
    fields = VariantOptions(**_variant_fields(options))
    selection = replace(selection_of(options), headless=not needs_classifier(outputs))
    context = click.get_current_context()
    if factory.is_factory(network):
        file = options["weights"] if given_options(context, ("weights",)) else None
        if file is None:
            require_checkpoint(options["expect_sha256"], "the module's own weights")
            announce_idle(context, "without a checkpoint", SELECTED, listener.notice)
        listener.step("building the module")
        built = from_factory(FactoryRequest(network, file, selection), fields, options["seed"], listener.notice)
        return ExportRequest(built.network, weights=built.weights, name=factory.stem(network), **given)
    if is_path(network):
        if given_options(context, ("weights",)):
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
        require_checkpoint(options["expect_sha256"], f"--weights {weights}")
        announce_idle(context, "without a checkpoint", SELECTED, listener.notice)
    return ExportRequest(variant, weights=weights, chosen=fields.chosen, selection=selection, **given)


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
            type=FiniteFloat(0, 100),
            metavar="POINTS",
            show_default=f"by precision, {100 * INT8_BOUNDS.drop:g} for int8 and fp8",
            help="Largest loss of top-1 accuracy against fp32 in percentage points, measured on --data.",
        ),
        PRECISION.option(
            "--gate-images",
            type=COUNT,
            default=GATE_IMAGES,
            metavar="N",
            help="Maximum number of images on which a precision below fp32 is compared with fp32.",
        ),
    )(command)


def calibration_options(command: Command) -> Command:
    """What int8 and fp8 are calibrated on."""
    return stack_options(
        PRECISION.option(
            "--calibration",
            type=DATASET,
            metavar="NAME|DIR",
            show_default="the bundled ones where they fit; noise if untrained",
            help="Training images that int8 and fp8 are calibrated on.",
        ),
        PRECISION.option(
            "--calibration-images",
            type=COUNT,
            default=CALIBRATION_IMAGES,
            metavar="N",
            help="Maximum number of images that int8 and fp8 are calibrated on.",
        ),
    )(command)


def recipe_options(command: Command) -> Command:
    """The one way in which int8 or fp8 is made."""
    return stack_options(
        PRECISION.option(
            "--recipe",
            type=NameChoice(tuple(RECIPES)),
            metavar="NAME",
            show_default="the first that passes the gate",
            help=f"Only recipe that int8 or fp8 tries: {', '.join(RECIPES)}. modelopt is for TensorRT.",
        ),
        PRECISION.option(
            "--float-layer",
            "float_layers",
            multiple=True,
            metavar="NAME",
            show_default="none, unless no recipe passes the gate",
            help="Layer that int8 leaves in float32 and fp8 in float16, as layer1.0.conv1/Conv. Repeatable.",
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
            help="Deployment target of int8; TensorRT takes signed integers alone. fp8 is always for TensorRT.",
        ),
        gate_options,
    )(command)


TYPING = (
    "precision", "calibration", "calibration_images", "target", "gate_images", "max_drop", "recipe", "float_layers",
)  # fmt: skip
"""What ``typing_options`` call their values, which are the fields of ``exporter.precision.spec.PrecisionSpec``."""

CALIBRATED = ("calibration", "calibration_images", "target", "recipe", "float_layers")
"""Of these, the ones that have an effect in calibrated precisions alone."""

GATED = ("gate_images", "max_drop")
"""And those that have an effect where a precision is judged by a gate."""


def opset_option(command: Command) -> Command:
    """The version of the ONNX standard."""
    return PRECISION.option(
        "--opset", type=COUNT, metavar="N", show_default="20; 22 for bf16", help="ONNX opset version."
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
        (
            *(() if row.calibrated else CALIBRATED),
            *(() if row.target is None else ("target",)),
            *(GATED if row.bounds is None else ()),
        ),
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
            type=DEVICE_OR_AUTO,
            metavar="NAME",
            show_default="the one it was tuned for, else cpu where it runs there",
            help="Device that runs the model: cpu, cuda for the first GPU, cuda:N for another one, or auto for the "
            "first GPU, else the CPU.",
        ),
        RUNTIME.option(
            "--threads",
            type=COUNT,
            metavar="N",
            show_default="all usable processors",
            help="Number of CPU threads.",
        ),
    )(command)


def require_device(device: str | None) -> None:
    """Raises BackendUnavailableError where a GPU is asked for that is not there, before anything heavy is imported."""
    named = [parse_device(name) for name in (device or CPU).split(",") if name != AUTO]
    if all(each.kind == CPU for each in named):
        return
    from runtimes.tensors.presence import find_missing

    for each in named:
        missing = find_missing(each)
        if missing is not None:
            raise BackendUnavailableError(
                f"--device {each}: {missing}", code="device-missing", hint="--device cpu runs it on the processor"
            )
