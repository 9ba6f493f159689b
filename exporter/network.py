"""A variant with its weights, ready to be exported: what every target format starts from."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data.dataset import BUNDLED_NAME, noise, noise_pixels, open_dataset
from exporter.models.variants import Variant
from exporter.weights.download import Progress, ignore_progress
from exporter.weights.matching import Notify
from exporter.weights.recognition import VariantOptions, from_checkpoint
from exporter.weights.sources import IMAGENET_PREPROCESSING, ORIGINS, LoadedWeights, resolve, scale_preprocessing
from runtimes import files
from runtimes.artifacts.artifact import Vectors
from runtimes.artifacts.manifest import Weights
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, UsageError, quote
from runtimes.images.preprocessing import Preprocessing, normalise
from runtimes.parity import IMAGES
from runtimes.protocol import Array

if TYPE_CHECKING:
    from exporter.models.resnet import ResNet

INPUT, OUTPUT = "input", "logits"
"""What an artifact's input and output are called."""

LABELS_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class ExportListener:
    """Hears what an export does.

    Attributes:
        step: Gets a few words on what begins now.
        notice: Gets a line that the user must see.
        progress: Gets the share of the step that is done, ``None`` where its end is not known, and how far that is in
            words.
    """

    step: Callable[[str], None]
    notice: Notify
    progress: Progress = ignore_progress


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and where to.

    ``weights`` as ``exporter.weights.sources.resolve`` takes it, or those that were loaded already; ``data`` as
    ``exporter.data.dataset.open_dataset`` takes it. ``batch`` is a fixed size, or ``None`` for any. ``labels`` is a
    file with one label a line, or the labels themselves. ``mean`` and ``std`` are given together or not at all;
    ``preprocessing`` says what images go through in place of them.
    ``out`` is a file, or a folder if it exists as one or ends in a slash. ``raw`` puts the normalisation into the
    artifact. ``chosen`` names those fields of the variant that the user chose: ``classes``, ``in_channels`` and
    ``shortcut``; a file of weights decides the others.
    """

    variant: Variant
    out: str
    weights: str | LoadedWeights = "random"
    seed: int = 0
    batch: int | None = None
    labels: Path | tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    data: str | None = None
    force: bool = False
    raw: bool = False
    preprocessing: Preprocessing | None = None
    chosen: frozenset[str] = frozenset()

    def target(self, suffix: str) -> Path:
        """The file to write; raises as ``target_file``."""
        return target_file(self.out, f"{self.variant.name}{suffix}", self.force)


def target_file(out: str, name: str, force: bool) -> Path:
    """The file to write, in a folder that exists and takes files: ``out``, or ``name`` in it if it is a folder or ends
    in a slash. A folder that ends in a slash is made, which the logger ``rexport`` announces; that of a file has to be
    there.

    Raises:
        UsageError: it is there already and ``force`` is off, or a folder is there.
        ResourceError: the folder is missing, or cannot be made or written.
    """
    path = Path(out)
    if out.endswith("/") or path.is_dir():
        path = path / name
    if path.is_dir():
        raise UsageError("a folder is there", code="target-is-folder", path=path, hint="-o names another file")
    if path.exists() and not force:
        raise UsageError(
            "already exists", code="target-exists", path=path, hint="--force replaces it, -o names another file"
        )
    if not out.endswith("/"):
        files.require_folder(path.parent)
    made = not path.parent.exists()
    files.check_writable(path.parent)
    if made:
        reason = Reason("folder-made", f"made the folder {quote(path.parent)}")
        logging.getLogger("rexport").info("%s", reason, extra={"code": reason.code})
    return path


@dataclass(frozen=True)
class Network:
    """A filled network in evaluation mode, and what its artifact's manifest will say of it.

    ``images`` says in words what the test vectors show, ``data`` which labelled images it can be judged on, as
    ``exporter.data.dataset.open_dataset`` takes it. Where it is ``raw``, artifacts take pixels (n, h, w, c) uint8, and
    so do the test vectors; the model itself takes float32 (n, c, h, w) in any case. ``seed`` is that of all noise.
    """

    model: ResNet
    variant: Variant
    weights: Weights
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    dataset: str | None
    vectors: Vectors
    images: str
    data: str | None = None
    raw: bool = False
    seed: int = 0


def prepare(request: ExportRequest, listener: ExportListener) -> Network:
    """Resolves the weights, fills the network and computes its test vectors in fp32 PyTorch.

    Raises:
        RexportError: as ``resolve``; labels, mean, std or data that do not fit the variant.
    """
    from exporter.models.resnet import build

    listener.step("loading the weights")
    request, loaded = _load(request, listener)
    variant = request.variant
    labels = _labels(request, listener)
    _check_statistics(request)
    model = build(variant)
    model.load_state_dict(loaded.state)
    preprocessing = _preprocessing(request, loaded.preprocessing)
    if loaded.record.origin == "file" and preprocessing is not None and request.preprocessing is None:
        listener.notice(_tell_assumed(loaded.record.source, preprocessing, known=request.mean is not None))
    listener.step("computing the test vectors")
    data = request.data or (loaded.dataset if loaded.dataset == BUNDLED_NAME else None)
    inputs, images, classes, name = _inputs(request, data, preprocessing)
    floats = normalise(inputs, preprocessing) if request.raw and preprocessing is not None else inputs
    known = labels or loaded.labels or (classes if classes and len(classes) == variant.classes else None)
    return Network(
        model=model,
        variant=variant,
        weights=loaded.record,
        labels=known,
        preprocessing=preprocessing,
        dataset=name or loaded.dataset,
        vectors=Vectors(inputs, reference_logits(model, floats)),
        images=images,
        data=data,
        raw=request.raw,
        seed=request.seed,
    )


def _load(request: ExportRequest, listener: ExportListener) -> tuple[ExportRequest, LoadedWeights]:
    """The weights, and the request with the variant that they fit.

    A file tells its number of classes and channels and its shortcut option, unless the user chose them.
    """
    if isinstance(request.weights, LoadedWeights):
        return request, request.weights
    if request.weights in ORIGINS or not Path(request.weights).is_file():
        return request, resolve(request.weights, request.variant, request.seed, listener.notice, listener.progress)
    variant = request.variant
    chosen = {name: getattr(variant, name) for name in request.chosen}
    options = VariantOptions(
        variant.name, size=variant.size, stride=variant.stride if variant.block == "bottleneck" else None, **chosen
    )
    recognised = from_checkpoint(request.weights, options, listener.notice)
    return replace(request, variant=recognised.variant), recognised.weights


def _tell_assumed(source: str | None, preprocessing: Preprocessing, known: bool) -> Reason:
    """A checkpoint does not say how its images were prepared: the user has to see what is assumed. ``known`` tells
    whether mean and standard deviation were given."""
    resize = f"shorter side resized to {preprocessing.resize}, " if preprocessing.resize is not None else ""
    height, width = preprocessing.size
    moments = "" if known else ", ImageNet's mean and standard deviation"
    return Reason(
        "preprocessing-not-in-weights",
        f"preprocessing assumed for {source}: {resize}centre crop of {height} x {width}{moments}; "
        "check the accuracy on labelled images",
    )


def reference_logits(
    model: ResNet, inputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Logits (n, classes) of PyTorch in eager fp32 on the CPU.

    Raises:
        ArtifactError: they are not finite: the weights overflow, or are no weights of this network.
    """
    import torch

    with torch.inference_mode():
        logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = model(torch.from_numpy(inputs)).numpy()
    if not np.isfinite(logits).all():
        raise ArtifactError("the network's own logits are not finite with these weights", code="reference-not-finite")
    return logits


