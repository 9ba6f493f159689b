"""What the user chose, what the weights know and what is assumed come to one preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.cli import onnx as onnx_command
from exporter.commands.options import request_of
from exporter.export_request import ExpectedAccuracy, ExportRequest
from exporter.models.resnet import build
from exporter.models.variants import customise, variant
from exporter.preprocessing.description import assumption, black_margin, describe_steps
from exporter.preprocessing.options import ASSUMABLE, NOTHING_CHOSEN, PreprocessingOptions, choose_preprocessing
from exporter.weights.sources import LoadedWeights
from runtimes.errors import ModelMismatchError, UsageError
from runtimes.images.preprocessing import Preprocessing
from tests.exporter.small import SILENT, recording
from tests.refusals import refuses

NET = customise(variant("resnet18"), size=(64, 64))
KNOWN = Preprocessing(70, (64, 64), 0, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
HALF = (0.5, 0.5, 0.5)


def chosen(options: PreprocessingOptions, known: Preprocessing | None = None) -> Preprocessing:
    result = choose_preprocessing(options, known, NET)
    assert result is not None
    return result


def test_everything_is_assumed_where_nothing_is_known() -> None:
    view = chosen(NOTHING_CHOSEN)
    assert view == Preprocessing(73, (64, 64), 0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert view.assumed == ASSUMABLE
    assert set(ASSUMABLE) | {"assumed", "scaled_decoding"} == set(Preprocessing.__dataclass_fields__)


def test_what_the_weights_know_is_not_assumed() -> None:
    view = chosen(PreprocessingOptions(interpolation="bicubic"), KNOWN)
    assert (view.resize, view.interpolation, view.mean, view.assumed) == (70, "bicubic", KNOWN.mean, ())


def test_what_the_user_chose_is_not_assumed() -> None:
    view = chosen(PreprocessingOptions(resize=(64, 64), mean=HALF, std=HALF))
    assert (view.resize, view.crop, view.mean) == ((64, 64), (64, 64), HALF)
    assert view.assumed == ("pad", "interpolation", "antialias", "channel_order", "scale", "crop_offset")


def test_padding_leaves_the_size_of_the_input() -> None:
    view = chosen(PreprocessingOptions(pad=2))
    assert (view.crop, view.pad, view.size) == ((60, 60), 2, (64, 64))


def test_imagenets_means_belong_to_colours_and_scales() -> None:
    view = chosen(PreprocessingOptions(channel_order="BGR", scale=1))
    assert view.mean == pytest.approx((103.53, 116.28, 123.675))
    assert view.std == pytest.approx((57.375, 57.12, 58.395))
    text = str(assumption("best.pth", view))
    assert "116.28, 123.675)" in text
    given = chosen(PreprocessingOptions(channel_order="BGR", mean=(0.1, 0.2, 0.3), std=HALF))
    assert given.mean == (0.1, 0.2, 0.3)
    moved = chosen(PreprocessingOptions(channel_order="BGR"), KNOWN)
    assert (moved.mean, moved.std) == (KNOWN.mean[::-1], KNOWN.std[::-1])
    assert "mean" in chosen(PreprocessingOptions(channel_order="BGR", scale=1)).assumed


def test_a_file_is_the_base_of_the_options(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"resize": 80, "crop": [64, 64], "pad": 0, "mean": HALF, "std": HALF}))
    options = PreprocessingOptions(resize=(64, 64)).with_file(path, None)
    assert options.input_size() == (64, 64)
    assert chosen(options, KNOWN) == Preprocessing((64, 64), (64, 64), 0, HALF, HALF)
    assert PreprocessingOptions(pad=4).with_file(path, None).input_size() == (72, 72)
    assert NOTHING_CHOSEN.with_file(None, None) is NOTHING_CHOSEN


@pytest.mark.parametrize(
    ("options", "error", "code", "values"),
    [
        (PreprocessingOptions(mean=(124.0, 117.0, 104.0), std=HALF), UsageError, "mean-scale-unclear",
         ["124.0,117.0,104.0", "--scale 1", "--scale 255"]),
        (PreprocessingOptions(crop=(48, 48)), ModelMismatchError, "preprocessing-shape",
         ["48 x 48", "64 x 64", "--size 48x48"]),
        (PreprocessingOptions(interpolation="box", antialias=False), UsageError, "antialias-needs-filter", []),
        (PreprocessingOptions(pad=32), UsageError, "pad-exceeds-input", ["64 x 64", "--pad 31"]),
    ],
)  # fmt: skip
def test_contradictions_are_refused(options: PreprocessingOptions, error: Any, code: str, values: list[str]) -> None:
    with refuses(error, code, *values):
        chosen(options)


def test_a_mean_of_either_scale_is_taken_with_its_scale() -> None:
    view = chosen(PreprocessingOptions(mean=(124.0, 117.0, 104.0), std=HALF, scale=1))
    assert (view.scale, view.mean) == (1, (124.0, 117.0, 104.0))


def test_a_grey_network_needs_statistics_for_options() -> None:
    grey = customise(NET, in_channels=1)
    assert choose_preprocessing(NOTHING_CHOSEN, None, grey) is None
    with refuses(UsageError, "preprocessing-needs-statistics", "1 input channels", "--mean"):
        choose_preprocessing(PreprocessingOptions(resize=64), None, grey)


def test_steps_are_described_in_their_order() -> None:
    view = Preprocessing(
        (64, 48), (60, 44), 2, HALF, HALF, interpolation="bicubic", antialias=False, channel_order="BGR", scale=1
    )
    steps = describe_steps(view, raw=True).split("; ")
    assert [word in steps[0] for word in ("64x48", "bicubic", "antialiasing")] == [True] * 3
    assert ["60x44" in steps[1], "2 " in steps[2], "BGR" in steps[3], "255" in steps[4]] == [True] * 4
    assert steps[-1].endswith("in the graph")


def test_the_notice_names_what_is_assumed_alone() -> None:
    text = str(assumption("best.pth", chosen(PreprocessingOptions(resize=(64, 64), mean=HALF, std=HALF))))
    assert [word in text for word in ("bilinear", "RGB", "divided by 255")] == [True] * 3
    assert [word in text for word in ("resized to", "crop of", "ImageNet", "BGR")] == [False] * 4
    assert "times 255" in str(assumption("best.pth", chosen(PreprocessingOptions(scale=1))))


def requested(*arguments: str, network: str = "resnet18") -> ExportRequest:
    with onnx_command.make_context("onnx", [network, *arguments]) as context:
        return request_of(network, context.params, SILENT)


@pytest.mark.parametrize(
    ("network", "arguments", "side"),
    [
        ("resnet18", "--resize 64", 64),
        ("resnet18", "--resize 64 --pad 4", 72),
        ("resnet18", "--resize 256", 224),
        ("resnet18", "--resize 232", 224),
        ("resnet18", "--resize 224", 224),
        ("resnet18", "--resize 64 --size 96", 96),
        ("resnet18", "--resize 64 --crop 56", 56),
        ("resnet18", "--resize 128 --weights imagenet", 224),
        ("resnet20", "--resize 28 --weights bundled", 32),
        ("resnet20", "--resize 40", 32),
        ("resnet20", "--resize 24", 24),
    ],
)
def test_a_resize_below_the_usual_size_is_the_size(network: str, arguments: str, side: int) -> None:
    """A larger one is cropped, as ImageNet's 256 and 232 pixels are; weights with their preprocessing keep theirs."""
    assert requested(*arguments.split(), network=network).variant.size == (side, side)


