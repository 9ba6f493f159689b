"""Images in, labels out: a runtime with the artifact's preprocessing before it and its labels behind it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import runtimes
from runtimes.errors import ArtifactError, CheckFailedError, ModelMismatchError, UsageError
from runtimes.images import prefetch
from runtimes.images.preprocessing import Image, Pixels, Preprocessing, fit_or_name, normalise
from runtimes.protocol import TensorSpec
from runtimes.runtime import Runtime


@dataclass(frozen=True)
class Label:
    """A class with its probability, 0 to 1. ``index`` is its place among the network's outputs."""

    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What one image shows: the likeliest classes, best first; at equal probability the lower index first."""

    labels: tuple[Label, ...]

    @property
    def label(self) -> str:
        """Name of the likeliest class."""
        return self.labels[0].name

    @property
    def probability(self) -> float:
        """Of the likeliest class."""
        return self.labels[0].probability


class Classifier:
    """An opened artifact that takes images. Safe to use from many threads; a context manager.

    Attributes:
        runtime: that does the work. The classifier owns it and closes it.
        preprocessing: what happens to an image before the network sees it. Mean and standard deviation are left to a
            network that takes raw pixels (uint8, channels last).
        names: one a class, or ``None``: classes are then called "class 7".
    """

    def __init__(self, runtime: Runtime, preprocessing: Preprocessing, names: tuple[str, ...] | None) -> None:
        self.runtime = runtime
        self.preprocessing = preprocessing
        self.names = names
        self._input = _Input.find(runtime, preprocessing)
        self._output = _logits_of(runtime)
        classes = self._output.shape[1]
        if isinstance(classes, int):
            self._check_names(classes)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        backend: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> Classifier:
        """The artifact at ``path``, ready to predict. ``backend``, ``device``, ``threads``: as for ``runtimes.open``.

        ``preprocessing`` and ``labels`` stand in for the manifest's; a model without a manifest needs the first.

        Raises:
            UsageError: the manifest has no preprocessing and none is passed.
            ModelMismatchError: preprocessing or labels do not fit the network's input or its number of classes.
            ArtifactError: the network is no classifier of images.
            RexportError: as ``runtimes.open``.
        """
        runtime = runtimes.open(path, backend, device, threads)
        try:
            manifest = runtime.artifact.manifest
            if preprocessing is None and manifest is not None:
                preprocessing = manifest.preprocessing
            if labels is None and manifest is not None:
                labels = manifest.labels
            if preprocessing is None:
                raise UsageError(
                    f"{runtime.artifact.path.name} does not say how its images were prepared",
                    code="preprocessing-required",
                    hint="pass preprocessing=runtimes.Preprocessing(...)",
                )
            return cls(runtime, preprocessing, None if labels is None else tuple(labels))
        except BaseException:
            runtime.close()
            raise

    def predict(self, images: Image | Iterable[Image], top: int = 1, batch: int = 32) -> list[Prediction]:
        """The ``top`` likeliest classes of each image, in the images' order. Blocks until all are there.

        While the network works on one batch, a few threads decode the next ones. They are gone when this returns or
        raises, and one image alone starts none.

        Args:
            images: one image or several; a uint8 array (n, h, w, c) counts as several. An iterator is drawn from as
                batches are formed, two of them ahead, so that the images need not all be in memory.
            top: classes for each image; all of them where the network has fewer.
            batch: images that go through the network at once. A network that was exported for a fixed batch takes
                its own; the last one is filled up and the surplus dropped.

        Raises:
            InputError: an image is broken or does not fit; it is named by its path or its number.
            ResourceError: an image file is missing or unreadable, or memory is lacking.
            BackendUnavailableError: Pillow is needed and missing.
            CheckFailedError: the network's output is not a number.
            UsageError: ``top`` or ``batch`` below 1, or the classifier is closed.
        """
        if top < 1 or batch < 1:
            raise UsageError(f"top and batch must be at least 1, not {top} and {batch}", code="top-or-batch-invalid")
        found: list[Prediction] = []
        with closing(prefetch.prefetch(_several(images), self._input.batch or batch, self._pixels)) as batches:
            for pixels in batches:
                for row in self._probabilities(np.stack(pixels), first=len(found)):
                    found.append(self._prediction(row, top))
        return found

    def _pixels(self, number: int, image: Image) -> Pixels:
        pixels = fit_or_name(image, self.preprocessing, number)
        return pixels.copy() if isinstance(image, np.ndarray) else pixels  # its owner may fill it with the next image

    def _probabilities(self, pixels: Pixels, first: int) -> NDArray[np.float64]:
        """(n, classes) for fitted images (n, h, w, c) that are one batch."""
        feeds = {self._input.spec.name: self._input.from_pixels(pixels, self.preprocessing)}
        outputs = self.runtime.infer(feeds)[self._output.name][: len(pixels)]
        self._check_names(outputs.shape[1])
        foreign = self.runtime.artifact.manifest is None
        rows = outputs.astype(np.float64)
        probabilities = rows if foreign and _are_probabilities(rows) else softmax(rows)
        broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
        if broken.size:
            raise CheckFailedError(
                f"image {first + broken[0]}: the network's output is not a number", code="output-not-finite"
            )
        return probabilities

    def _prediction(self, probabilities: NDArray[np.float64], top: int) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[:top]
        return Prediction(tuple(Label(self._name(int(i)), int(i), float(probabilities[i])) for i in best))

    def _name(self, index: int) -> str:
        return f"class {index}" if self.names is None else self.names[index]

    def _check_names(self, classes: int) -> None:
        if self.names is not None and len(self.names) != classes:
            raise ModelMismatchError(
                f"{len(self.names)} labels for a network of {classes} classes",
                code="labels-mismatch",
                path=self.runtime.artifact.path,
                hint=f"pass {classes} labels",
            )

    def close(self) -> None:
        """Waits for predictions under way, then frees the model. Calling it again does nothing."""
        self.runtime.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Input:
    """The network's one input of images. ``batch`` is its fixed batch, or ``None``."""

    spec: TensorSpec
    channels_last: bool
    batch: int | None

    @classmethod
    def find(cls, runtime: Runtime, preprocessing: Preprocessing) -> _Input:
        """Raises ArtifactError if the network takes no images, ModelMismatchError if none like these."""
        path, elsewhere = runtime.artifact.path, "use runtimes.open and Runtime.infer"
        spec = runtime.inputs[0] if len(runtime.inputs) == 1 else None
        if spec is None or len(spec.shape) != 4 or not (_takes_pixels(spec) or np.dtype(spec.dtype).kind == "f"):
            inputs = "; ".join(map(str, runtime.inputs))
            raise ArtifactError(
                f"no classifier of images: its inputs are {inputs}", code="input-not-images", path=path, hint=elsewhere
            )
        size = preprocessing.size
        first = _fits(spec, (preprocessing.channels, *size))
        last = _fits(spec, (*size, preprocessing.channels))
        if last or (first and not _takes_pixels(spec)):
            return cls(
                spec, _takes_pixels(spec) or not first, spec.shape[0] if isinstance(spec.shape[0], int) else None
            )
        if first:
            raise ArtifactError(
                f"raw pixels have their channels last, the network takes {spec}",
                code="pixels-channels-first",
                path=path,
                hint=elsewhere,
            )
        raise ModelMismatchError(
            f"preprocessing gives {preprocessing.channels} channels of {size[0]} x {size[1]}, the network takes {spec}",
            code="preprocessing-mismatch",
            path=path,
        )

    def from_pixels(self, pixels: Pixels, preprocessing: Preprocessing) -> NDArray[Any]:
        """The input for fitted images (n, h, w, c), filled up with zeros to the network's fixed batch."""
        inputs: NDArray[Any] = pixels
        if not _takes_pixels(self.spec):
            inputs = normalise(pixels, preprocessing)
            inputs = inputs.transpose(0, 2, 3, 1) if self.channels_last else inputs
        if self.batch is not None and len(inputs) < self.batch:
            inputs = np.concatenate([inputs, np.zeros((self.batch - len(inputs), *inputs.shape[1:]), inputs.dtype)])
        return np.ascontiguousarray(inputs, self.spec.dtype)


