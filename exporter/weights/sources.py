"""Where a variant's numbers come from: ``random``, ``bundled``, ``imagenet``, or a file of the user's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.models.variants import VARIANTS, Variant
from exporter.weights import checkpoint, download, matching
from exporter.weights.download import Progress, ignore_progress
from exporter.weights.matching import Notify
from runtimes import codec, files
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
BUNDLE = "resnet20-fashion-mnist.json"
CLASSES_LIMIT_BYTES = 1 << 20

IMAGENET_CLASSES = "imagenet-classes.txt"
IMAGENET_PREPROCESSING = Preprocessing(
    resize=256, crop=(224, 224), pad=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""What torchvision evaluates its weights with."""

ORIGINS = ("random", "bundled", "imagenet")
"""What ``--weights`` takes besides a file."""

MAX_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that fit a variant, and what is known of them.

    Attributes:
        state: for ``build(variant).load_state_dict``: every name, float32, contiguous, the caller's own memory.
        record: for the artifact's manifest.
        labels: one a class, or ``None`` where the origin tells none.
        preprocessing: of the images that the weights were made for, at the variant's input size, or ``None``.
        dataset: name of the data that the classes come from, or ``None``.
    """

    state: dict[str, Tensor]
    record: Weights
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    dataset: str | None


@dataclass(frozen=True)
class Bundle:
    """What is known of the weights that come with rexport; kept as JSON beside them.

    ``file`` lies in the same folder and has the digest ``sha256``. ``preprocessing`` is at the variant's own size.
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
    """The weights that ``spec`` names: a path, or ``random``, ``bundled`` or ``imagenet`` in any case.

    ``seed`` is that of ``random`` and ignored by the others. ``notify`` gets notices for the user, a line each,
    and ``progress`` how far a download is.

    Raises:
        ModelMismatchError: they are not for this variant; the message says for which they are.
        ResourceError: a file is missing or unreadable, or there is no network.
        IntegrityError, UnsafeArtifactError, ArtifactError: as ``checkpoint.read`` and ``fitting.fit``.
        UsageError: the seed is out of range.
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
    """An untrained network: He initialisation of ``seed``, and batch-norm statistics that keep it finite.

    Raises:
        UsageError: the seed is out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"the seed must lie between 0 and {MAX_SEED}, not {seed}", code="seed-out-of-range")
    from exporter.models import resnet

    notify(Reason("untrained", f"random weights of seed {seed}: the predictions of this network mean nothing"))
    model = resnet.build(variant)
    resnet.initialise(model, seed)
    resnet.settle_statistics(model, seed)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return LoadedWeights(state, Weights("random", False, matching.state_digest(state), seed=seed), None, None, None)


def load_bundled(variant: Variant, notify: Notify, folder: Path | None = None) -> LoadedWeights:
    """The trained weights in ``folder``, by default those that come with rexport.

    Raises:
        ModelMismatchError: another variant, or other classes, channels or shortcuts than they have.
        IntegrityError: the file is not the one that was bundled.
    """
    place = BUNDLED_FOLDER if folder is None else folder
    bundle = _read_bundle(place / BUNDLE)
    classes = len(bundle.labels)
    have = (bundle.variant, classes, bundle.in_channels, bundle.shortcut)
    if have != (variant.name, variant.classes, variant.in_channels, variant.shortcut):
        raise ModelMismatchError(
            f"the bundled weights are of {bundle.variant} with {classes} classes ({bundle.dataset}), "
            f"{bundle.in_channels} input channels and shortcut {bundle.shortcut}, not of {_in_full(variant)}",
            code="bundled-variant-differs",
            hint=f"use {bundle.variant}, or --weights imagenet, random or FILE",
        )
    path = place / bundle.file
    if files.sha256_of(path) != bundle.sha256:
        raise IntegrityError(
            "not the file that was bundled: its digest differs",
            code="bundled-weights-changed",
            path=path,
            hint="install rexport again",
        )
    state = _read_fitting_state(path, variant, notify)
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
        raise ArtifactError(error.what, code=error.code, path=path, hint="install rexport again") from error


def imagenet(variant: Variant, notify: Notify, progress: Progress = ignore_progress) -> LoadedWeights:
    """torchvision's published weights, from the cache or the network.

    Raises:
        ModelMismatchError: another net than the five, or changed classes, channels, shortcuts or strides.
        ResourceError: neither in the cache nor to be had.
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
    state = _read_fitting_state(path, variant, notify)
    labels = tuple(files.read_bounded(BUNDLED_FOLDER / IMAGENET_CLASSES, CLASSES_LIMIT_BYTES).decode().splitlines())
    record = Weights("imagenet", True, matching.state_digest(state), source=name)
    return LoadedWeights(state, record, labels, scale_preprocessing(IMAGENET_PREPROCESSING, variant.size), "imagenet")


def from_file(spec: str, variant: Variant, notify: Notify) -> LoadedWeights:
    """Weights of the user's: a state dict or a training checkpoint, ``.safetensors`` or of ``torch.save``.

    Raises:
        ResourceError, UnsafeArtifactError, IntegrityError, ArtifactError: as ``checkpoint.read``.
        ModelMismatchError, ArtifactError: as ``fitting.fit``.
    """
    path = Path(spec)
    try:
        state = _read_fitting_state(path, variant, notify)
    except ResourceError as error:
        if path.exists():
            raise
        meant = nearest(spec, ORIGINS)
        hint = f"did you mean {meant}?" if meant else f"--weights takes {', '.join(ORIGINS)} or a file"
        raise ResourceError(error.what, code=error.code, path=path, hint=hint, errno=error.errno) from error
    record = Weights("file", True, matching.state_digest(state), source=quote(path.name))
    return LoadedWeights(state, record, None, None, None)


def _read_fitting_state(path: Path, variant: Variant, notify: Notify) -> dict[str, Tensor]:
    state = checkpoint.read(path)
    try:
        return matching.fit(state, variant, notify)
    except RexportError as error:
        raise type(error)(error.what, code=error.code, path=path, hint=error.hint) from error


def scale_preprocessing(preprocessing: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """The same view of an image at another input ``size`` (height, width): resize and padding keep their shares."""
    height, width = preprocessing.size
    factor = min(size) / min(height, width)
    pad = round(preprocessing.pad * factor)
    resize = None if preprocessing.resize is None else max(1, round(preprocessing.resize * factor))
    return replace(preprocessing, resize=resize, crop=(size[0] - 2 * pad, size[1] - 2 * pad), pad=pad)


def _in_full(variant: Variant) -> str:
    return (
        f"{variant.name} with {variant.classes} classes, {variant.in_channels} input channels, "
        f"shortcut {variant.shortcut} and stride {variant.stride}"
    )