def _inputs(
    request: ExportRequest, data: str | None, preprocessing: Preprocessing | None
) -> tuple[Array, str, tuple[str, ...] | None, str | None]:
    """Test inputs as the artifact takes them, words for them, and the classes and the name of their data."""
    variant = request.variant
    if preprocessing is None and (request.raw or data is not None):
        what = "--input raw" if request.raw else "--data"
        raise UsageError(
            f"{what} needs --mean and --std for {variant.in_channels} input channels", code="option-needs-statistics"
        )
    if data is None or preprocessing is None:
        inputs = noise_inputs(variant, IMAGES, request.seed, request.raw)
        return inputs, f"seeded noise, seed {request.seed}", None, None
    dataset = open_dataset(data, IMAGES)
    if len(dataset.classes) != variant.classes:
        raise ModelMismatchError(
            f"the data {quote(data)!r} has {len(dataset.classes)} classes, the network {variant.classes}",
            code="data-class-count",
            hint=f"export with --num-classes {len(dataset.classes)}",
        )
    _, pixels = next(dataset.pixels(preprocessing, IMAGES))
    inputs = pixels if request.raw else normalise(pixels, preprocessing)
    return inputs, f"{len(inputs)} images of {dataset.name}", dataset.classes, dataset.name


def noise_inputs(variant: Variant, count: int, seed: int, raw: bool) -> Array:
    """Noise as an artifact of the variant takes it: (count, c, h, w) normal float32, or (count, h, w, c) even uint8."""
    if not raw:
        return noise((count, variant.in_channels, *variant.size), seed)
    return noise_pixels((count, *variant.size, variant.in_channels), seed)


