"""The commands of a narrower precision, as users type them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import exporter
from exporter.cli import main
from exporter.data.opening import open_dataset
from runtimes import Artifact
from tests.exporter.command_line import here, rexport
from tests.exporter.small import content
from tests.refusals import error_codes


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README shows first, with fewer images."""
    folder = tmp_path_factory.mktemp("quantised")
    few = ("--calibration-images", "30", "--gate-images", "100")
    result = rexport(
        "onnx", "resnet20", "--weights", "bundled", "--precision", "int8", "--input", "raw", *few, "-o", f"{folder}/"
    )
    assert result.code == 0, result.stderr
    assert result.stdout == f"{folder}/resnet20.onnx\n"
    assert re.search(r"^int8: .*\d\.\d\d % on 100 images", result.stderr, re.MULTILINE)
    return folder / "resnet20.onnx"


def test_int8_is_one_option_away(quantised: Path, tmp_path: Path) -> None:
    manifest = Artifact.read(quantised).manifest
    assert manifest is not None
    assert (manifest.precision, manifest.inputs[0].dtype) == ("int8", "uint8")
    shoe = next(image for image, kind in _pictures() if kind == "Ankle boot")
    shoe.save(tmp_path / "shoe.png")
    result = here(main, "predict", quantised, tmp_path / "shoe.png")
    assert (result.code, "Ankle boot" in result.stdout) == (0, True)
    assert here(main, "verify", quantised).code == 0


def _pictures() -> Iterator[tuple[Image.Image, str]]:
    dataset = open_dataset("fashion-mnist", 50)
    assert dataset.targets is not None
    for index, target in enumerate(dataset.targets):
        yield Image.fromarray(np.asarray(dataset.image(index))), dataset.classes[target]


def test_explain_shows_what_ran_and_the_errors(quantised: Path) -> None:
    result = here(main, "explain", quantised, "--by", "stage")
    assert result.code == 0, result.stderr
    assert {"stem", "layer1", "layer2", "layer3", "head"} <= {
        line.split()[0] for line in result.stdout.splitlines() if line.split()
    }
    told = json.loads(here(main, "explain", quantised, "--json").stdout)
    assert told["precision"] == "int8"
    assert told["execution"]["precisions"] == {"int8": 20}
    assert told["errors"]["stages"]
    absent = ("no_execution", "no_execution_code", "no_errors", "no_errors_code")
    assert [told[name] for name in absent] == [None] * 4


def test_trained_weights_without_training_images_are_refused(tmp_path: Path) -> None:
    weights = Path(exporter.__file__).parent / "bundled" / "resnet20-fashion-mnist.safetensors"
    shutil.copy(weights, tmp_path / "mine.safetensors")
    result = here(main, "onnx", "resnet20", "--weights", "mine.safetensors", "--precision", "int8", cwd=tmp_path)
    assert (result.code, result.stdout) == (2, "")
    assert error_codes(result.stderr) == ["calibration-data-missing"]
    assert "--calibration DIR" in result.stderr
    assert set(content(tmp_path)) == {"mine.safetensors"}


def test_trained_weights_are_calibrated_on_training_images(tmp_path: Path) -> None:
    weights = Path(exporter.__file__).parent / "bundled" / "resnet20-fashion-mnist.safetensors"
    (tmp_path / "photos").mkdir()
    for number, (image, _) in enumerate(_pictures()):
        image.save(tmp_path / "photos" / f"{number}.png")
    result = here(
        main,
        "onnx",
        "resnet20",
        "--weights",
        weights,
        "--precision",
        "int8",
        "--calibration",
        "photos",
        "-o",
        "x.onnx",
        "--calibration-images",
        "20",
        cwd=tmp_path,
    )
    assert result.code == 0, result.stderr
    manifest = Artifact.read(tmp_path / "x.onnx").manifest
    assert manifest is not None
    assert manifest.calibration is not None
    assert manifest.gate is not None
    data = (manifest.calibration.data, manifest.gate.data)
    assert [(text.split()[0], text.split()[-1]) for text in data] == [("20", "photos"), ("30", "photos")]


def test_a_program_is_typed_as_an_onnx_file_is(tmp_path: Path) -> None:
    result = rexport(
        "torch",
        "resnet20",
        "--weights",
        "bundled",
        "--precision",
        "bf16",
        "--gate-images",
        "60",
        "-o",
        tmp_path / "x.pt2",
    )
    assert result.code == 0, result.stderr
    assert re.search(r"^bf16: .*\d\.\d\d % on 60 images", result.stderr, re.MULTILINE)
    manifest = Artifact.read(tmp_path / "x.pt2").manifest
    assert manifest is not None
    assert manifest.gate is not None
    assert (manifest.format, manifest.precision, manifest.gate.images) == ("pt2", "bf16", 60)
    assert here(main, "verify", tmp_path / "x.pt2").code == 0