def _takes_pixels(spec: TensorSpec) -> bool:
    """Whether pixels go in as they are: their normalisation is in the graph."""
    return spec.dtype == "uint8"


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return all(isinstance(wanted, str) or wanted == got for wanted, got in zip(spec.shape[1:], shape, strict=True))


def _logits_of(runtime: Runtime) -> TensorSpec:
    """The output called ``logits``, else the first one.

    Raises:
        ArtifactError: it does not hold one number a class.
    """
    named = [spec for spec in runtime.outputs if spec.name == "logits"]
    spec = (named or list(runtime.outputs))[0]
    if len(spec.shape) != 2:
        raise ArtifactError(
            f"no classifier: its output is {spec}",
            code="output-not-classes",
            path=runtime.artifact.path,
            hint="use runtimes.open and Runtime.infer",
        )
    return spec


def _several(images: Image | Iterable[Image]) -> Iterator[Image]:
    if isinstance(images, np.ndarray):
        return iter(images if images.ndim == 4 else [images])
    if isinstance(images, (str, bytes, os.PathLike)) or not isinstance(images, Iterable):
        return iter([images])
    return iter(images)


def _are_probabilities(rows: NDArray[np.float64]) -> bool:
    """Whether a network ends in a softmax of its own: nothing below 0, and every row sums to 1 within 1e-3."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < 1e-3).all())


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (n, classes) of logits (n, classes). A row that holds NaN or +inf becomes NaN."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result
