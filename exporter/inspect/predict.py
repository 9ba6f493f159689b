"""Labels for image files, where one bad file does not spoil the others."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import runtimes
from exporter.data.class_folders import SUFFIXES
from exporter.network import ExportListener, read_labels
from exporter.weights.sources import IMAGENET_PREPROCESSING, scale_preprocessing
from runtimes import Artifact, Classifier, Label, Preprocessing, Runtime, codec
from runtimes.artifacts.embedded import read_embedded
from runtimes.errors import DeviceLostError, InputError, Reason, ResourceError, UsageError, quote

STDIN = "-"
"""In place of a path: the paths on standard input."""

BATCH = 32
"""Images that are decoded side by side and go through the network at once."""

WHOLE_IMAGE = 64
"""Up to this many pixels of height or width, a network without a manifest is taken for one that sees the whole image,
as those of CIFAR-10 do; a larger one for one that sees the middle, as those of ImageNet do."""

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
        mean, std: in place of the manifest's, given together; a model that no manifest and no metadata describes
            needs them.
    """

    path: Path
    top: int = 1
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    labels: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ImagePrediction:
    """One image's labels, best first, or the reason why there are none."""

    path: str
    labels: tuple[Label, ...]
    error: Reason | None


def find_images(arguments: Sequence[str], stdin: BinaryIO) -> list[Path]:
    """The images that the arguments name, in their order: files as they are, the images in folders and below them
    sorted by path, and for ``-`` what the lines on standard input name; NUL may separate them as well.

    Hidden files and folders are passed over, and links to folders are not followed.

    Raises:
        UsageError: a folder has no images, or standard input names nothing.
        ResourceError: a folder cannot be read.
    """
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
    if not images:
        raise UsageError(
            f"the folder {quote(folder)} has no images",
            code="folder-without-images",
            hint=f"looked for {' '.join(sorted(SUFFIXES))} among its {len(found):,} files",
        )
    return images


def predict(
    request: PredictionRequest, images: Sequence[Path], listener: ExportListener
) -> tuple[ImagePrediction, ...]:
    """One answer an image, in their order.

    Raises:
        UsageError: neither a manifest nor the file itself describes the model, and mean and std are not given.
        RexportError: the model cannot be opened, or the labels not be read.
    """
    listener.step("opening the model")
    with _open_classifier(request, listener) as classifier:
        answers: list[ImagePrediction] = []
        for start in range(0, len(images), BATCH):
            listener.step(f"{start:,} of {len(images):,} images")
            answers += _predict_batch(classifier, images[start : start + BATCH], request.top)
        return tuple(answers)


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


def _open_classifier(request: PredictionRequest, listener: ExportListener) -> Classifier:
    artifact = Artifact.read(request.path)
    source = artifact.manifest or read_embedded(artifact)
    known, names = (None, None) if source is None else (source.preprocessing, source.labels)
    if artifact.manifest is None and source is not None:
        listener.notice(
            Reason(
                "manifest-missing",
                f"{quote(request.path.name)}: no manifest; labels and preprocessing are what the file says about "
                "itself, unverified",
            )
        )
    mean, std = _statistics(request, known)
    runtime = runtimes.open(request.path, request.backend, request.device, request.threads)
    try:
        if request.labels is not None:
            names = read_labels(request.labels, _class_count(runtime), listener)
        fitting = _assume_fitting(request, runtime, len(mean), listener) if known is None else known
        return Classifier(runtime, replace(fitting, mean=mean, std=std), names)
    except BaseException:
        runtime.close()
        raise


def _statistics(request: PredictionRequest, known: Preprocessing | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that are asked for, else those of the manifest.

    Raises:
        UsageError: there are none, or one of them.
    """
    if request.mean is not None and request.std is not None:
        return request.mean, request.std
    if request.mean is not None or request.std is not None:
        raise UsageError("--mean and --std go together", code="statistics-incomplete")
    if known is not None:
        return known.mean, known.std
    imagenet = IMAGENET_PREPROCESSING
    raise UsageError(
        "no manifest says how its images are normalised",
        code="statistics-unknown",
        path=request.path,
        hint=f"copy {quote(request.path.name)}.json here too, or give --mean and --std; ImageNet's are "
        f"--mean {_numbers(imagenet.mean)} --std {_numbers(imagenet.std)}",
    )


def _class_count(runtime: Runtime) -> int | None:
    """How many classes the network has, if its output says so."""
    shape = next((spec for spec in runtime.outputs if spec.name == "logits"), runtime.outputs[0]).shape
    return shape[-1] if isinstance(shape[-1], int) else None


def _assume_fitting(
    request: PredictionRequest, runtime: Runtime, channels: int, listener: ExportListener
) -> Preprocessing:
    """How images are fitted to a network of which nothing is known but its input; a notice tells."""
    size = _input_size(runtime, channels)
    assumed = scale_preprocessing(IMAGENET_PREPROCESSING, size)
    if min(size) <= WHOLE_IMAGE:
        assumed = replace(assumed, resize=min(size))
    colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
    classes = "classes by number" if request.labels is None else f"classes of {quote(request.labels.name)}"
    listener.notice(
        Reason(
            "preprocessing-assumed",
            f"{quote(request.path.name)}: no manifest; assumed: {colours} images, shorter side resized to "
            f"{assumed.resize}, middle {size[0]} x {size[1]}, {classes}",
        )
    )
    return assumed


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
        for answer in answers
    ]
    return codec.dumps(rows, indent=2)


def as_csv(answers: Sequence[ImagePrediction]) -> str:
    """The table with its header; a name with a comma, a quote or a line's end is quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for answer in answers:
        for rank, label in enumerate(answer.labels, 1):
            writer.writerow([answer.path, rank, label.name, label.index, f"{label.probability:.6g}", ""])
        if answer.error is not None:
            writer.writerow([answer.path, "", "", "", "", answer.error.sentence])
    return buffer.getvalue()


def as_text(answers: Sequence[ImagePrediction]) -> str:
    """``path: label 97.1 %, label 2.0 %`` for each image that could be read."""
    return "\n".join(
        f"{answer.path}: " + ", ".join(f"{label.name} {100 * label.probability:.1f} %" for label in answer.labels)
        for answer in answers
        if answer.error is None
    )
