"""Images that a GPU would decode: prepared on PyTorch's CPU device, where Pillow stands in for nvImageCodec.

What nvJPEG's own decoding changes needs a GPU and is measured by ``compare_decoders``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
import pytest
import torch
from onnx import TensorProto, helper

import runtimes
from runtimes import Artifact, Classifier
from runtimes.decoder_agreement import compare_decoders
from runtimes.device_images import torch_images
from runtimes.device_images.decoding import JpegDecoder
from runtimes.device_images.preparation import DevicePreparation, EncodedImage
from runtimes.errors import BackendUnavailableError, CheckFailedError, InputError, ResourceError, UsageError
from runtimes.images.preprocessing import EXIF_ORIENTATION, Image, Pixels, pixels_of
from runtimes.images.spec import INTERPOLATIONS, Interpolation
from tests.refusals import refuses
from tests.runtimes.images.pictures import content_of, picture, plain


class Decoder:
    """Decodes with Pillow, without turning images upright; refuses what it is told to."""

    version = "double"

    def __init__(self, refuse: bool = False, invert: bool = False) -> None:
        self.decoded = 0
        self._refuse, self._invert = refuse, invert

    def decode(self, contents: Sequence[bytes], stream: int) -> list[object | None]:
        assert stream == 0
        self.decoded += len(contents)
        return [None if self._refuse else self._pixels(content) for content in contents]

    def _pixels(self, content: bytes) -> object:
        pixels = np.array(PIL.Image.open(io.BytesIO(content)).convert("RGB"))
        return torch.from_numpy(255 - pixels if self._invert else pixels)


def jpeg(height: int = 40, width: int = 60, mode: str = "RGB", orientation: int | None = None) -> bytes:
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[EXIF_ORIENTATION] = orientation
    return content_of(PIL.Image.fromarray(picture(height, width)).convert(mode), "JPEG", exif=exif)


SHORTER = plain(32, 24, resize=34, pad=2)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (20, 20), (256, 256), (64, 90), (90, 1)])
def test_resized_pixels_are_pillows(height: int, width: int, interpolation: Interpolation) -> None:
    pixels = picture(height, width)
    target = plain(resize=64).target_size(height, width)
    image = PIL.Image.fromarray(pixels).resize(target[::-1], PIL.Image.Resampling[interpolation.upper()])
    result = torch_images.resize(torch.from_numpy(pixels), target, interpolation)
    np.testing.assert_array_equal(result.numpy(), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_prepared_as_on_the_host(channels: int, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(jpeg(90, 50))
    images: list[Image] = [
        *(jpeg(orientation=number) for number in (None, *range(10))),
        jpeg(mode="L"),
        jpeg(mode="CMYK"),
        jpeg(10, 12),
        content_of(PIL.Image.fromarray(picture())),
        picture(),
        PIL.Image.fromarray(picture()),
        file,
        str(file),
    ]
    preprocessing, decoder = plain(32, 24, channels=channels, resize=34, pad=2), Decoder()
    preparation = DevicePreparation(preprocessing, decoder, "cpu", None)
    batch = preparation.prepare([preparation.read(number, image) for number, image in enumerate(images)])
    np.testing.assert_array_equal(batch.numpy(), pixels_of(images, preprocessing))
    assert batch.is_contiguous()
    assert decoder.decoded == 15  # but the one in CMYK, and what is no JPEG


def test_what_the_decoder_refuses_is_decoded_on_the_host() -> None:
    decoder = Decoder(refuse=True)
    preparation = DevicePreparation(SHORTER, decoder, "cpu", 4)
    batch = preparation.prepare([preparation.read(0, jpeg()), preparation.read(1, picture())])
    assert decoder.decoded == 1
    np.testing.assert_array_equal(batch[:2].numpy(), pixels_of([jpeg(), picture()], SHORTER))
    assert (tuple(batch.shape), int(batch[2:].sum())) == ((4, 36, 28, 3), 0)  # zeros fill a fixed batch


def test_broken_files_are_told_as_by_pillow(tmp_path: Path) -> None:
    preparation = DevicePreparation(SHORTER, Decoder(refuse=True), "cpu", None)
    with refuses(InputError, "image-broken", "image 7"):
        preparation.read(7, jpeg()[:100])
    cut = preparation.read(7, jpeg()[:-900])  # its header is whole
    assert isinstance(cut, EncodedImage)
    with refuses(InputError, "image-broken", "image 7"):
        preparation.prepare([cut])
    with refuses(ResourceError, "file-access-failed", "absent.jpg"):
        preparation.read(0, tmp_path / "absent.jpg")


@pytest.mark.parametrize(
    "preprocessing",
    [replace(SHORTER, antialias=False), replace(SHORTER, scaled_decoding=True), plain(32, 24, channels=4)],
)
def test_what_cannot_be_the_same_is_refused(preprocessing: runtimes.Preprocessing) -> None:
    with refuses(UsageError, "decoder-preprocessing-unsupported"):
        DevicePreparation(preprocessing, Decoder(), "cpu", None)


def test_without_nvimagecodec_the_command_is_told() -> None:
    with refuses(BackendUnavailableError, "nvimgcodec-missing", "pip install"):
        JpegDecoder(0)


# The classifier


class HostPreparation(DevicePreparation):
    """Gives the batch as an array, because no network is on a GPU here."""

    def prepare(self, images: Sequence[EncodedImage | Pixels]) -> Pixels:  # type: ignore[override]
        pixels: Pixels = super().prepare(images).numpy()
        return pixels


@pytest.fixture
def raw_artifact(tmp_path: Path) -> Artifact:
    """A network of raw pixels whose classes are the colours: the class of an image is its strongest one."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 24, 24, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "colours", [pixels], [logits], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "colours.onnx")
    return Artifact.read(tmp_path / "colours.onnx")


