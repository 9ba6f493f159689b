"""Labels for image files, where one bad file does not spoil the others."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

import runtimes
from exporter.data.class_folders import SUFFIXES
from exporter.data.labels_file import read_labels
from exporter.export_request import ExportListener
from exporter.inspect.overlay import draw, picture_paths, write_picture
from exporter.preprocessing.description import describe_resize, describe_transform
from exporter.preprocessing.options import (
    NOTHING_CHOSEN,
    WHOLE_IMAGE,
    PreprocessingOptions,
    assume_preprocessing,
    check_statistics,
)
from exporter.weights.sources import IMAGENET_PREPROCESSING
from runtimes import Artifact, Classifier, Label, Preprocessing, Runtime, codec, notices
from runtimes.artifacts.embedded import read_embedded, unverified
from runtimes.errors import DeviceLostError, InputError, Reason, ResourceError, UsageError, quote
from runtimes.escaping import csv_cell, printable
from runtimes.folders import folder_to_fill
from runtimes.images.left_out import LeftOutFiles
from runtimes.images.preprocessing import decode
from runtimes.network_io import check_image_channels
from runtimes.tensors.activation import Activation

STDIN = "-"
"""In place of a path: the paths on standard input."""

BATCH = 32
"""Images that are decoded side by side and go through the network at once."""

COLUMNS = ("path", "rank", "label", "index", "probability", "error")
"""Of the CSV table: a row for each label, best first, and one for each image without labels."""


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict with.

    Attributes:
        path: the model file.
        top: labels for each image.
        backend, device, threads: as ``runtimes.open`` takes them.
        labels: a text file with one class a line, in place of the manifest's.
        preprocessing: in place of the manifest's; a model that no manifest and no metadata describes needs mean and
            std, or a file.
        cam: the file or folder for pictures of heat maps, or ``None``.
        force: whether existing pictures are replaced.
        activation: the step from outputs to probabilities, in place of the manifest's.
    """

    path: Path
    top: int = 1
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    labels: Path | None = None
    preprocessing: PreprocessingOptions = NOTHING_CHOSEN
    cam: str | None = None
    force: bool = False
    activation: Activation | None = None


@dataclass(frozen=True)
class ImagePrediction:
    """One image's labels, best first, or the reason why there are none; and the picture of its heat map."""

    path: str
    labels: tuple[Label, ...]
    error: Reason | None
    cam: str | None = None


def find_images(arguments: Sequence[str], stdin: BinaryIO) -> list[Path]:
    """The images that the arguments name, in their order: files as they are, the images in folders and below them
    sorted by path, and for ``-`` what the lines on standard input name; NUL may separate them as well.

    Hidden files and folders are passed over, and links to folders are not followed.

    Raises:
        UsageError: a folder has no images, standard input names nothing, or ``-`` comes twice.
        ResourceError: a folder cannot be read.
    """
    if list(arguments).count(STDIN) > 1:
        raise UsageError("- stands for standard input, which is read once", code="stdin-twice", hint="give - once")
    words = [word for argument in arguments for word in (_read_list(stdin) if argument == STDIN else [argument])]
    return [image for word in words for image in (_walk(Path(word)) if Path(word).is_dir() else [Path(word)])]


def _read_list(stdin: BinaryIO) -> list[str]:
    content = stdin.read()
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    words = [os.fsdecode(line) for line in lines if line.strip()]
    if not words:
        raise UsageError(
            "standard input names no images",
            code="stdin-empty",
            hint="find . -name '*.jpg' | rexport predict MODEL -",
        )
    return words


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise ResourceError.from_os(error, error.filename or folder, "read") from error

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    images = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    left_out = LeftOutFiles(path.name for path in found)
    if not images:
        raise UsageError(
            f"the folder {quote(folder)} has no images",
            code="folder-without-images",
            hint=f"looked for {' '.join(sorted(SUFFIXES))} among its {len(found):,} files"
            + (f": {left_out.counts()}" if found else ""),
        )
    notice = left_out.notice(folder)
    if notice is not None:
        notices.warn(notice)
    return images


