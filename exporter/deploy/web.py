"""A page that labels images in the visitor's browser: its folder, or one file."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import exporter
from exporter.data.opening import BUNDLED_NAME, open_dataset
from exporter.deploy import page_files, page_folder
from exporter.deploy.web_runtime import CODE, WASM, WebRuntime, find_runtime
from exporter.export_request import ExportListener
from exporter.inspect.predict import PredictionRequest, open_classifier
from exporter.preprocessing.options import NOTHING_CHOSEN, PreprocessingOptions
from runtimes import Artifact, Classifier, Manifest, codec, files
from runtimes.errors import CompatibilityError, UsageError, quote
from runtimes.folders import folder_to_fill
from runtimes.images.preprocessing import decode
from runtimes.network_io import CAM, LOGITS, NetworkInput, find_outputs
from runtimes.tensors.activation import Activation

INDEX = "index.html"
"""The page of a folder."""

FOLDER_LIMIT_BYTES, FILE_LIMIT_BYTES = 1 << 30, 256 << 20
"""The largest model of a folder, and of a page in one file: a browser holds all of it in memory."""

SAMPLE_LIMIT_BYTES, MAX_SAMPLES = 5 << 20, 12
"""The largest size of a sample image, and the largest number of samples."""

TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
"""The media types of the formats that browsers decode, by Pillow's names."""

DTYPES = ("float32", "uint8")
"""The types of input that the page fills."""

NOISE_IMAGES = 8
"""The number of images of noise whose outputs show the activation of a model, or that it needs none."""


@dataclass(frozen=True)
class SiteRequest:
    """A page to write.

    Attributes:
        model: The ONNX file.
        out: A folder, or a file that ends in ``.html``.
        runtime: The place of ONNX Runtime Web, as for ``find_runtime``.
        labels: A text file with one class a line, in place of the manifest's.
        preprocessing: The chosen preprocessing, in place of the manifest's.
        samples: Image files to try on the page. Without any, a network of Fashion-MNIST has test images.
        force: Whether an existing page is replaced.
        activation: The step from outputs to probabilities, in place of the manifest's.
    """

    model: Path
    out: str
    runtime: Path | None = None
    labels: Path | None = None
    preprocessing: PreprocessingOptions = NOTHING_CHOSEN
    samples: tuple[Path, ...] = ()
    force: bool = False
    activation: Activation | None = None

    @property
    def page(self) -> Path:
        """The file of the page."""
        return Path(self.out) if self.is_single else Path(self.out) / INDEX

    @property
    def is_single(self) -> bool:
        """Whether the page is one file, which opens from a disk."""
        return self.out.lower().endswith((".html", ".htm"))


@dataclass(frozen=True)
class Site:
    """A page before it is written.

    Attributes:
        words: The texts of the markup.
        model: The description of the model, which becomes ``model.json``.
        contents: The contents of the files that the description names, by their paths.
    """

    words: Mapping[str, str]
    model: Mapping[str, Any]
    contents: Mapping[str, bytes] = field(repr=False)


def write_site(request: SiteRequest, listener: ExportListener) -> Path:
    """Write a page and return the path of its HTML file.

    The model is opened first with ONNX Runtime, which a page uses too. In a folder the HTML file is written last.

    Args:
        request: The model and its page.
        listener: Receives the progress and notices.

    Raises:
        UsageError: The page or a file that belongs to it exists, the model is too large for a page, or a sample is; or
            as ``predict``.
        CompatibilityError: The model is no ONNX file in one part, or its input is of another type than ``DTYPES``.
        RexportError: The model cannot be opened, ONNX Runtime Web is not found, or the disk fails.
    """
    page = request.page
    written = (page,) if request.is_single else (page, *page_folder.files_beside(page))
    for path in written:
        if path.exists() and not request.force:
            raise files.target_exists(path)
    artifact = Artifact.read(request.model)
    _check_model(artifact, FILE_LIMIT_BYTES if request.is_single else FOLDER_LIMIT_BYTES)
    samples = _samples(request.samples, artifact.manifest)
    with folder_to_fill(page.parent):
        site = _make_site(request, samples, listener)
        listener.step("writing the page")
        description = codec.dumps(site.model)
        if request.is_single:
            page_folder.write_file(page, page_files.single_page(site.words, description, site.contents).encode())
        else:
            page_folder.write_folder(page, page_files.folder_page(site.words), description, site.contents)
    return page


def _make_site(request: SiteRequest, samples: Sequence[Mapping[str, str]], listener: ExportListener) -> Site:
    listener.step("opening the model")
    with open_classifier(
        PredictionRequest(
            request.model,
            1,
            "onnxruntime",
            "cpu",
            1,
            labels=request.labels,
            preprocessing=request.preprocessing,
            activation=request.activation,
        ),
        listener,
    ) as classifier:
        listener.step("finding ONNX Runtime Web")
        return _site(classifier, find_runtime(request.runtime, listener.notice), samples)


def _check_model(artifact: Artifact, limit_bytes: int) -> None:
    if artifact.format.name != "onnx":
        raise CompatibilityError(
            f"a browser runs ONNX files, and this is a file of the format {artifact.format.name}",
            code="web-needs-onnx",
            path=artifact.path,
            hint="rexport onnx exports the network to an ONNX file",
        )
    if artifact.manifest is not None and artifact.manifest.external:
        raise CompatibilityError(
            "the weights are in other files, which a page does not load", code="web-external-data", path=artifact.path
        )
    size = artifact.path.stat().st_size
    if size > limit_bytes:
        raise UsageError(
            f"the model has {size:,} bytes, and at most {limit_bytes:,} fit into this kind of page",
            code="web-model-too-large",
            path=artifact.path,
            hint="--precision int8 makes it a quarter; a folder, as -o site/, takes a larger one than one file",
        )