def test_a_transform_says_the_size_beside_a_resize(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"resize": 80, "crop": [72, 72], "pad": 0, "mean": HALF, "std": HALF}))
    assert requested("--resize", "64", "--transform", str(path)).variant.size == (72, 72)


@pytest.mark.parametrize(("resize", "side"), [(24, 24), (40, 32)])
def test_a_checkpoint_takes_the_size_of_a_small_resize(resize: int, side: int, tmp_path: Path) -> None:
    notices, listener = recording()
    torch.save(build(customise(variant("resnet20"), shortcut="B")).state_dict(), tmp_path / "best.pth")
    checkpoint = str(tmp_path / "best.pth")
    with onnx_command.make_context("onnx", [checkpoint, "--resize", str(resize)]) as context:
        request = request_of(checkpoint, context.params, listener)
    assert isinstance(request.weights, LoadedWeights)
    assert (request.variant.size, request.weights.record.assumed) == ((side, side), ("size",))
    assert f"size {side}x{side} (--size)" in str(notices[0])
    view = choose_preprocessing(request.preprocessing, None, request.variant)
    assert view is not None
    assert (view.resize, view.crop) == (resize, (side, side))
    assert black_margin(view) is None


def test_options_of_the_command_line_become_fields() -> None:
    request = requested(
        "--resize", "64x48", "--crop", "40", "--interpolation", "BOX", "--antialias", "--pad", "3",
        "--crop-offset", "floor", "--channels-order",
        "bgr", "--scale", "1", "--mean", "1,2,3", "--std", "4,5,6", "--expect-top1", "67.6", "--tolerance", "1",
    )  # fmt: skip
    assert request.preprocessing == PreprocessingOptions(
        resize=(64, 48),
        crop=(40, 40),
        pad=3,
        interpolation="box",
        antialias=True,
        channel_order="BGR",
        scale=1,
        crop_offset="floor",
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
    )
    assert request.variant.size == (46, 46)
    assert request.expected is not None
    assert request.expected.top1 == pytest.approx(0.676)
    assert request.expected.tolerance == 0.01
    plain = requested("--resize", "256")
    assert (plain.preprocessing, plain.variant.size) == (PreprocessingOptions(resize=256), (224, 224))
    assert plain.expected is None
    assert requested("--no-antialias").preprocessing.antialias is False
    assert requested("--resize", "64x64").variant.size == (64, 64)
    assert requested("--resize", "64x64", "--size", "32").variant.size == (32, 32)


@pytest.mark.parametrize(("top1", "tolerance"), [(0.67, 0.5), (100.1, 0.5), (-3, 0.5), (50, -1), (float("nan"), 1)])
def test_an_accuracy_that_is_no_percentage_is_refused(top1: float, tolerance: float) -> None:
    with refuses(UsageError, "expected-top1-invalid", f"{top1:g}", f"{tolerance:g}"):
        ExpectedAccuracy.from_percent(top1, tolerance)
    assert ExpectedAccuracy.from_percent(None, 0.5) is None