def predict(
    request: PredictionRequest, images: Sequence[Path], listener: ExportListener
) -> tuple[ImagePrediction, ...]:
    """One answer an image, in their order. A folder for pictures is created, unless there are none.

    Raises:
        UsageError: neither a manifest nor the file itself describes the model, and mean and std are not given.
        RexportError: the model cannot be opened, or the labels not be read.
    """
    pictures = [] if request.cam is None else picture_paths(request.cam, images, request.force)
    listener.step("opening the model")
    folder = folder_to_fill(pictures[0].parent) if pictures else nullcontext()
    with folder, open_classifier(request, listener) as classifier:
        answers: list[ImagePrediction] = []
        for start in range(0, len(images), BATCH):
            listener.step(f"{start:,} of {len(images):,} images")
            batch = _predict_batch(classifier, images[start : start + BATCH], request.top)
            if pictures:
                batch = map(
                    _draw_heat_map, repeat(classifier), batch, pictures[start : start + BATCH], repeat(request.force)
                )
            answers += batch
        return tuple(answers)


def _draw_heat_map(
    classifier: Classifier, answer: ImagePrediction, path: Path, replace_existing: bool
) -> ImagePrediction:
    """The answer with the picture of its best class; without a picture if the image could not be read."""
    if answer.error is not None:
        return answer
    best = answer.labels[0]
    pixels = decode(answer.path, classifier.preprocessing.channels)
    heat = classifier.explain(answer.path if classifier.preprocessing.scaled_decoding else pixels, best.index)
    write_picture(path, draw(pixels, heat, f"{best.name}  {100 * best.probability:.1f} %"), replace_existing)
    return replace(answer, cam=str(path))


def _predict_batch(classifier: Classifier, images: Sequence[Path], top: int) -> Iterator[ImagePrediction]:
    try:
        predictions = classifier.predict(images, top)
    except DeviceLostError:
        raise
    except (InputError, ResourceError) as error:
        if len(images) == 1:
            yield ImagePrediction(str(images[0]), (), Reason(error.code, str(error)))
            return
        for image in images:
            yield from _predict_batch(classifier, [image], top)
        return
    for image, prediction in zip(images, predictions, strict=True):
        yield ImagePrediction(str(image), prediction.labels, None)


IN_GRAPH = ("mean", "std", "scale", "channel_order")
"""The steps of the preprocessing that an artifact of raw pixels does itself."""


def open_classifier(request: PredictionRequest, listener: ExportListener) -> Classifier:
    """The opened model with its labels and its preprocessing, which the caller closes. Of a model without a manifest,
    a notice says what is assumed.

    Raises:
        UsageError: as ``predict``.
        RexportError: as ``predict``.
    """
    artifact = Artifact.read(request.path)
    source = artifact.manifest or read_embedded(artifact)
    known, names = (None, None) if source is None else (source.preprocessing, source.labels)
    if artifact.manifest is None and source is not None:
        listener.notice(unverified(artifact))
    channels = len(request.preprocessing.mean or ()) or None if source is None else source.channels
    check_image_channels(channels, request.path)
    _check_preprocessing(request, known, source is not None)
    runtime = runtimes.open(request.path, request.backend, request.device, request.threads)
    try:
        if request.labels is not None:
            names = read_labels(request.labels, _class_count(runtime), listener.notice)
        activation = request.activation or (None if source is None else source.activation)
        preprocessing = _choose_preprocessing(request, known, runtime, listener)
        return Classifier(runtime, preprocessing, names, activation=activation)
    except BaseException:
        runtime.close()
        raise


def _check_preprocessing(request: PredictionRequest, known: Preprocessing | None, described: bool) -> None:
    """Raises UsageError where mean and standard deviation are not known, or not both given."""
    options = request.preprocessing
    check_statistics(options, known)
    if options.mean is not None or options.base is not None or known is not None:
        return
    imagenet = IMAGENET_PREPROCESSING
    if described:
        raise UsageError(
            "the artifact records no preprocessing, so how its images are normalised is unknown",
            code="artifact-lacks-preprocessing",
            path=request.path,
            hint="give --mean and --std, or export again with them; of pixels from 0 to 1 in one channel they are "
            "--mean 0 --std 1",
        )
    raise UsageError(
        "no manifest says how its images are normalised",
        code="statistics-unknown",
        path=request.path,
        hint=f"copy {quote(request.path.name)}.json here too, or give --mean and --std; ImageNet's are "
        f"--mean {_numbers(imagenet.mean)} --std {_numbers(imagenet.std)}",
    )


