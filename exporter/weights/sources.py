"""Sources of weights: ``random``, ``bundled``, ``imagenet``, or a file of the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.guesses import GuessLog
from exporter.models.variants import VARIANTS, Variant
from exporter.weights import download, matching, translation
from exporter.weights.download import Progress, ignore_progress
from exporter.weights.entries import ANY_ENTRY, Selection
from exporter.weights.matching import Notify
from exporter.weights.translation import ForeignWeights
from runtimes import codec, files
from runtimes.arguments import LARGEST_SEED
from runtimes.artifacts.manifest import Weights
from runtimes.errors import (
    ArtifactError,
    IntegrityError,
    ModelMismatchError,
    Reason,
    ResourceError,
    RexportError,
    UsageError,
    nearest,
    quote,
)
from runtimes.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"
"""The folder of the files that come with rexport."""

BUNDLE = "resnet20-fashion-mnist.json"
"""The name of the file that describes the bundled weights."""

CLASSES_LIMIT_BYTES = 1 << 20
"""The largest size of a bundled description or list of classes."""

IMAGENET_CLASSES = "imagenet-classes.txt"
"""The name of the file with the ImageNet class names, one on each line."""

IMAGENET_PREPROCESSING = Preprocessing(
    resize=256, crop=(224, 224), pad=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""The preprocessing with which torchvision evaluates its ImageNet weights."""

PREPARED = ("bundled", "imagenet")
"""The origins of weights that come with their preprocessing."""

ORIGINS = ("random", *PREPARED)
"""The values of ``--weights`` besides a file."""


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that fit a variant.

    Attributes:
        state: The state dict of ``build(variant)``. The memory belongs to the caller.
        record: The origin for the manifest.
        labels: The name of each class, or ``None`` if unknown.
        preprocessing: The preprocessing of the training at the input size of the variant, or ``None`` if unknown.
        dataset: The name of the dataset that defines the classes, or ``None`` if unknown.
        guesses: What was guessed about the file.
    """

    state: dict[str, Tensor]
    record: Weights
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    dataset: str | None
    guesses: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """The description of the bundled weights, which is stored as JSON beside them.

    Attributes:
        file: The name of the weights file in the same folder.
        sha256: The digest of the file.
        variant: The name of the variant.
        shortcut: The shortcut option.
        in_channels: The number of input channels.
        dataset: The name of the training dataset.
        labels: The name of each class.
        preprocessing: The preprocessing at the default size of the variant.
    """

    file: str
    sha256: str
    variant: str
    shortcut: str
    in_channels: int
    dataset: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing


def resolve(
    spec: str, variant: Variant, seed: int, notify: Notify, progress: Progress = ignore_progress
) -> LoadedWeights:
    """Load the weights that ``spec`` names.

    Args:
        spec: A path, or one of ``ORIGINS`` in upper or lower case.
        variant: The variant.
        seed: The seed of ``random``. The other sources ignore it.
        notify: Receives notices for the user.
        progress: Receives the progress of a download.

    Raises:
        ModelMismatchError: The weights belong to another variant. The message names it if possible.
        ResourceError: A file is missing or unreadable, or there is no network.
        IntegrityError: As for ``checkpoint.read`` and ``download.fetch``.
        UnsafeArtifactError: As for ``checkpoint.read``.
        ArtifactError: As for ``checkpoint.read`` and ``matching.fit``.
        UsageError: The seed is out of range.
    """
    word = spec if spec in ORIGINS or Path(spec).exists() else spec.lower()
    if word == "random":
        return initialise_weights(variant, seed, notify)
    if word == "bundled":
        return load_bundled(variant, notify)
    if word == "imagenet":
        return imagenet(variant, notify, progress)
    return from_file(spec, variant, notify)


def initialise_weights(variant: Variant, seed: int, notify: Notify) -> LoadedWeights:
    """Return random weights: He initialisation, and batch-norm statistics that keep the activations finite.

    Args:
        variant: The variant.
        seed: The seed.
        notify: Receives the notice that the network is untrained.

    Raises:
        UsageError: The seed is out of range.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"the seed must be between 0 and {LARGEST_SEED}, not {seed}", code="seed-out-of-range")
    from exporter.models import resnet

    notify(
        Reason("untrained", f"the weights are random (seed {seed}), so the predictions of this network have no meaning")
    )
    model = resnet.build(variant)
    resnet.initialise(model, seed)
    resnet.settle_statistics(model, seed)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return LoadedWeights(state, Weights("random", False, matching.state_digest(state), seed=seed), None, None, None)


