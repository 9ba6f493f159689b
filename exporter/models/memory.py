"""The memory that a network needs at least, so that an impossible one is refused before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from exporter.models.layers import layers, parameters
from exporter.models.variants import Variant
from runtimes.errors import ResourceError
from runtimes.memory import available_bytes

_FLOAT_BYTES, _DOUBLE_BYTES = 4, 8


def least_bytes(variant: Variant, images: int) -> int:
    """Return a lower bound of the memory for the forward pass of a variant in bytes.

    It counts the parameters, the input, and the output of the largest layer, all in float32.

    Args:
        variant: The variant.
        images: The number of images in the batch.
    """
    image = variant.in_channels * math.prod(variant.size)
    largest = max(layer.out_channels * math.prod(layer.out_size) for layer in layers(variant))
    return _FLOAT_BYTES * (parameters(variant) + images * (image + largest))


def least_gradient_bytes(variant: Variant, images: int) -> int:
    """Return a lower bound of the memory for the gradients of a variant in bytes, all in float64.

    It counts the parameters and their gradients, the input, and the output of each layer, which the backward pass
    reads.

    Args:
        variant: The variant.
        images: The number of images in the batch.
    """
    image = variant.in_channels * math.prod(variant.size)
    outputs = sum(layer.out_channels * math.prod(layer.out_size) for layer in layers(variant))
    return _DOUBLE_BYTES * 2 * parameters(variant) + _DOUBLE_BYTES * images * (image + outputs)


def require_memory(variant: Variant, images: int = 1) -> None:
    """Check that the memory suffices for the forward pass of a variant, as far as ``least_bytes`` tells.

    Args:
        variant: The variant.
        images: The number of images in the batch.

    Raises:
        ResourceError: It does not. The hint names the option that needs most.
    """
    _require(variant, images, least_bytes(variant, images), lambda: _costliest_option(variant, images))


def require_gradient_memory(variant: Variant, images: int) -> None:
    """Check that the memory suffices for the gradients of a variant, as far as ``least_gradient_bytes`` tells.

    Args:
        variant: The variant.
        images: The number of images in the batch.

    Raises:
        ResourceError: It does not.
    """
    _require(variant, images, least_gradient_bytes(variant, images), lambda: "--images")


def require_image_memory(name: str, channels: int, size: tuple[int, int], images: int) -> None:
    """Check that the memory suffices for the input of a module whose layers are unknown, in float32.

    Args:
        name: The name of the module, for the message.
        channels: The number of channels of an image.
        size: The (height, width) of an image in pixels.
        images: The number of images in the batch.

    Raises:
        ResourceError: It does not.
    """
    needed, available = _FLOAT_BYTES * images * channels * math.prod(size), available_bytes()
    if available is None or needed <= available:
        return
    height, width = size
    raise ResourceError(
        f"{name} with {channels:,} channels of {height:,}x{width:,} pixels needs at least {needed / 1e9:,.1f} GB of "
        f"memory for a batch of {images:,}, and {available / 1e9:,.1f} GB are available",
        code="image-memory-insufficient",
        hint="a smaller --batch, --in-channels or --size needs less",
    )


def _require(variant: Variant, images: int, needed: int, option: Callable[[], str]) -> None:
    """Raise ``ResourceError`` if less memory is available than is needed. ``option`` returns what to choose smaller."""
    available = available_bytes()
    if available is None or needed <= available:
        return
    height, width = variant.size
    raise ResourceError(
        f"{variant.name} with {variant.in_channels:,} channels of {height:,}x{width:,} pixels and {variant.classes:,} "
        f"classes needs at least {needed / 1e9:,.1f} GB of memory for a batch of {images:,}, and "
        f"{available / 1e9:,.1f} GB are available",
        code="memory-insufficient",
        hint=f"a smaller {option()} needs less",
    )


def _costliest_option(variant: Variant, images: int) -> str:
    """Return the option whose smallest value would save most."""
    height, width = variant.size
    smaller = {
        "--batch": least_bytes(variant, 1),
        "--in-channels": least_bytes(replace(variant, in_channels=1), images),
        "--num-classes": least_bytes(replace(variant, classes=1), images),
        "--size": least_bytes(replace(variant, size=(min(32, height), min(32, width))), images),
    }
    return min(smaller, key=lambda option: smaller[option])