def _site(classifier: Classifier, runtime: WebRuntime, samples: Sequence[Mapping[str, str]]) -> Site:
    artifact, preprocessing = classifier.runtime.artifact, classifier.preprocessing
    network_input, outputs = NetworkInput.find(classifier.runtime, preprocessing), find_outputs(classifier.runtime)
    _check_network(artifact, network_input, outputs)
    manifest = artifact.manifest
    found = (runtime.contents[CODE], runtime.contents[WASM], artifact.path.read_bytes())
    contents = {
        page_folder.name_content(name, content): content
        for name, content in zip(page_folder.CONTENTS, found, strict=True)
    }
    if preprocessing.scaled_decoding:
        raise CompatibilityError(
            "the model decodes JPEG files at a fraction of their size, which a page does not",
            code="web-scaled-decoding",
            path=artifact.path,
            hint="--full-decoding decodes them in full on the page",
        )
    channels, (height, width) = preprocessing.channels, preprocessing.size
    # Without a record of the activation, the outputs for noise decide. A warning names any but the softmax. If there is
    # none, they must be probabilities.
    if classifier.activation in (None, "none"):
        noise = np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, height, width, channels), np.uint8)
        classifier.predict(noise)
    batch = network_input.batch or 1
    last = network_input.channels_last
    model = {
        "name": artifact.path.stem if manifest is None else manifest.name,
        "labels": classifier.names,
        "preprocessing": preprocessing,
        "input": {
            "name": network_input.spec.name,
            "dtype": network_input.spec.dtype,
            "channels_last": last,
            "shape": (batch, height, width, channels) if last else (batch, channels, height, width),
        },
        "outputs": {name: spec.name for name, spec in outputs.items() if name in (LOGITS, CAM)},
        "activation": classifier.activation,
        "check": _check_of(artifact, manifest),
        "files": dict(zip(("runtime", "wasm", "model"), (_file(*item) for item in contents.items()), strict=True)),
        "samples": samples,
    }
    return Site(_words(classifier, runtime), model, contents)


def _check_network(artifact: Artifact, network_input: NetworkInput, outputs: Mapping[str, object]) -> None:
    if LOGITS not in outputs:
        raise CompatibilityError(
            "the network has no output logits, so it labels nothing",
            code="web-needs-logits",
            path=artifact.path,
            hint="rexport onnx --output logits exports it",
        )
    if network_input.spec.dtype not in DTYPES:
        raise CompatibilityError(
            f"a page fills inputs of {' or '.join(DTYPES)}, not {network_input.spec}",
            code="web-input-unsupported",
            path=artifact.path,
        )


def _file(path: str, content: bytes) -> dict[str, object]:
    return {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _check_of(artifact: Artifact, manifest: Manifest | None) -> dict[str, object] | None:
    """Return the first test vector, which the page computes before its first image; ``None`` without vectors."""
    if manifest is None or manifest.vectors is None or manifest.parity is None:
        return None
    vectors = artifact.vectors()
    return {
        "input": base64.b64encode(np.ascontiguousarray(vectors.inputs[0]).tobytes()).decode(),
        "logits": vectors.logits[0].astype(np.float64).tolist(),
        "largest": float(np.abs(vectors.logits).max()),
        "tolerance": manifest.parity.tolerance,
    }


def _words(classifier: Classifier, runtime: WebRuntime) -> dict[str, str]:
    manifest = classifier.runtime.artifact.manifest
    classes = "classes by number" if classifier.names is None else f"{len(classifier.names):,} classes"
    facts = [classes]
    if manifest is not None:
        facts = [manifest.precision, classes, *([manifest.dataset] if manifest.dataset else [])]
        facts += [] if manifest.weights.trained else ["untrained weights: the labels mean nothing"]
    name = classifier.runtime.artifact.path.stem if manifest is None else manifest.name
    tools = f"Made by rexport {exporter.version()} with ONNX Runtime Web {runtime.version}."
    return {
        "title": name,
        "about": f"Image labels by this browser: {', '.join(facts)}.",
        "privacy": f"Images stay on this machine. {tools}",
    }


def _samples(paths: Sequence[Path], manifest: Manifest | None) -> list[dict[str, str]]:
    """Return the samples with their contents in base64."""
    if len(paths) > MAX_SAMPLES:
        raise UsageError(
            f"there are {len(paths)} samples, and a page takes at most {MAX_SAMPLES}", code="web-samples-too-many"
        )
    if paths:
        return [_sample(path) for path in paths]
    return _fashion_samples() if manifest is not None and manifest.dataset == BUNDLED_NAME else []


def _sample(path: Path) -> dict[str, str]:
    import PIL.Image

    pixels = decode(path)
    content = files.read_bounded(path, SAMPLE_LIMIT_BYTES)
    format = PIL.Image.open(io.BytesIO(content)).format or ""
    if format not in TYPES:
        format, content = "PNG", _png(pixels)
    return {"name": quote(path.stem), "type": TYPES[format], "content": base64.b64encode(content).decode()}


def _fashion_samples() -> list[dict[str, str]]:
    """Return the first test image of every other class."""
    dataset = open_dataset(BUNDLED_NAME)
    targets = [] if dataset.targets is None else dataset.targets.tolist()
    return [
        {
            "name": dataset.classes[target],
            "type": TYPES["PNG"],
            "content": base64.b64encode(_png(decode(dataset.image(targets.index(target)), channels=1))).decode(),
        }
        for target in range(1, len(dataset.classes), 2)
    ]


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
