"""``Classifier``: a runtime that takes images and returns labels, by the artifact's preprocessing and class names."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from runtimes import notices, opening
from runtimes.arguments import is_count, require_names, require_not_too_large
from runtimes.artifacts.embedded import Embedded, read_embedded, unverified
from runtimes.class_outputs import Answer, ClassOutputs, Prediction, check_finite
from runtimes.copying import refuse_to_copy
from runtimes.errors import ArtifactError, InputError, UsageError, quote
from runtimes.escaping import shell_word
from runtimes.images import prefetch
from runtimes.images.contents import is_content
from runtimes.images.heat_map import place_on_image
from runtimes.images.preprocessing import Image, Pixels, decode, fit_image, fit_or_name
from runtimes.images.spec import MAX_PIXELS, Preprocessing
from runtimes.network_io import CAM, FEATURES, LOGITS, NetworkInput, find_outputs
from runtimes.runtime import Runtime
from runtimes.tensors.activation import (
    Activation,
)
from runtimes.tensors.spec import Arrays, TensorSpec
from runtimes.tensors.validation import check_rows

if TYPE_CHECKING:
    from runtimes.device_images.preparation import DevicePreparation

PILLOW, NVIMGCODEC = "pillow", "nvimgcodec"

DECODERS = (PILLOW, NVIMGCODEC)
"""The names of the decoders of JPEG files."""


class Classifier:
    """An opened artifact that takes images.

    ``Classifier.open`` opens an artifact. ``predict`` needs the output ``logits``, ``embed`` needs ``features``, and
    ``explain`` needs ``cam``; ``rexport onnx --output`` chooses them. All methods may be called from many threads at
    once. A ``with`` statement closes the classifier at its end.

    Args:
        runtime: The runtime. The classifier owns it and closes it.
        preprocessing: The preparation of images for the network. A network that takes raw pixels (uint8, channels last)
            orders the channels and normalises itself.
        names: One name for each class. Without names, classes are called ``class 7``. A network with one output may
            have two names: the output is the probability of the second.
        decoder: The decoder of JPEG files: ``pillow`` on the host, or ``nvimgcodec`` on the GPU.
        activation: The step from the output to probabilities. ``None`` means that of the manifest, by default the
            softmax. Without a manifest, or for one output, the first outputs decide.

    Raises:
        ArtifactError: The network is not an image classifier.
        ModelMismatchError: The preprocessing or the names do not fit the network.
        UsageError: The decoder is unknown, or does not suit the network, or the activation does not.
        BackendUnavailableError: The decoder is not installed.

    Example:
        Print the three most probable classes of an image:

            with runtimes.Classifier.open("resnet20.onnx") as classifier:
                for label in classifier.predict("shoe.png", top=3)[0].labels:
                    print(f"{label.name}: {label.probability:.1%}")
    """

    def __init__(
        self,
        runtime: Runtime,
        preprocessing: Preprocessing,
        names: tuple[str, ...] | None,
        decoder: str = PILLOW,
        activation: Activation | None = None,
    ) -> None:
        self.runtime = runtime
        self.preprocessing = preprocessing
        self._input = NetworkInput.find(runtime, preprocessing)
        self._outputs = find_outputs(runtime)
        classes = self._outputs[LOGITS].shape[1] if LOGITS in self._outputs else None
        self._classes = ClassOutputs(runtime.artifact, classes if isinstance(classes, int) else None, names, activation)
        self._device_preparation = None if decoder == PILLOW else self._prepare_on_device(decoder)

    def _prepare_on_device(self, decoder: str) -> DevicePreparation:
        """Return the preparation of images on the GPU of the runtime."""
        if decoder not in DECODERS:
            raise UsageError(
                f"decoder must be one of {', '.join(DECODERS)}, not {quote(decoder)!r}", code="decoder-unknown"
            )
        device = self.runtime.description.device
        if not device.startswith("cuda") or self._input.spec.dtype != "uint8":
            raise UsageError(
                f"decoder {decoder} needs a network on a GPU that takes raw pixels, but the input is "
                f"{self._input.spec} on {device}",
                code="decoder-needs-raw-pixels",
                hint="export with the option --input raw of rexport, and open with device='cuda'",
            )
        from runtimes.device_images.decoding import JpegDecoder
        from runtimes.device_images.preparation import DevicePreparation

        index = int(device.partition(":")[2] or 0)
        return DevicePreparation(self.preprocessing, JpegDecoder(index), f"cuda:{index}", self._input.batch)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        backend: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        *,
        streams: int | None = None,
        model_cache: str | os.PathLike[str] | None = None,
        gpu_mem_limit: int | None = None,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
        decoder: str = PILLOW,
        activation: Activation | None = None,
    ) -> Classifier:
        """Open the artifact at ``path`` for images.

        A warning on the logger ``rexport`` says when labels or preprocessing come from the metadata of a file without
        a manifest, which nothing verifies.

        Args:
            path: As for ``runtimes.open``.
            backend: As for ``runtimes.open``.
            device: As for ``runtimes.open``.
            threads: As for ``runtimes.open``.
            streams: As for ``runtimes.open``.
            model_cache: As for ``runtimes.open``.
            gpu_mem_limit: As for ``runtimes.open``.
            preprocessing: The preparation of images, in place of the manifest's. A model needs it that has neither a
                manifest nor, as the ONNX files of rexport have, a description in its metadata.
            labels: The names of the classes in the order of the outputs, in place of the manifest's.
            activation: The step from the output to probabilities, in place of the manifest's: ``softmax``, ``sigmoid``
                or ``none``. Without either, the first outputs decide, and a warning on the logger ``rexport`` says so
                unless it is the softmax.
            decoder: The decoder of JPEG files for ``predict`` and ``embed``. ``pillow`` decodes on the host.
                ``nvimgcodec`` decodes and resizes on the GPU, for a network on a GPU that takes raw pixels. Its pixels
                differ from Pillow's by a few levels: ``runtimes.decoder_agreement.compare_decoders`` tells whether
                predictions change. Other images, and all other methods, use Pillow.

        Returns:
            A classifier, which the caller closes. A ``with`` statement closes it.

        Raises:
            UsageError: No preprocessing is known and none is passed, or the labels are no list of strings; or as for
                ``runtimes.open``.
            ModelMismatchError: The preprocessing does not fit the network's input, or the number of labels differs from
                the number of classes.
            ArtifactError: The network is not an image classifier; or as for ``runtimes.open``.
            RexportError: As for ``runtimes.open``.
        """
        names = None if labels is None else require_names(labels)
        if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
            raise UsageError(
                f"preprocessing is of type {quote(type(preprocessing).__name__)}; expected runtimes.Preprocessing",
                code="preprocessing-type",
            )
        runtime = opening.open(
            path, backend, device, threads, streams=streams, model_cache=model_cache, gpu_mem_limit=gpu_mem_limit
        )
        try:
            known = runtime.artifact.manifest or read_embedded(runtime.artifact)
            if isinstance(known, Embedded) and (preprocessing is None or names is None):
                notices.warn(unverified(runtime.artifact))
            if preprocessing is None and known is not None:
                preprocessing = known.preprocessing
            if names is None and known is not None:
                names = known.labels
            if activation is None and known is not None:
                activation = known.activation
            if preprocessing is None:
                raise UsageError(
                    "nothing records how images are prepared for this network",
                    code="preprocessing-required",
                    path=runtime.artifact.path,
                    hint="export it with --mean and --std; in Python, pass preprocessing=runtimes.Preprocessing(...)",
                )
            return cls(runtime, preprocessing, names, decoder, activation)
        except BaseException:
            runtime.close()
            raise

    @property
    def decoder(self) -> str:
        """The decoder of JPEG files, for example ``pillow``, or ``nvimgcodec 0.9.0`` with its version."""
        device = self._device_preparation
        return PILLOW if device is None else f"{NVIMGCODEC} {device.decoder.version}"

    @property
    def names(self) -> tuple[str, ...] | None:
        """The name of each class, or ``None`` if they are unknown."""
        return self._classes.names

    @property
    def activation(self) -> Activation | None:
        """The step from the output to probabilities, or ``None`` before the first outputs of a network decide it."""
        return self._classes.activation

    @property
    def batch(self) -> int | None:
        """The fixed batch of the network, or ``None`` if the batch may vary."""
        return self._input.batch

    @property
    def verified(self) -> bool:
        """Whether the model has its manifest, whose digest it was held to.

        Without it, labels and preprocessing are the caller's, or those that the model file says about itself.
        """
        return self.runtime.artifact.manifest is not None

    def predict(self, images: Image | Iterable[Image], top: int = 1, batch: int = 32) -> list[Prediction]:
        """Return the ``top`` most probable classes of each image, in the order of the images.

        The call blocks until all images are classified. While the network runs one batch, up to four threads decode the
        next batches. These threads end before the call returns or raises; a single image starts none.

        Args:
            images: One image or several, each as ``runtimes.images.preprocessing.Image`` describes. A uint8 array
                (n, h, w, c) holds several images. An iterator is read at most two batches ahead, so the images need not
                all be in memory. An open file is one image: it is read from its beginning and stays open.
            top: The number of classes for each image, limited to the number of classes of the network.
            batch: The number of images in one call of the network. A network with a fixed batch ignores this value; its
                last batch is filled with zeros.

        Raises:
            InputError: An image is broken or does not fit. The message names its path or its number, from 0.
            ResourceError: An image file is missing or unreadable, or memory is lacking.
            BackendUnavailableError: Pillow is needed but not installed.
            CheckFailedError: An output of the network is not a finite number, or has not one row for each image.
            ModelMismatchError: The number of outputs differs from the number of class names.
            UsageError: ``top`` or ``batch`` is no integer or below 1, ``batch`` is too large, the images are a set, or
                the classifier is closed.
            ArtifactError: The network is a trunk without the output ``logits``.
        """
        if not (is_count(top) and is_count(batch)):
            raise UsageError(
                f"top and batch must be integers of at least 1, not {quote(repr(top))} and {quote(repr(batch))}",
                code="top-or-batch-invalid",
            )
        require_not_too_large(batch=batch)
        predictions: list[Prediction] = []
        with closing(self._run(_iterate(images), batch, LOGITS)) as rows:
            for logits in rows:
                for row in self._classes.to_finite_probabilities(logits, first=len(predictions)):
                    predictions.append(self._classes.predict(row, top))
        return predictions

    def prepare(self, image: Image, max_pixels: int = MAX_PIXELS) -> Arrays:
        """Return the input of the network for one image, by name, for an app that runs the network itself.

        ``interpret`` turns the logits of the run into a prediction; both together are what ``predict`` does for one
        image. The call decodes in the caller's thread.

        Args:
            image: The image.
            max_pixels: The number of pixels of the image, at most. It is read from the header, before decoding.

        Returns:
            A fresh array with a batch of 1, also for a network with a larger fixed batch.

        Raises:
            RexportError: As for ``predict``.
        """
        pixels = fit_image(image, self.preprocessing, max_pixels)[None]
        return {self._input.spec.name: self._input.from_pixels(pixels, self.preprocessing, fill=False)}

    def interpret(self, outputs: Arrays, top: int = 1) -> list[Prediction]:
        """Return the ``top`` most probable classes of each row of the network's outputs.

        Args:
            outputs: The outputs of ``Runtime.infer`` by name, the logits among them.
            top: As for ``predict``.

        Raises:
            InputError: The logits are missing or have another shape than the network's.
            RexportError: As for ``predict``.
        """
        if not is_count(top):
            raise UsageError(f"top must be an integer of at least 1, not {quote(repr(top))}", code="top-invalid")
        rows = self._classes.to_finite_probabilities(self._output_of(outputs, LOGITS), first=0)
        return [self._classes.predict(row, top) for row in rows]

    def embed(self, images: Image | Iterable[Image], batch: int = 32) -> NDArray[np.float32]:
        """Return the features of each image: the input of the classifier, which the network computes by pooling.

        Images with similar content have similar features. Their cosine similarity is the usual measure. The call blocks
        and decodes ahead as ``predict``.

        Args:
            images: As for ``predict``.
            batch: As for ``predict``.

        Returns:
            A fresh array, float32 (n, d), in the order of the images. No images give (0, d).

        Raises:
            ArtifactError: The network has no output ``features``.
            UsageError: ``batch`` is no integer or below 1, or the classifier is closed.
            RexportError: As for ``predict``.
        """
        if not is_count(batch):
            raise UsageError(f"batch must be an integer of at least 1, not {quote(repr(batch))}", code="batch-invalid")
        require_not_too_large(batch=batch)
        rows: list[NDArray[np.float32]] = []
        with closing(self._run(_iterate(images), batch, FEATURES)) as batches:
            for values in batches:
                check_finite(values, first=sum(map(len, rows)))
                rows.append(values.astype(np.float32))
        if rows:
            return np.concatenate(rows)
        (_, width) = self._outputs[FEATURES].shape
        return np.zeros((0, width if isinstance(width, int) else 0), np.float32)

    def answer(self, pixels: Pixels, features: bool = False) -> Answer:
        """Return the probabilities of all classes for one batch of prepared images, in one call of the network.

        It is ``predict`` without its parts around the network, for callers that read and decode images themselves:
        ``runtimes.images.preprocessing.fit_image`` prepares an image. The call blocks.

        Args:
            pixels: The images, uint8 (n, h, w, c), n at least 1 and at most the fixed batch of the network, if it has
                one.
            features: Whether the features are returned too.

        Returns:
            Fresh arrays, which may hold numbers that are not finite.

        Raises:
            ArtifactError: The network has no output ``logits``, or no output ``features``.
            ModelMismatchError: The number of outputs differs from the number of class names.
            InputError: The pixels have another type or number of dimensions.
            UsageError: The classifier is closed.
            RexportError: As for ``Runtime.infer``.
        """
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 4 or pixels.dtype != np.uint8:
            found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise InputError(f"pixels must be a uint8 array (n, h, w, c), not {quote(found)}", code="pixels-shape")
        logits = self._require(LOGITS).name
        wanted = self._require(FEATURES).name if features else None
        outputs = self._infer(pixels)
        count = len(pixels)
        probabilities = self._classes.to_probabilities(outputs[logits][:count])
        return Answer(probabilities, None if wanted is None else outputs[wanted][:count].astype(np.float32))

    def explain(self, image: Image, label: str | int | None = None) -> NDArray[np.float32]:
        """Return the heat map of a class for one image: how much each part of the image speaks for the class.

        The values are those of the class activation map (Zhou et al. 2015, arXiv 1512.04150), in units of the logit:
        the mean of the network's map plus the bias of the class is the logit of the class. Positive values speak for
        the class, and negative ones against it. Of one output for two classes, the first class has the negative map.
        The map of a network is small, for example 7 x 7; it is interpolated linearly, so it shows regions and no
        outlines. The call blocks.

        Args:
            image: One image.
            label: The name or the index of the class. ``None`` means the most probable one, which needs the output
                ``logits``.

        Returns:
            A fresh array, float32 (height, width), in the size of the decoded, upright image. Pixels that the
            preprocessing cut away are NaN, because the network did not see them.

        Raises:
            ArtifactError: The network has no output ``cam``, or no output ``logits`` for ``None``.
            UsageError: No class, or more than one, has the name or the index; or the classifier is closed.
            RexportError: As for ``predict``.
        """
        self._require(CAM)
        if label is None:
            self._require(LOGITS)
        else:
            self._classes.index_of(label, self._outputs[CAM].shape[1])
        pixels = decode(image, self.preprocessing.channels)
        fitted = fit_image(image if self.preprocessing.scaled_decoding else pixels, self.preprocessing)
        _, heat = self.interpret_map(self._infer(fitted[None]), label)
        return place_on_image(heat, self.preprocessing, (pixels.shape[0], pixels.shape[1]))

    def interpret_map(self, outputs: Arrays, label: str | int | None = None) -> tuple[int, NDArray[np.float32]]:
        """Return a class and its heat map, as the network computes it, for the first row of the network's outputs.

        ``prepare`` makes the input of the network, and ``runtimes.images.heat_map`` places the map on the image.

        Args:
            outputs: The outputs of ``Runtime.infer`` by name.
            label: As for ``explain``.

        Returns:
            The index of the class, and an array, float32 (rows, columns), of the network's own size.

        Raises:
            RexportError: As for ``explain``.
        """
        maps = self._output_of(outputs, CAM)
        if label is None:
            logits = self._output_of(outputs, LOGITS)
            index = int(self._classes.to_finite_probabilities(logits, first=0)[0].argmax())
        else:
            index = self._classes.index_of(label, self._outputs[CAM].shape[1])
        is_binary = self._classes.is_binary(maps.shape[1])
        heat: NDArray[np.float32] = maps[0, 0 if is_binary else index]
        if is_binary and index == 0:  # the map is that of the second class, and what speaks for it speaks against this
            heat = -heat
        check_finite(heat[None], first=0)
        return index, heat

    def _require(self, name: str) -> TensorSpec:
        """Return the output of this name.

        Raises:
            ArtifactError: The network does not have it.
        """
        if name not in self._outputs:
            there = ", ".join(spec.name for spec in self.runtime.outputs)
            raise ArtifactError(
                f"the network has no output {name}, only {there}",
                code="output-absent",
                path=self.runtime.artifact.path,
                hint=f"rexport onnx --output {shell_word(name)} exports it",
            )
        return self._outputs[name]

    def _output_of(self, outputs: Arrays, name: str) -> NDArray[Any]:
        """Return the output of this name from what a caller passed.

        Raises:
            ArtifactError: The network does not have it.
            InputError: The caller passed none, or one of another shape than the network's.
        """
        spec = self._require(name)
        if not isinstance(outputs, Mapping) or spec.name not in outputs:
            raise InputError(
                f"outputs holds no array {quote(spec.name)}, as Runtime.infer returns", code="output-missing"
            )
        array = np.asarray(outputs[spec.name])
        sizes = zip(array.shape[1:], spec.shape[1:], strict=False)
        fits = array.ndim == len(spec.shape) and all(size == known for size, known in sizes if isinstance(known, int))
        if not fits or array.dtype.kind in "OSUMm":
            raise InputError(
                f"outputs[{quote(spec.name)!r}] has the shape {array.shape} and type {array.dtype}, expected {spec}",
                code="output-shape-mismatch",
            )
        return array

    def _run(self, images: Iterator[Image], batch: int, name: str) -> Generator[NDArray[Any], None, None]:
        """Yield an output for one batch of images after the other."""
        output, size, device = self._require(name).name, self._input.batch or batch, self._device_preparation
        if device is not None:
            with closing(prefetch.prefetch(images, size, device.read)) as batches:
                for sources in batches:
                    outputs = self._infer_prepared(device.prepare(sources), (name,))
                    yield outputs[output][: len(sources)]
            return
        with closing(prefetch.prefetch(images, size, self._pixels)) as batches:
            for pixels in batches:
                yield self._infer(np.stack(pixels))[output][: len(pixels)]

    def _infer(self, pixels: Pixels) -> Arrays:
        """Return the outputs for one batch of fitted images (n, h, w, c). A fixed batch has more rows."""
        return self._infer_prepared(self._input.from_pixels(pixels, self.preprocessing), self._outputs)

    def _infer_prepared(self, images: Any, names: Iterable[str]) -> Arrays:
        """Return the outputs for prepared images, of which the named ones have to have one row for each image."""
        outputs = self.runtime.infer({self._input.spec.name: images})
        check_rows(outputs, (self._outputs[name].name for name in names), images.shape[0])
        return outputs

    def _pixels(self, number: int, image: Image) -> Pixels:
        pixels = fit_or_name(image, self.preprocessing, number)
        return pixels.copy() if isinstance(image, np.ndarray) else pixels  # the caller may reuse the array

    def close(self) -> None:
        """Wait for running predictions, then free the model. A second call does nothing."""
        self.runtime.close()

    def __reduce__(self) -> NoReturn:
        """Raise ``UsageError``: an opened model cannot be copied or pickled."""
        refuse_to_copy("Classifier", "runtimes.Classifier.open", self.runtime.artifact)

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _iterate(images: Image | Iterable[Image]) -> Iterator[Image]:
    if isinstance(images, np.ndarray):
        return iter(images if images.ndim == 4 else [images])
    if isinstance(images, set | frozenset):
        raise UsageError("images is a set, which has no order; expected a list", code="images-unordered")
    several: Any = images  # a type checker takes the contents of a file for an iterable of integers or lines
    if isinstance(images, (str, os.PathLike)) or is_content(images) or not isinstance(images, Iterable):
        return iter([several])
    return iter(several)
