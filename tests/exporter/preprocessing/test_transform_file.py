from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exporter.preprocessing.transform_file import Transform, read_transform
from runtimes.errors import ArtifactError, ResourceError, UsageError
from runtimes.images.preprocessing import Preprocessing
from tests.refusals import refuses

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM: dict[str, Any] = {
    "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.95, "mean": MEAN, "std": STD, "url": "",
    "first_conv": "conv1", "classifier": "fc",
}  # fmt: skip
TWO_SIZES = TIMM | {"test_input_size": [3, 288, 288], "test_crop_pct": 1.0, "crop_mode": "center"}
CONVNEXT: dict[str, Any] = {
    "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": MEAN, "image_std": STD, "resample": 3, "size": 224,
}  # fmt: skip
BIT: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": MEAN, "image_processor_type": "BitImageProcessor",
    "image_std": STD, "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256},
    "data_format": "channels_first", "device": None, "return_tensors": None,
}  # fmt: skip
VIT: dict[str, Any] = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "image_processor_type": "ViTImageProcessor", "resample": 2, "size": {"height": 192, "width": 224},
}  # fmt: skip
TORCHVISION: dict[str, Any] = {
    "crop_size": [224], "resize_size": [232], "mean": MEAN, "std": STD, "interpolation": "InterpolationMode.BILINEAR",
}  # fmt: skip
OWN: dict[str, Any] = {"resize": [64, 64], "crop": [64, 64], "pad": 0, "mean": MEAN, "std": STD, "assumed": ["pad"]}


HUGGING_FACE: dict[str, Any] = {"interpolation": "bicubic", "crop_offset": "floor"}


def written(folder: Path, content: object) -> Path:
    path = folder / "file.json"
    path.write_text(json.dumps(content))
    return path


def read(folder: Path, content: object, size: tuple[int, int] | None = None) -> Transform:
    return read_transform(written(folder, content), size)


def imagenet(resize: Any, crop: int, **others: Any) -> Preprocessing:
    return Preprocessing(resize, (crop, crop), 0, MEAN, STD, **others)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (TIMM, imagenet(235, 224, interpolation="bicubic")),  # floor(224 / 0.95)
        ({"architecture": "resnet50", "pretrained_cfg": TIMM}, imagenet(235, 224, interpolation="bicubic")),
        (TIMM | {"crop_mode": "squash"}, imagenet((235, 235), 224, interpolation="bicubic")),
        (CONVNEXT, imagenet(256, 224, **HUGGING_FACE)),
        (CONVNEXT | {"crop_pct": None}, imagenet(256, 224, **HUGGING_FACE)),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, imagenet((384, 384), 384, **HUGGING_FACE)),
        (BIT, imagenet(256, 224, **HUGGING_FACE)),
        (BIT | {"do_center_crop": None, "crop_size": 224, "size": 256}, imagenet(256, 224, **HUGGING_FACE)),
        (VIT, Preprocessing((192, 224), (192, 224), 0, (0.5,) * 3, (0.5,) * 3, crop_offset="floor")),
        (
            VIT | {"do_normalize": False, "do_rescale": False, "size": 32},
            Preprocessing((32, 32), (32, 32), 0, (0.0,) * 3, (1.0,) * 3, scale=1, crop_offset="floor"),
        ),
        (TORCHVISION, imagenet(232, 224)),
        (TORCHVISION | {"resize_size": [224, 224], "interpolation": "bicubic"},
         imagenet((224, 224), 224, interpolation="bicubic")),
        (TORCHVISION | {"crop_size": 224, "resize_size": 232, "antialias": False}, imagenet(232, 224, antialias=False)),
        (OWN, imagenet((64, 64), 64)),
        ({"format_version": 1, "preprocessing": OWN, "name": "resnet18"}, imagenet((64, 64), 64)),
    ],
)  # fmt: skip
def test_each_kind_of_file_is_read(content: object, expected: Preprocessing, tmp_path: Path) -> None:
    assert read(tmp_path, content).preprocessing == expected


def test_the_kind_and_the_assumed_fields_are_kept(tmp_path: Path) -> None:
    own = read(tmp_path, OWN)
    assert own.source.endswith(" file.json")
    assert own.preprocessing.assumed == ("pad",)
    kinds = {read(tmp_path, content).source for content in (TIMM, BIT, TORCHVISION, OWN)}
    assert len(kinds) == 4