def _check_statistics(request: ExportRequest) -> None:
    if (request.mean is None) != (request.std is None):
        raise UsageError("--mean and --std go together", code="statistics-incomplete")
    for name, values in (("--mean", request.mean), ("--std", request.std)):
        if values is not None and len(values) != request.variant.in_channels:
            raise UsageError(
                f"{name} has {len(values)} values for {request.variant.in_channels} input channels",
                code="statistics-channel-count",
            )
        if values is not None and not all(map(math.isfinite, values)):
            raise UsageError(f"{name} must be finite, not {','.join(map(str, values))}", code="statistics-not-finite")
    if request.std is not None and not all(value > 0 for value in request.std):
        raise UsageError(f"--std must be above 0, not {','.join(map(str, request.std))}", code="std-not-positive")


def _preprocessing(request: ExportRequest, known: Preprocessing | None) -> Preprocessing | None:
    """What images go through: what the request or the weights say, else the shares of ImageNet's or the whole image.

    Networks of other than 3 channels have none unless the user gives the statistics.

    Raises:
        ModelMismatchError: the request's gives another size or number of channels than the network takes.
    """
    variant = request.variant
    if request.preprocessing is not None:
        gives, takes = (
            (request.preprocessing.channels, *request.preprocessing.size),
            (variant.in_channels, *variant.size),
        )
        if gives != takes:
            raise ModelMismatchError(
                f"the preprocessing gives {_in_words(gives)}, the network takes {_in_words(takes)}",
                code="preprocessing-shape",
            )
        return request.preprocessing
    if known is None:
        known = scale_preprocessing(IMAGENET_PREPROCESSING, variant.size)
        if variant.stem == "cifar":
            known = replace(known, resize=min(variant.size))
        if variant.in_channels != 3 and request.mean is None:
            return None
    if request.mean is not None and request.std is not None:
        return replace(known, mean=request.mean, std=request.std)
    return known


def _in_words(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{channels} channel{'s' if channels != 1 else ''} of {height} x {width} pixels"


def _labels(request: ExportRequest, listener: ExportListener) -> tuple[str, ...] | None:
    labels, classes = request.labels, request.variant.classes
    if isinstance(labels, Path):
        return read_labels(labels, classes, listener)
    if labels is not None and len(labels) != classes:
        raise ModelMismatchError(f"{len(labels)} labels for {classes} classes", code="label-count-mismatch")
    return labels


def read_labels(path: Path, classes: int | None, listener: ExportListener) -> tuple[str, ...]:
    """One label a line, in UTF-8, with or without a byte-order mark; blank lines at the end do not count.

    ``classes`` is how many there have to be, if that is known.

    Raises:
        ResourceError: unreadable.
        ArtifactError: not UTF-8.
        ModelMismatchError: another number of labels than ``classes``.
    """
    content = files.read_bounded(path, LABELS_LIMIT_BYTES)
    try:
        text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"labels must be UTF-8 text: {error.reason} at byte {error.start}", code="labels-not-utf8", path=path
        ) from error
    labels = tuple(line.strip() for line in text.rstrip().split("\n")) if text.strip() else ()
    if "" in labels:
        raise ArtifactError(
            f"line {labels.index('') + 1} is blank: labels stand one on each line", code="label-blank", path=path
        )
    if classes is not None and len(labels) != classes:
        raise ModelMismatchError(f"{len(labels)} labels for {classes} classes", code="label-count-mismatch", path=path)
    doubled = len(labels) - len(set(labels))
    if doubled:
        listener.notice(Reason("labels-repeated", f"{path.name}: {doubled} labels stand more than once"))
    return labels
