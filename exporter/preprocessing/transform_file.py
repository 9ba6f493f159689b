"""Preprocessing from files of other libraries, and from manifests.

Four kinds are recognised by their keys: a pretrained config of timm, a ``preprocessor_config.json`` of Hugging Face
transformers, a preset of torchvision as JSON, and rexport's own preprocessing. A key that is not known, is missing, or
contradicts another is an error that names the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from runtimes import codec, files
from runtimes.errors import ArtifactError, RexportError, UsageError, quote
from runtimes.images.spec import INTERPOLATIONS, Interpolation, Preprocessing

LIMIT_BYTES = 16 << 20
"""The largest size of a file."""

Size: TypeAlias = tuple[int, int]
"""A (height, width) in pixels."""

Fields: TypeAlias = Mapping[str, object]
"""A JSON object."""


@dataclass(frozen=True)
class Transform:
    """The preprocessing in a file.

    Attributes:
        source: The kind and the name of the file in words.
        preprocessing: The preprocessing.
    """

    source: str
    preprocessing: Preprocessing


LEAST_SHARE = 0.01
"""The smallest share of the crop. The size of resizing is the size of the crop divided by it."""


def read_transform(path: Path, size: Size | None = None) -> Transform:
    """Read the preprocessing in a JSON file.

    Args:
        path: The file.
        size: The (height, width) of the network's input that the user chose. It decides between the two sizes that a
            pretrained config of timm may have.

    Raises:
        ResourceError: The file cannot be read.
        ArtifactError: The file is of none of the four kinds, or a key is unknown, missing or contradictory.
        UsageError: The file has two sizes, and ``size`` chooses none.
    """
    try:
        data = codec.parse(files.read_bounded(path, LIMIT_BYTES))
    except ArtifactError as error:
        raise ArtifactError(
            f"the file is not JSON: {quote(error.__cause__)}", code="transform-not-json", path=path
        ) from error
    if not isinstance(data, dict):
        raise _unknown(path)
    kind, read = _recognise(data, path)
    try:
        return Transform(f"{kind} {quote(path.name)}", read(data, size))
    except RexportError as error:
        raise type(error)(f"{kind}: {error.what}", code=error.code, path=path, hint=error.hint) from error


def _recognise(data: Fields, path: Path) -> tuple[str, Callable[[Fields, Size | None], Preprocessing]]:
    """Return the kind of a file and the function that reads it."""
    keys = set(data)
    if "preprocessing" in keys and "format_version" in keys:
        return "manifest", _read_manifest
    if {"resize", "crop"} <= keys:
        return "preprocessing of rexport", _read_own
    if "pretrained_cfg" in keys or {"input_size", "crop_pct"} <= keys:
        return "timm's pretrained config", _read_timm
    if {"image_mean", "image_std", "image_processor_type", "feature_extractor_type", "do_resize"} & keys:
        return "Hugging Face's preprocessor config", _read_hugging_face
    if {"crop_size", "resize_size"} <= keys:
        return "torchvision's preset", _read_torchvision
    raise _unknown(path)


def _unknown(path: Path) -> ArtifactError:
    return ArtifactError(
        "the file has no preprocessing that rexport knows",
        code="transform-unknown",
        path=path,
        hint="a config of timm, a preprocessor_config.json of Hugging Face, a preset of torchvision, or a manifest",
    )


def _read_manifest(data: Fields, _: Size | None) -> Preprocessing:
    if data["preprocessing"] is None:
        raise ArtifactError("the manifest has no preprocessing", code="transform-empty")
    return codec.decode(Preprocessing, data["preprocessing"])


def _read_own(data: Fields, _: Size | None) -> Preprocessing:
    return codec.decode(Preprocessing, data)


@dataclass(frozen=True)
class TimmConfig:
    """The fields of timm's pretrained config that concern images. ``input_size`` is (channels, height, width)."""

    input_size: tuple[int, int, int]
    interpolation: Interpolation
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_mode: Literal["center", "squash", "border"] = "center"
    test_input_size: tuple[int, int, int] | None = None
    test_crop_pct: float | None = None


TIMM_UNRELATED = (
    *("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load"),
    *("min_input_size", "fixed_input_size", "num_classes", "label_offset", "label_names", "label_descriptions"),
    *("pool_size", "test_pool_size", "first_conv", "classifier", "license", "description", "origin_url", "paper_name"),
    *("paper_ids", "notes"),
)
"""The fields of timm's pretrained config that do not concern images."""