def load_bundled(variant: Variant, notify: Notify, folder: Path | None = None) -> LoadedWeights:
    """Load the trained weights in a folder.

    Args:
        variant: The variant.
        notify: Receives notices for the user.
        folder: The folder. The default is the one of rexport.

    Raises:
        ModelMismatchError: The weights belong to another variant, or to other classes, channels or shortcuts.
        IntegrityError: The digest of the file differs from its description.
        ArtifactError: The description is invalid.
    """
    source_folder = BUNDLED_FOLDER if folder is None else folder
    bundle = _read_bundle(source_folder / BUNDLE)
    classes = len(bundle.labels)
    bundled = (bundle.variant, classes, bundle.in_channels, bundle.shortcut)
    if bundled != (variant.name, variant.classes, variant.in_channels, variant.shortcut):
        raise ModelMismatchError(
            f"the bundled weights belong to {bundle.variant} with {classes} classes ({bundle.dataset}), "
            f"{bundle.in_channels} input channels and shortcut {bundle.shortcut}, not to {_in_full(variant)}",
            code="bundled-variant-differs",
            hint=f"use {bundle.variant}, or --weights imagenet, random or FILE",
        )
    path = source_folder / bundle.file
    if files.sha256_of(path) != bundle.sha256:
        raise IntegrityError(
            "the SHA-256 of the bundled weights differs from the one in their description",
            code="bundled-weights-changed",
            path=path,
            hint="pip install --force-reinstall rexport",
        )
    state = _fit(translation.read(path), variant, notify)
    return LoadedWeights(
        state,
        Weights("bundled", True, matching.state_digest(state), source=bundle.file),
        bundle.labels,
        scale_preprocessing(bundle.preprocessing, variant.size),
        bundle.dataset,
    )


def _read_bundle(path: Path) -> Bundle:
    try:
        return codec.loads(Bundle, files.read_bounded(path, CLASSES_LIMIT_BYTES))
    except ArtifactError as error:
        raise ArtifactError(
            error.what, code=error.code, path=path, hint="pip install --force-reinstall rexport"
        ) from error


def imagenet(variant: Variant, notify: Notify, progress: Progress = ignore_progress) -> LoadedWeights:
    """Load torchvision's published weights from the cache or the network.

    Args:
        variant: The variant.
        notify: Receives one line before a download.
        progress: Receives the progress of the download.

    Raises:
        ModelMismatchError: There are no published weights for the variant with these options.
        ResourceError: The weights are not in the cache and cannot be downloaded.
        IntegrityError: The digest of the download does not match.
    """
    name = download.PUBLISHED.get(variant.name)
    row = VARIANTS[variant.name]
    if name is None or variant != replace(row, size=variant.size):
        raise ModelMismatchError(
            f"ImageNet weights are published for {', '.join(download.PUBLISHED)} with 1000 classes, 3 input channels, "
            f"shortcut B and stride v1.5, not for {_in_full(variant)}",
            code="imagenet-variant-unpublished",
            hint="use one of these, or --weights FILE or random",
        )
    path = download.fetch(name, notify, progress)
    state = _fit(translation.read(path), variant, notify)
    labels = tuple(files.read_bounded(BUNDLED_FOLDER / IMAGENET_CLASSES, CLASSES_LIMIT_BYTES).decode().splitlines())
    record = Weights("imagenet", True, matching.state_digest(state), source=name)
    return LoadedWeights(state, record, labels, scale_preprocessing(IMAGENET_PREPROCESSING, variant.size), "imagenet")


