"""Descriptions of a preprocessing for people."""

from __future__ import annotations

from exporter.weights.sources import IMAGENET_PREPROCESSING
from runtimes.errors import Reason
from runtimes.images.spec import Preprocessing


def describe_steps(preprocessing: Preprocessing, raw: bool = False) -> str:
    """Return the preprocessing as text in the order of its steps.

    Args:
        preprocessing: The preprocessing.
        raw: Whether the artifact takes raw pixels, so that the last steps are in the graph.
    """
    steps = [resize] if (resize := _resize(preprocessing)) else []
    offset = "" if preprocessing.crop_offset == "round" else f", offset rounded by {preprocessing.crop_offset}"
    steps.append(f"centre crop {preprocessing.crop[0]}x{preprocessing.crop[1]}{offset}")
    if preprocessing.pad:
        steps.append(f"{preprocessing.pad} black pixels on each side")
    if preprocessing.channel_order != "RGB":
        steps.append(f"channels {preprocessing.channel_order}")
    if preprocessing.scale == 1:
        steps.append("pixels 0 to 255")
    location = " in the graph" if raw else ""
    steps.append(
        f"mean {', '.join(map(str, preprocessing.mean))}, std {', '.join(map(str, preprocessing.std))}{location}"
    )
    return "; ".join(steps)


def _resize(preprocessing: Preprocessing) -> str:
    """Return the first step, with its filter unless that is the antialiased bilinear one."""
    size = preprocessing.resize
    if size is None:
        return ""
    words = [f"squashed to {size[0]}x{size[1]}" if isinstance(size, tuple) else f"shorter side to {size}"]
    if preprocessing.interpolation != "bilinear":
        words.append(preprocessing.interpolation)
    if not preprocessing.antialias:
        words.append("without antialiasing")
    if preprocessing.scaled_decoding:
        words.append("large JPEG files decoded at a fraction of their size")
    return ", ".join(words)


def describe_resize(resize: int | tuple[int, int]) -> str:
    """Return the resizing of a preprocessing as text.

    Args:
        resize: As for ``Preprocessing``.
    """
    if isinstance(resize, int):
        return f"shorter side resized to {resize}"
    return f"images squashed to {resize[0]} x {resize[1]}"


def scale_notice(source: str, preprocessing: Preprocessing) -> Reason:
    """Return the notice that the preprocessing of the weights was scaled to another input size.

    Args:
        source: The name of the weights.
        preprocessing: The scaled preprocessing.
    """
    return Reason(
        "preprocessing-scaled",
        f"{source}: preprocessing assumed to scale with the input: {describe_steps(preprocessing)}; --resize and "
        "--crop choose another one",
    )


def black_margin(preprocessing: Preprocessing) -> Reason | None:
    """Return the notice that the crop is larger than a resized image, or ``None`` if it never is for a square image.

    Args:
        preprocessing: The preprocessing.
    """
    if not isinstance(preprocessing.resize, int):
        return None
    side, (height, width) = preprocessing.resize, preprocessing.crop
    missing = max(height, width) - side
    if missing <= 0:
        return None
    lines = "rows" if height > width else "columns"
    return Reason(
        "crop-exceeds-images",
        f"a square image is resized to {side} x {side}, and {missing} of {max(height, width)} {lines} of the input "
        f"stay black; --resize {height}x{width} squashes images, and --resize {max(height, width)} covers the input",
    )


def assumption(source: str | None, preprocessing: Preprocessing) -> Reason:
    """Return the notice about the assumed fields of a preprocessing, which a checkpoint does not contain.

    Args:
        source: The name of the weights.
        preprocessing: The preprocessing, with assumed fields.
    """
    assumed = preprocessing.assumed
    parts = []
    if "resize" in assumed and preprocessing.resize is not None:
        parts.append(describe_resize(preprocessing.resize))
    if "interpolation" in assumed:
        parts.append(preprocessing.interpolation)
    if "antialias" in assumed and not preprocessing.antialias:
        parts.append("without antialiasing")
    if "crop" in assumed:
        parts.append(f"centre crop of {preprocessing.crop[0]} x {preprocessing.crop[1]}")
    if "channel_order" in assumed and preprocessing.channels == 3:
        parts.append(preprocessing.channel_order)
    if "scale" in assumed:
        parts.append("pixels divided by 255" if preprocessing.scale == 255 else "pixels 0 to 255")
    if "mean" in assumed:
        parts.append(_moments(preprocessing))
    return Reason(
        "preprocessing-not-in-weights",
        f"preprocessing assumed for {source}: {', '.join(parts)}; set it with --transform FILE or --resize, --crop, "
        "--mean and --std, and check it with --data and --expect-top1",
    )


def _moments(preprocessing: Preprocessing) -> str:
    if preprocessing.channel_order == "BGR":
        mean = ", ".join(f"{value:g}" for value in preprocessing.mean)
        return f"ImageNet's mean and standard deviation in the order blue, green, red (mean {mean})"
    if preprocessing.mean == IMAGENET_PREPROCESSING.mean:
        return "ImageNet's mean and standard deviation"
    return f"ImageNet's mean and standard deviation times {255 // preprocessing.scale}"


def describe_transform(source: str, preprocessing: Preprocessing) -> str:
    """Return one line that says what was taken from a file.

    Args:
        source: The kind and the name of the file.
        preprocessing: The resulting preprocessing.
    """
    return f"preprocessing from {source}: {describe_steps(preprocessing)}"