def _read_timm(data: Fields, size: Size | None) -> Preprocessing:
    """Read timm's pretrained config, with the rules of its transform for evaluation.

    The scale of resizing is floor(size / crop_pct). The mode ``squash`` resizes both sides, ``center`` the shorter one.
    """
    inner = data.get("pretrained_cfg", data)
    if not isinstance(inner, dict):
        raise ArtifactError("pretrained_cfg is not an object", code="transform-not-object")
    config = codec.decode(
        TimmConfig, {name: value for name, value in inner.items() if name not in TIMM_UNRELATED and value is not None}
    )
    channels, crop, share = _timm_size(config, size)
    _check_share(share)
    if channels != len(config.mean):
        raise ArtifactError(
            f"input_size has {channels} channels, but mean has {len(config.mean)} values",
            code="transform-channel-count",
        )
    scaled = math.floor(crop[0] / share), math.floor(crop[1] / share)
    if config.crop_mode == "border" or (config.crop_mode == "center" and scaled[0] != scaled[1]):
        raise ArtifactError(
            f"crop_mode {config.crop_mode} with input_size {crop[0]} x {crop[1]} is not supported: rexport pads with "
            "black and resizes the shorter side or both sides",
            code="transform-crop-mode",
        )
    resize = scaled if config.crop_mode == "squash" else scaled[0]
    return Preprocessing(resize, crop, 0, config.mean, config.std, interpolation=config.interpolation)


def _check_share(share: float) -> None:
    if not LEAST_SHARE <= share <= 1:
        raise ArtifactError(
            f"crop_pct must be at least {LEAST_SHARE} and at most 1, not {share}", code="transform-crop-share"
        )


def _timm_size(config: TimmConfig, size: Size | None) -> tuple[int, Size, float]:
    """Return the channels, the (height, width) and the share of the crop.

    Raises:
        UsageError: The config has another size for tests than for training, and ``size`` is neither.
    """
    channels, *sides = config.input_size
    train = (sides[0], sides[1]), config.crop_pct
    test_share = config.crop_pct if config.test_crop_pct is None else config.test_crop_pct
    test = (train[0] if config.test_input_size is None else config.test_input_size[1:]), test_share
    readings = tuple(dict.fromkeys((train, test)))
    fitting = [reading for reading in readings if size in (None, reading[0])] if len(readings) > 1 else readings
    if len(fitting) != 1:
        raise UsageError(
            f"the file has two readings: input_size {train[0][0]} x {train[0][1]} with crop_pct {train[1]}, and "
            f"test_input_size {test[0][0]} x {test[0][1]} with crop_pct {test[1]}",
            code="transform-two-sizes",
            hint="remove test_crop_pct from the file"
            if train[0] == test[0]
            else f"--crop {train[0][0]}x{train[0][1]} or --crop {test[0][0]}x{test[0][1]} chooses one",
        )
    return channels, *fitting[0]


@dataclass(frozen=True)
class HuggingFaceConfig:
    """The fields of a ``preprocessor_config.json`` that concern images. Defaults are those of transformers."""

    size: int | Mapping[str, int]
    resample: int
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None
    do_resize: Literal[True] = True
    crop_size: int | Mapping[str, int] | None = None
    do_center_crop: bool | None = None
    crop_pct: float | None = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    do_flip_channel_order: Literal[False] = False
    do_pad: Literal[False] = False
    default_to_square: bool | None = None
    image_processor_type: str = ""
    feature_extractor_type: str = ""


HUGGING_FACE_UNRELATED = (
    "do_convert_rgb",
    "data_format",
    "input_data_format",
    "processor_class",
    "_valid_processor_keys",
)
"""The fields of a ``preprocessor_config.json`` that change nothing for an RGB image."""

RESAMPLE: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""The filters by Pillow's numbers, which ``resample`` holds."""

WARP_FROM = 384
"""The size from which transformers' ConvNextImageProcessor squashes the image and does not crop."""

CONVNEXT_CROP_SHARE = 224 / 256
"""The default of ``crop_pct`` of ConvNextImageProcessor."""


