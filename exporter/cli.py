"""``rexport``: a ResNet's name in, an artifact out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from exporter.commands import engine_options as engineoptions
from exporter.commands import streams, terminal
from exporter.commands.checkpoint_options import SELECTED, require_checkpoint, selection_of, selection_options
from exporter.commands.command import DATA, MEASURING, MODEL, OUTPUT, Group, NameChoice, stack_options
from exporter.commands.completion import completion_command
from exporter.commands.engine_options import engine_options
from exporter.commands.label import label_command
from exporter.commands.layer_files import export_layer_files
from exporter.commands.manifests import manifests_group
from exporter.commands.options import (
    TYPING,
    activation_option,
    announce_idle,
    announce_unused,
    artifact_argument,
    backend_options,
    calibration_options,
    customise_variant,
    export_options,
    force_option,
    gate_options,
    labels_option,
    network_options,
    opset_option,
    precision_option,
    recipe_options,
    request_of,
    require_device,
    typing_options,
    variant_argument,
    variant_options,
)
from exporter.commands.preprocessing_options import preprocessing_of, preprocessing_options
from exporter.commands.refit import refit
from exporter.commands.serve import serve
from exporter.commands.server_options import server_options, verify_served
from exporter.commands.terminal import debug_option, json_option
from exporter.commands.triton import triton
from exporter.commands.values import COUNT, DATASET, VARIANT_OR_FILE, OutputFile
from exporter.commands.web import web_command

EXPORT, USE, DEPLOY, LOOK_UP = "Export", "Use and check", "Deploy", "Look up"
"""Under which headings the commands stand."""


@click.group(
    "rexport",
    cls=Group,
    examples=(
        "rexport onnx resnet20 --weights bundled",
        "rexport predict resnet20.onnx photo.jpg",
    ),
)
@click.version_option(package_name="rexport", prog_name="rexport", help="Show the version and exit.")
def cli() -> None:
    """Export residual networks to files that run without PyTorch."""


@cli.command(
    heading=EXPORT,
    examples=(
        "rexport onnx resnet20 --weights bundled --precision int8 -o models/",
        "rexport onnx best.pth --labels names.txt --size 64",
    ),
)
@export_options
@typing_options
@opset_option
def onnx(network: str, opset: int | None, **options: Any) -> None:
    """Export a network to an ONNX file and print its path.

    Of a CHECKPOINT, the layout of its names and the network are recognised; what is assumed is printed. MODULE:FACTORY
    runs your code, from the current folder or the Python path, and exports any module that classifies images.

    The file is checked against PyTorch before it is written. A precision below fp32 must also pass a gate on real
    images, if there are any: error of the logits, agreement with fp32, and change in top-1 accuracy. If int8 fails,
    other recipes are tried, then single layers stay in float32. With --expect-top1, the file must have the accuracy
    that was measured in training. A failed check leaves no file.
    """
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.precision.spec import PrecisionSpec
        from exporter.targets import onnx_file

        request = request_of(network, options, listener)
        announce_unused(click.get_current_context(), options["precision"], listener.notice)
        precision_spec = PrecisionSpec(**{name: options[name] for name in TYPING})
        artifact = onnx_file.export(request, listener, opset, precision_spec)
    streams.print_path(artifact.path)


@cli.command(
    heading=EXPORT,
    examples=(
        "rexport torch resnet20 --weights bundled -o models/",
        "rexport torch resnet50 --weights imagenet --precision bf16",
    ),
)
@export_options
@precision_option
@gate_options
def torch(network: str, precision: str, gate_images: int, max_drop: float | None, **options: Any) -> None:
    """Export a network to a PyTorch program and print its path.

    The program is a .pt2 file, which torch.export.load reads. The file is checked against PyTorch before it is written.
    In fp32 and tf32 the batch-norms stay as they are; int8 is for ONNX files.
    """
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.precision.spec import PrecisionSpec
        from exporter.targets import torch_program

        request = request_of(network, options, listener)
        announce_unused(click.get_current_context(), precision, listener.notice)
        typed = PrecisionSpec(precision, gate_images=gate_images, max_drop=max_drop)
        artifact = torch_program.export(request, listener, typed)
    streams.print_path(artifact.path)


@cli.command(
    heading=EXPORT,
    examples=(
        "rexport tensorrt resnet20.onnx --max-batch 128",
        "rexport tensorrt resnet20 --weights bundled --precision fp16 -o engines/",
    ),
)
@click.argument(
    "source",
    metavar="ARTIFACT.onnx|VARIANT|CHECKPOINT|MODULE:FACTORY",
    type=VARIANT_OR_FILE,
    help="ONNX file that rexport wrote; or the network, checkpoint or code that is exported to one first.",
)
@engine_options
@network_options
@precision_option
@calibration_options
@recipe_options
@gate_options
@opset_option
@debug_option
def tensorrt(source: str, opset: int | None, **options: Any) -> None:
    """Build a TensorRT engine and print its path.

    A network is first exported to an ONNX file beside the engine. The options under Model, Precision, Data and
    Preprocessing are for this export; an ONNX file has its network and precision already.

    With a GPU, the engine is checked against PyTorch before it is written. TensorRT-RTX also builds without a GPU: such
    an engine carries its test vectors and is checked when it is opened.
    """
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.targets import tensorrt_engine

        context = click.get_current_context()
        order = engineoptions.order(options)
        if engineoptions.is_artifact(source):
            engineoptions.refuse_network_options(context)
            artifact = tensorrt_engine.build_artifact(Path(source), order, listener)
        else:
            engineoptions.check_batch(options)
            request = request_of(source, {**options, "out": options["out"] or "./"}, listener)
            announce_unused(context, options["precision"], listener.notice)
            artifact = tensorrt_engine.export(request, order, listener, opset, engineoptions.precision_spec(options))
    streams.print_path(artifact.path)


cli.add_command(refit)


@cli.command(
    heading=USE,
    examples=(
        "rexport predict resnet20.onnx photos/ --top 3 --cam maps/",
        "rexport predict model.onnx photo.jpg --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5",
    ),
)
@click.argument(
    "model",
    type=click.Path(path_type=Path),
    help="Model file that rexport wrote; or another one, with --mean and --std.",
)
@click.argument(
    "images",
    metavar="PATH|DIR|-...",
    nargs=-1,
    required=True,
    type=click.Path(),
    help="Image files, folders with images, or - for a list of paths on standard input.",
)
@stack_options(
    labels_option("those of the model"),
    activation_option("that of the model"),
    preprocessing_options("that of the model"),
)
@backend_options
@OUTPUT.option("--top", type=COUNT, default=1, metavar="N", help="Number of labels for each image, best first.")
@OUTPUT.option(
    "--cam",
    type=click.Path(),
    metavar="FILE|DIR/",
    show_default="none",
    help="Picture of the heat map of the best label: a file for one image, a folder for several. The model needs the "
    "output cam.",
)
@force_option
@OUTPUT.option("--csv", "as_csv", is_flag=True, help="Print a CSV table with a header.")
@json_option
@debug_option
def predict(model: Path, images: tuple[str, ...], as_csv: bool, as_json: bool, **options: Any) -> None:
    """Classify images and print their labels.

    Folders are searched for images in the order of their paths; hidden files are skipped. An unreadable image is
    reported, the others are answered, and the exit code is 1.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    require_device(options["device"])
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.inspect import predict as prediction

        files = prediction.find_images(images, sys.stdin.buffer)
        if options["cam"] is None:
            announce_idle(click.get_current_context(), "without --cam", ("force",), listener.notice)
        same = ("top", "backend", "device", "threads", "labels", "cam", "force", "activation")
        request = prediction.PredictionRequest(
            model, preprocessing=preprocessing_of(options), **{name: options[name] for name in same}
        )
        answers = prediction.predict(request, files, listener)
    if as_json:
        streams.print_json(prediction.as_json(answers))
    elif as_csv:
        streams.print_result(prediction.as_csv(answers), newline=False)
    else:
        text = prediction.as_text(answers)
        streams.print_result(text, newline=bool(text))
    for answer in answers:
        if answer.error is not None:
            terminal.print_error(answer.error.code, answer.error.sentence)
    if any(answer.error is not None for answer in answers):
        raise SystemExit(1)