def from_file(spec: str, variant: Variant, notify: Notify, selection: Selection = ANY_ENTRY) -> LoadedWeights:
    """Load weights of a known variant from a file of the user: a state dict or a training checkpoint.

    Args:
        spec: The path of a ``.safetensors`` file or of a file of ``torch.save``.
        variant: The variant.
        notify: Receives notices for the user.
        selection: The part of the file to read.

    Raises:
        ResourceError: As for ``checkpoint.read``.
        UnsafeArtifactError: As for ``checkpoint.read``.
        IntegrityError: As for ``checkpoint.read``.
        ArtifactError: As for ``checkpoint.read`` and ``matching.fit``.
        ModelMismatchError: As for ``translation.translate`` and ``matching.fit``.
    """
    path = Path(spec)
    try:
        foreign = translation.read(path, selection)
    except ResourceError as error:
        if path.exists():
            raise
        similar = nearest(spec, ORIGINS)
        hint = f"did you mean {similar}?" if similar else f"--weights takes {', '.join(ORIGINS)} or a file"
        raise ResourceError(error.what, code=error.code, path=path, hint=hint, errno=error.errno) from error
    log = GuessLog(notify)
    state = _fit(foreign, variant, log)
    return LoadedWeights(state, record_of_file(foreign, state), None, None, None, log.guesses)


def record_of_file(foreign: ForeignWeights, state: dict[str, Tensor]) -> Weights:
    """Return the record of weights from a file, for the manifest.

    Args:
        foreign: The weights in the file.
        state: The weights under the names of the network.
    """
    layout = foreign.translation.layout
    return Weights(
        "file",
        True,
        matching.state_digest(state),
        source=str(quote(foreign.path.name)),  # pathlib takes no subclass of str
        key=foreign.stored.entry,
        prefix=foreign.translation.prefix or None,
        layout=None if layout is None else layout.title,
        file_sha256=foreign.stored.sha256,
    )


def _fit(foreign: ForeignWeights, variant: Variant, notify: Notify) -> dict[str, Tensor]:
    try:
        foreign.check_copies()
        for notice in foreign.notices():
            notify(notice)
        return matching.fit(foreign.translation.tensors, variant, notify)
    except RexportError as error:
        raise type(error)(error.what, code=error.code, path=foreign.path, hint=error.hint) from error


def scale_preprocessing(preprocessing: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """Return a preprocessing for another input size, with the same relative resizing and padding.

    An input of another aspect ratio would leave black pixels beside the images that the network was trained on. So
    images are squashed to its aspect ratio.

    Args:
        preprocessing: The preprocessing.
        size: The new (height, width) in pixels.
    """
    height, width = preprocessing.size
    factor = min(size) / min(height, width)
    pad = round(preprocessing.pad * factor)
    resize = preprocessing.resize
    if isinstance(resize, tuple):  # a squashed image has lost its aspect ratio, so both sides scale alone
        resize = max(1, round(resize[0] * size[0] / height)), max(1, round(resize[1] * size[1] / width))
    elif resize is not None and height * size[1] != width * size[0]:
        share = resize / min(preprocessing.crop)
        resize = max(1, round((size[0] - 2 * pad) * share)), max(1, round((size[1] - 2 * pad) * share))
    elif resize is not None:
        resize = max(1, round(resize * factor))
    return replace(preprocessing, resize=resize, crop=(size[0] - 2 * pad, size[1] - 2 * pad), pad=pad)


def _in_full(variant: Variant) -> str:
    return (
        f"{variant.name} with {variant.classes} classes, {variant.in_channels} input channels, "
        f"shortcut {variant.shortcut} and stride {variant.stride}"
    )