def _read_hugging_face(data: Fields, _: Size | None) -> Preprocessing:
    """Read a ``preprocessor_config.json``, by the rules of ConvNext, ViT and Bit processors."""
    config = codec.decode(
        HuggingFaceConfig,
        {name: value for name, value in data.items() if name not in HUGGING_FACE_UNRELATED and value is not None},
    )
    if not 0 <= config.resample < len(RESAMPLE):
        raise ArtifactError(
            f"resample must be a number of Pillow from 0 to {len(RESAMPLE) - 1}, not {config.resample}",
            code="transform-resample",
        )
    mean, std = (config.image_mean, config.image_std) if config.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    if mean is None or std is None:
        raise ArtifactError("do_normalize needs image_mean and image_std", code="transform-statistics-missing")
    divides = config.do_rescale and config.rescale_factor != 1
    if divides and abs(config.rescale_factor * 255 - 1) > 1e-6:
        raise ArtifactError(
            f"rescale_factor {config.rescale_factor} is not supported; 1/255 and 1 are", code="transform-rescale"
        )
    resize, crop = _hugging_face_sizes(config)
    filter = RESAMPLE[config.resample]
    return Preprocessing(
        resize, crop, 0, mean, std, interpolation=filter, scale=255 if divides else 1, crop_offset="floor"
    )


def _hugging_face_sizes(config: HuggingFaceConfig) -> tuple[int | Size, Size]:
    """Return the size of resizing and the crop."""
    name = config.image_processor_type or config.feature_extractor_type
    resize = _hugging_face_resize(config, name)
    if config.crop_pct is not None or name.startswith("ConvNext"):
        if isinstance(resize, tuple) or config.crop_size is not None:
            raise ArtifactError("crop_pct needs size with shortest_edge, and no crop_size", code="transform-crop-twice")
        if resize >= WARP_FROM:
            return (resize, resize), (resize, resize)
        share = CONVNEXT_CROP_SHARE if config.crop_pct is None else config.crop_pct
        _check_share(share)
        return int(resize / share), (resize, resize)
    crops = config.do_center_crop
    if crops is None and config.crop_size is not None:
        if not name.startswith(("Bit", "CLIP")):
            raise ArtifactError(
                "crop_size is given, but do_center_crop is not: true crops, false does not",
                code="transform-crop-unclear",
            )
        crops = True
    if crops:
        if config.crop_size is None:
            raise ArtifactError("do_center_crop needs crop_size", code="transform-crop-missing")
        return resize, _sides("crop_size", config.crop_size)
    if not isinstance(resize, tuple):
        raise ArtifactError(
            "size has shortest_edge, but nothing crops the image to the input of the network",
            code="transform-size-open",
        )
    return resize, resize


def _hugging_face_resize(config: HuggingFaceConfig, name: str) -> int | Size:
    size = config.size
    if isinstance(size, Mapping):
        if set(size) == {"shortest_edge"}:
            return size["shortest_edge"]
        return _sides("size", size)
    if config.default_to_square is not None:
        return (size, size) if config.default_to_square else size
    if config.crop_pct is not None or name.startswith(("ConvNext", "Bit", "CLIP")):
        return size
    if name.startswith(("ViT", "DeiT")):
        return size, size
    raise ArtifactError(
        f"size {size} may be the shorter side or both sides; shortest_edge, or height and width, would say so",
        code="transform-size-unclear",
    )


def _sides(name: str, size: int | Mapping[str, int]) -> Size:
    if isinstance(size, int):
        return size, size
    if set(size) != {"height", "width"}:
        raise ArtifactError(
            f"{name} must have height and width, not {quote(', '.join(sorted(size))) or 'nothing'}",
            code="transform-sides",
        )
    return size["height"], size["width"]


@dataclass(frozen=True)
class TorchvisionPreset:
    """The attributes of ``torchvision.transforms._presets.ImageClassification``."""

    crop_size: int | tuple[int] | tuple[int, int]
    resize_size: int | tuple[int] | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    antialias: bool = True


def _read_torchvision(data: Fields, _: Size | None) -> Preprocessing:
    """Read torchvision's preset. Its antialiasing concerns tensors only: Pillow images are always antialiased."""
    preset = codec.decode(TorchvisionPreset, data)
    word = preset.interpolation.rpartition(".")[2].lower()
    filter = next((one for one in INTERPOLATIONS if one == word), None)
    if filter is None:
        raise ArtifactError(
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, not {quote(word)!r}",
            code="transform-interpolation",
        )
    crop, resize = preset.crop_size, preset.resize_size
    height, width = (crop, crop) if isinstance(crop, int) else (crop[0], crop[-1])
    side = resize if isinstance(resize, int) else resize if len(resize) == 2 else resize[0]
    view = Preprocessing(side, (height, width), 0, preset.mean, preset.std, interpolation=filter)
    return view if preset.antialias else replace(view, antialias=False)