@cli.command(
    heading=USE,
    examples=(
        "rexport verify resnet20.onnx --backend openvino --threads 1",
        "rexport verify repository/ --url grpc://127.0.0.1:8001",
    ),
)
@click.argument(
    "artifact",
    metavar="ARTIFACT|DIR",
    type=click.Path(path_type=Path),
    help="Model file that rexport wrote; or, with --url, a model repository of rexport triton.",
)
@backend_options
@server_options
@json_option
@debug_option
def verify(artifact: Path, as_json: bool, **options: Any) -> None:
    """Repeat the parity check of ARTIFACT on a backend, or of what a server serves.

    The test vectors of ARTIFACT hold PyTorch's logits, so that PyTorch itself is not needed.

    With --url, the server answers the test vectors: Triton, or another server of the Open Inference Protocol (V2).
    For a repository, all its models are checked, in the versions that the server offers. If the server reports the
    digest of its file, it must be that of ARTIFACT. A model that takes image files must prepare them as rexport does.
    """
    if options["url"] is not None:
        verify_served(artifact, as_json, options)
        return
    require_device(options["device"])
    if artifact.is_dir():
        raise click.UsageError(f"{artifact} is a folder; --url names the server that serves this repository")
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.inspect import manifest_view

        announce_idle(click.get_current_context(), "without --url", ("model", "timeout"), listener.notice)
        record = manifest_view.verify_parity(artifact, options["backend"], options["device"], options["threads"])
    if as_json:
        streams.print_json(manifest_view.parity_as_json(record))
    else:
        streams.print_result(manifest_view.parity_as_text(artifact, record))


