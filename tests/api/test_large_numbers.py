"""Numbers that no library holds are refused by the functions of Python as by the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rexport
import runtimes
from tests.refusals import refuses

HUGE = 10**20


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name", ["num_classes", "in_channels", "batch", "opset", "pad", "calibration_images", "gate_images"]
)
def test_an_export_refuses_a_count_that_is_too_large(name: str) -> None:
    for number in (HUGE, np.uint64(2**63)):
        arguments: dict[str, Any] = {name: number}
        with refuses(rexport.UsageError, "number-too-large", name, number):
            rexport.export("resnet20", **arguments)


@pytest.mark.parametrize("name", ["input_size", "resize", "crop"])
def test_an_export_refuses_a_side_that_is_too_large(name: str) -> None:
    for size in (HUGE, (32, HUGE)):
        arguments: dict[str, Any] = {name: size}
        with refuses(rexport.UsageError, "number-too-large", name, HUGE):
            rexport.export("resnet20", **arguments)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"batch": HUGE}, "batch"),
        ({"threads": HUGE}, "threads"),
        ({"limit": HUGE}, "limit"),
        ({"processes": HUGE}, "processes"),
        ({"rounds": HUGE}, "rounds"),
        ({"calibration_images": HUGE}, "calibration images"),
        ({"seed": HUGE}, "seed"),
        ({"input_size": (32, HUGE)}, "size"),
    ],
)
def test_a_benchmark_refuses_what_is_too_large(arguments: dict[str, Any], word: str) -> None:
    with refuses(rexport.UsageError, "number-too-large", word, HUGE):
        rexport.benchmark("resnet20", **arguments)


def test_the_largest_seed_is_that_of_the_weights() -> None:
    with refuses(rexport.UsageError, "seed-out-of-range", HUGE):
        rexport.export("resnet20", seed=HUGE)


def test_an_opened_file_refuses_what_is_too_large(onnx_artifact: rexport.Artifact) -> None:
    path, image = onnx_artifact.path, np.zeros((4, 4, 3), np.uint8)
    with refuses(rexport.UsageError, "number-too-large", "batch"):
        runtimes.open(path, "onnxruntime", batch=HUGE)
    with rexport.Classifier.open(path, "onnxruntime") as classifier:
        with refuses(rexport.UsageError, "number-too-large", "batch"):
            classifier.predict(image, batch=HUGE)
        assert len(classifier.predict(image, top=HUGE)[0].labels) == 10
        with refuses(rexport.UsageError, "number-too-large", "batch"):
            classifier.embed(image, batch=HUGE)


def test_a_module_without_memory_for_its_images_is_refused() -> None:
    from torch import nn

    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    calls: list[dict[str, Any]] = [{"input_size": 2**31 - 1}, {"input_size": 8, "batch": 2**31 - 1}]
    for arguments in calls:
        with refuses(rexport.ResourceError, "image-memory-insufficient", "Sequential", "input_size"):
            rexport.export(module, in_channels=3, **arguments)