COLOURS = plain(24, 24, resize=24)


def classifier_of(artifact: Artifact, decoder: Decoder) -> Classifier:
    classifier = Classifier.open(artifact.path, "onnxruntime", threads=1, preprocessing=COLOURS)
    classifier._device_preparation = HostPreparation(COLOURS, decoder, "cpu", None)
    return classifier


def test_a_classifier_decodes_with_it_and_agrees(raw_artifact: Artifact) -> None:
    images: list[Image] = [*(jpeg(40 + number, 60) for number in range(5)), picture()]
    decoder = Decoder()
    with classifier_of(raw_artifact, decoder) as classifier:
        assert classifier.decoder == "nvimgcodec double"
        agreement = compare_decoders(classifier, images, batch=4)
        assert decoder.decoded == 5
        assert (agreement.decoder, agreement.images, agreement.changed) == ("nvimgcodec double", 6, ())
        assert (agreement.share, agreement.largest_change) == (1.0, 0.0)
        agreement.require(1.0)
        with refuses(UsageError, "decoder-without-images"):
            compare_decoders(classifier, [])


def test_a_decoder_that_changes_predictions_is_caught(raw_artifact: Artifact) -> None:
    images = [
        content_of(PIL.Image.new("RGB", (40, 40), colour), "JPEG") for colour in ("black", "white", "red", "blue")
    ]
    with classifier_of(raw_artifact, Decoder(invert=True)) as classifier:
        agreement = compare_decoders(classifier, images)
        assert agreement.changed
        with refuses(CheckFailedError, "decoder-changes-predictions", "nvimgcodec double", f"of {len(images)} images"):
            agreement.require(0.99)


def test_a_decoder_is_for_raw_pixels_on_a_gpu(raw_artifact: Artifact) -> None:
    with refuses(UsageError, "decoder-unknown", "'turbo'", "pillow, nvimgcodec"):
        Classifier.open(raw_artifact.path, "onnxruntime", preprocessing=COLOURS, decoder="turbo")
    with refuses(UsageError, "decoder-needs-raw-pixels", "cpu", "--input raw"):
        Classifier.open(raw_artifact.path, "onnxruntime", preprocessing=COLOURS, decoder="nvimgcodec")