@cli.command(heading=USE, examples=("rexport inspect resnet20.onnx", "rexport inspect best.pth --key ema --json"))
@click.argument(
    "file",
    metavar="ARTIFACT|CHECKPOINT",
    type=click.Path(path_type=Path),
    help="Model file that rexport wrote, or a file with weights.",
)
@selection_options
@OUTPUT.option(
    "--export-layer-info",
    type=OutputFile(),
    metavar="FILE",
    show_default="none",
    help="Also write the layers of an engine, as trtexec --exportLayerInfo does. Needs a GPU.",
)
@OUTPUT.option(
    "--export-profile",
    type=OutputFile(),
    metavar="FILE",
    show_default="none",
    help="Also write the times of the layers of an engine, as trtexec --exportProfile does. Needs a GPU.",
)
@json_option
@debug_option
def inspect(
    file: Path, as_json: bool, export_layer_info: Path | None, export_profile: Path | None, **options: Any
) -> None:
    """Show the network, the origin and the checks of ARTIFACT; or the layout and the network of CHECKPOINT."""
    from exporter.inspect import checkpoint_view, manifest_view
    from exporter.weights.checkpoint import is_weights_file

    with terminal.reserve_stdout(), terminal.listening() as listener:
        if is_weights_file(file):
            unused = ("export_layer_info", "export_profile")
            announce_idle(click.get_current_context(), "on a file with weights", unused, listener.notice)
            found = checkpoint_view.inspect(file, selection_of(options))
            text = checkpoint_view.as_json(found) if as_json else checkpoint_view.as_text(found)
        else:
            require_checkpoint(options["expect_sha256"], "a model file, whose manifest has its own")
            announce_idle(click.get_current_context(), "on a model file", SELECTED, listener.notice)
            export_layer_files(file, export_layer_info, export_profile)
            text = manifest_view.as_json(file) if as_json else manifest_view.as_text(file)
    streams.print_json(text) if as_json else streams.print_result(text)


