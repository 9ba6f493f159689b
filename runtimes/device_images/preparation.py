"""Preparation of images for a network on a GPU: JPEG files are decoded and resized there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from runtimes.errors import UsageError
from runtimes.images.contents import is_content, read_content
from runtimes.images.preprocessing import (
    EXIF_ORIENTATION,
    MAX_FILE_BYTES,
    Image,
    Pixels,
    fit_or_name,
    open_image,
    read_file,
)
from runtimes.images.spec import IMAGE_CHANNELS, MAX_PIXELS, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

_JPEG = b"\xff\xd8\xff"
"""The first bytes of a JPEG file."""


class Decoder(Protocol):
    """A decoder of JPEG files, as ``decoding.JpegDecoder``."""

    version: str

    def decode(self, contents: Sequence[bytes], stream: int) -> list[object | None]:
        """Queue the decoding of ``contents`` on ``stream``, as ``decoding.JpegDecoder.decode``."""


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG file that the GPU decodes.

    Attributes:
        content: The content of the file.
        orientation: The EXIF orientation, 1 for an upright image.
        source: The image as the caller passed it, for messages.
        number: The number of the image, for messages.
    """

    content: bytes
    orientation: int
    source: Image
    number: int


class DevicePreparation:
    """Prepares images for a network that takes raw pixels.

    JPEG files in grey or colour are decoded and resized on the device. Pillow decodes and resizes all other images on
    the host, and JPEG files that the decoder refuses. The rules are those of ``runtimes.images.preprocessing``.

    Args:
        preprocessing: The preparation of the images.
        decoder: The decoder.
        device: The device by PyTorch's name, for example ``cuda:0``.
        batch: The fixed batch of the network, or ``None``.

    Raises:
        UsageError: The images are resized without antialiasing, or are no pictures of 1 or 3 channels, or their
            decoding is scaled.
    """

    def __init__(self, preprocessing: Preprocessing, decoder: Decoder, device: str, batch: int | None) -> None:
        scaled = preprocessing.scaled_decoding
        if not preprocessing.antialias or preprocessing.channels not in IMAGE_CHANNELS or scaled:
            raise UsageError(
                "decoding on a GPU needs images of 1 or 3 channels that are resized with antialiasing, and "
                "decodes them in full",
                code="decoder-preprocessing-unsupported",
                hint="leave out decoder=",
            )
        self.decoder = decoder
        self._preprocessing = preprocessing
        self._device = device
        self._batch = batch

    def read(self, number: int, image: Image) -> EncodedImage | Pixels:
        """Read an image file, or prepare an image on the host that the device does not decode.

        Args:
            number: The number of the image in messages.
            image: The image.

        Raises:
            RexportError: As for ``runtimes.images.preprocessing.fit_or_name``.
        """
        if isinstance(image, (str, os.PathLike)):
            content = read_file(image)
        elif is_content(image):
            content = read_content(image, MAX_FILE_BYTES)
            image = content
        else:
            return np.array(fit_or_name(image, self._preprocessing, number))  # the caller may reuse an array
        orientation = _orientation(content) if content.startswith(_JPEG) else None
        if orientation is None:
            return fit_or_name(image, self._preprocessing, number)
        return EncodedImage(content, orientation, image, number)

    def prepare(self, images: Sequence[EncodedImage | Pixels]) -> Tensor:
        """Return a batch of images on the device, uint8 (n, height, width, channels), in the order of its stream.

        Raises:
            InputError: A JPEG file is broken.
        """
        from runtimes.device_images import torch_images

        encoded = [image for image in images if isinstance(image, EncodedImage)]
        contents = [image.content for image in encoded]
        decoded = iter(self.decoder.decode(contents, torch_images.stream_of(self._device)) if contents else ())
        result = []
        for image in images:
            values = next(decoded) if isinstance(image, EncodedImage) else None
            if isinstance(image, EncodedImage) and values is not None:
                pixels = torch_images.from_device(values)
                result.append(torch_images.fit(pixels, image.orientation, self._preprocessing))
            else:
                result.append(torch_images.to_device(self._on_host(image), self._device))
        return torch_images.stack(result, self._batch)

    def _on_host(self, image: EncodedImage | Pixels) -> Pixels:
        if isinstance(image, EncodedImage):
            return fit_or_name(image.source, self._preprocessing, image.number)
        return image


def _orientation(content: bytes) -> int | None:
    """Return the EXIF orientation of a JPEG file, or ``None`` for one that Pillow decodes: broken, large or in CMYK."""
    try:
        image = open_image(content, MAX_PIXELS)
        orientation = image.getexif().get(EXIF_ORIENTATION, 1) if image.mode in ("L", "RGB") else None
    except Exception:  # Pillow's own errors, which decoding reports with the path
        return None
    return orientation if isinstance(orientation, int) else None