def test_of_two_sizes_one_must_be_chosen(tmp_path: Path) -> None:
    with refuses(UsageError, "transform-two-sizes", "224 x 224", "0.95", "--crop 288x288"):
        read(tmp_path, TWO_SIZES)
    assert read(tmp_path, TWO_SIZES, (288, 288)).preprocessing == imagenet(288, 288, interpolation="bicubic")
    assert read(tmp_path, TWO_SIZES, (224, 224)).preprocessing == imagenet(235, 224, interpolation="bicubic")
    with refuses(UsageError, "transform-two-sizes"):
        read(tmp_path, TWO_SIZES, (256, 256))
    with refuses(UsageError, "transform-two-sizes", "remove test_crop_pct"):
        read(tmp_path, TIMM | {"test_crop_pct": 1.0}, (224, 224))


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        ([], "transform-unknown", ["timm"]),
        ({"colour": 1}, "transform-unknown", ["torchvision"]),
        (TIMM | {"surprise": 1}, "field-unknown", ["'surprise'"]),
        (TIMM | {"mean": [0.5]}, "transform-channel-count", ["3 channels", "1 values"]),
        (TIMM | {"crop_pct": 0}, "transform-crop-share", ["crop_pct"]),
        (TIMM | {"crop_mode": "border"}, "transform-crop-mode", ["border"]),
        (TIMM | {"input_size": [3, 192, 224]}, "transform-crop-mode", ["192 x 224"]),
        (TIMM | {"interpolation": "random"}, "field-type-mismatch", ["'interpolation'", "random"]),
        ({name: TIMM[name] for name in TIMM if name != "std"}, "field-missing", ["'std'"]),
        ({"pretrained_cfg": 3}, "transform-not-object", ["pretrained_cfg"]),
        (BIT | {"do_flip_channel_order": True}, "field-type-mismatch", ["'do_flip_channel_order'"]),
        (BIT | {"do_pad": True}, "field-type-mismatch", ["'do_pad'"]),
        (BIT | {"do_resize": False}, "field-type-mismatch", ["'do_resize'"]),
        (BIT | {"do_thumbnail": True}, "field-unknown", ["'do_thumbnail'"]),
        (BIT | {"crop_size": None}, "transform-crop-missing", ["crop_size"]),
        (BIT | {"do_center_crop": False}, "transform-size-open", ["shortest_edge"]),
        (BIT | {"crop_pct": 0.9}, "transform-crop-twice", ["crop_pct", "crop_size"]),
        (BIT | {"crop_size": {"height": 3}}, "transform-sides", ["crop_size", "height and width"]),
        (BIT | {"size": {}}, "transform-sides", ["size", "nothing"]),
        (BIT | {"resample": 6}, "transform-resample", ["resample", "6"]),
        (BIT | {"image_std": None}, "transform-statistics-missing", ["image_std"]),
        (BIT | {"rescale_factor": 0.5}, "transform-rescale", ["0.5"]),
        (VIT | {"crop_size": 224}, "transform-crop-unclear", ["do_center_crop"]),
        (VIT | {"image_processor_type": "MyProcessor", "size": 224}, "transform-size-unclear", ["size 224"]),
        (CONVNEXT | {"crop_pct": 1.5}, "transform-crop-share", ["crop_pct", "1.5"]),
        (TORCHVISION | {"interpolation": "cubic"}, "transform-interpolation", ["bicubic", "cubic"]),
        (TORCHVISION | {"value_range": [0, 255]}, "field-unknown", ["'value_range'"]),
        (OWN | {"surprise": 1}, "field-unknown", ["'surprise'"]),
        (OWN | {"crop": [0, 1]}, "crop-or-pad-invalid", ["(0, 1)"]),
        ({"format_version": 1, "preprocessing": None}, "transform-empty", []),
    ],
)
def test_what_is_not_understood_is_named(content: Any, code: str, values: list[str], tmp_path: Path) -> None:
    with refuses(ArtifactError, code, "file.json", *values):
        read(tmp_path, content)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("resize: 224")
    with refuses(ArtifactError, "transform-not-json", path):
        read_transform(path)
    with refuses(ResourceError, "file-access-failed", "gone.json"):
        read_transform(tmp_path / "gone.json")