def _choose_preprocessing(
    request: PredictionRequest, known: Preprocessing | None, runtime: Runtime, listener: ExportListener
) -> Preprocessing:
    """What was asked for, else what the manifest says, else what is assumed, which a notice tells.

    Raises:
        UsageError: fields contradict each other, or the graph does itself what was asked for.
    """
    options = request.preprocessing
    given = [name for name in options.given() if name in IN_GRAPH]
    if given and known is not None and runtime.inputs[0].dtype == "uint8":
        raise UsageError(
            f"the graph of this model normalises its pixels, so it takes no {' or '.join(given)}",
            code="normalisation-in-graph",
            path=request.path,
            hint="export the model again with these options",
        )
    base = options.base or known
    if options.source is not None and options.base is not None:
        listener.notice(describe_transform(options.source, options.base))
    channels = len(options.mean or (IMAGENET_PREPROCESSING.mean if base is None else base.mean))
    size = _input_size(runtime, channels)
    if base is not None:
        return options.apply(base, size)
    assumed = assume_preprocessing(size, min(size) <= WHOLE_IMAGE)
    chosen = options.apply(replace(assumed, mean=options.mean or (), std=options.std or ()), size)
    listener.notice(_assumption(request, chosen))
    return chosen


def _class_count(runtime: Runtime) -> int | None:
    """How many classes the network has, if its output says so."""
    shape = next((spec for spec in runtime.outputs if spec.name == "logits"), runtime.outputs[0]).shape
    return shape[-1] if isinstance(shape[-1], int) else None


def _assumption(request: PredictionRequest, chosen: Preprocessing) -> Reason:
    """What is assumed about the images of a network of which nothing is known but its input."""
    colours = {1: "grey", 3: chosen.channel_order}.get(chosen.channels, f"{chosen.channels}-channel")
    classes = "classes by number" if request.labels is None else f"classes of {quote(request.labels.name)}"
    resize = f"{describe_resize(chosen.resize)}, " if "resize" in chosen.assumed and chosen.resize is not None else ""
    return Reason(
        "preprocessing-assumed",
        f"{quote(request.path.name)}: no preprocessing recorded; assumed: {colours} images, {resize}middle "
        f"{chosen.crop[0]} x {chosen.crop[1]}, {classes}",
    )


def _input_size(runtime: Runtime, channels: int) -> tuple[int, int]:
    """Height and width that the network's images have; ImageNet's where any are taken."""
    shape = runtime.inputs[0].shape
    height, width = shape[1:3] if len(shape) == 4 and shape[3] == channels else (*shape[2:4], None, None)[:2]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else IMAGENET_PREPROCESSING.size


def _numbers(values: Iterable[float]) -> str:
    return ",".join(map(str, values))


def as_json(answers: Sequence[ImagePrediction]) -> str:
    """A JSON list, an object for each image: path, predictions, and in place of these an error with its code."""
    rows = [
        {
            "path": answer.path,
            "predictions": [
                {"label": label.name, "index": label.index, "probability": label.probability} for label in answer.labels
            ],
            "error": answer.error and answer.error.sentence,
            "error_code": answer.error and answer.error.code,
        }
        | ({} if answer.cam is None else {"cam": answer.cam})
        for answer in answers
    ]
    return codec.dumps(rows, indent=2)


def as_csv(answers: Sequence[ImagePrediction]) -> str:
    """The table with its header: a line for each row, in which no text is a formula for a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for answer in answers:
        for rank, label in enumerate(answer.labels, 1):
            cells = (answer.path, rank, label.name, label.index, f"{label.probability:.6g}", "")
            writer.writerow(map(csv_cell, cells))
        if answer.error is not None:
            writer.writerow(map(csv_cell, (answer.path, "", "", "", "", answer.error.sentence)))
    return buffer.getvalue()


def as_text(answers: Sequence[ImagePrediction]) -> str:
    """``path: label 97.1 %, label 2.0 %`` for each image that could be read."""
    return "\n".join(
        f"{printable(answer.path)}: "
        + ", ".join(f"{quote(label.name)} {100 * label.probability:.1f} %" for label in answer.labels)
        for answer in answers
        if answer.error is None
    )