@cli.command(
    heading=USE,
    examples=(
        "rexport explain resnet20.onnx --backend openvino --data fashion-mnist",
        "rexport explain resnet50.engine --by layer --find-deviation",
    ),
)
@artifact_argument
@MODEL.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    show_default="exported again from the weights of ARTIFACT",
    help="ONNX file of the same network in fp32, which errors are measured against.",
)
@DATA.option(
    "--data",
    type=DATASET,
    metavar="NAME|DIR",
    show_default="the test vectors of ARTIFACT",
    help="Images to measure errors on: fashion-mnist, cifar10:PATH, or a folder with one folder a class.",
)
@DATA.option("--images", type=COUNT, default=32, metavar="N", help="Maximum number of images taken from --data.")
@MEASURING.option(
    "--find-deviation",
    is_flag=True,
    help="Builds more engines, which show the values of blocks, and names the first block where the engine departs "
    "from its ONNX file. Needs a GPU.",
)
@backend_options
@OUTPUT.option(
    "--by", type=NameChoice(("stage", "block", "layer")), default="block", help="Level of detail of the table."
)
@json_option
@debug_option
def explain(
    artifact: Path, backend: str | None, by: Literal["stage", "block", "layer"], as_json: bool, **options: Any
) -> None:
    """Show the time and the error of each block of ARTIFACT.

    The time comes from the profiler of the backend, with the precision that each layer was executed in. The error is
    measured against the same network in fp32. An engine shows its kernels with --by layer; its errors are those of the
    ONNX file that it was built from.
    """
    require_device(options["device"])
    with terminal.reserve_stdout(), terminal.listening() as listener:
        from exporter.explain import explanation
        from exporter.explain.view import explanation_document

        if options["data"] is None:
            announce_idle(click.get_current_context(), "without --data", ("images",), listener.notice)
        found = explanation.explain(explanation.ExplanationRequest(artifact, backend, **options), listener)
        if found.errors is None and found.deviation is None and options["data"] is not None:
            context = click.get_current_context()
            announce_idle(context, "without a comparison with fp32", ("data", "images"), listener.notice)
    if as_json:
        streams.print_json(explanation.as_json(found))
    else:
        streams.print_document(explanation_document(found, by))


for deploy_command in (
    label_command(DEPLOY),
    serve,
    triton,
    manifests_group(DEPLOY),
    web_command(DEPLOY),
):
    cli.add_command(deploy_command)


@cli.command("list", heading=LOOK_UP, examples=("rexport list", "rexport list --json"))
@json_option
@debug_option
def list_variants(as_json: bool) -> None:
    """List the variants, with the paper's figures beside ours."""
    from exporter.document.terminal import as_text
    from exporter.models import listing

    if as_json:
        streams.print_json(listing.all_as_json())
    else:
        streams.print_result(as_text(listing.catalogue_document()), newline=False)


@cli.command(
    heading=LOOK_UP, examples=("rexport info resnet50", "rexport info resnet18 --num-classes 10 --size 64 --json")
)
@variant_argument
@variant_options
@json_option
@debug_option
def info(variant: str, as_json: bool, **options: Any) -> None:
    """Show shapes, parameters and multiply-adds of VARIANT by stage."""
    from exporter.document.terminal import as_text
    from exporter.models import listing

    row = customise_variant(variant, options)
    if as_json:
        streams.print_json(listing.one_as_json(row))
    else:
        streams.print_result(as_text(listing.variant_document(row)), newline=False)


cli.add_command(completion_command("rexport", LOOK_UP))


def main() -> None:
    """The console script."""
    terminal.run(cli, "rexport")


if __name__ == "__main__":
    main()
