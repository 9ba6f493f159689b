from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.data.opening import open_dataset
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.network import Network, prepare
from exporter.precision import calibration_images
from exporter.precision.calibration_images import for_calibration, for_gate
from exporter.precision.spec import PrecisionSpec
from runtimes.errors import InputError, ModelMismatchError, UsageError
from runtimes.images.preprocessing import fit_image, normalise
from tests.exporter.small import BASIC, SILENT
from tests.refusals import refuses


@pytest.fixture(scope="module")
def trained() -> Network:
    return prepare(ExportRequest(variant("resnet20"), "unused", weights="bundled"), SILENT)


@pytest.fixture(scope="module")
def untrained() -> Network:
    return prepare(ExportRequest(BASIC, "unused", seed=3), SILENT)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures in one folder."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


def test_bundled_weights_are_calibrated_on_training_images(trained: Network) -> None:
    found = for_calibration(trained, None, 100)
    assert len(found) == 100
    assert "fashion-mnist" in found.description
    test = {fit_image(image, trained.preprocessing).tobytes() for image in open_dataset("fashion-mnist").images}  # type: ignore[arg-type]
    assert not any(image.tobytes() in test for image in found.values)


def test_bundled_weights_are_judged_on_labelled_test_images(trained: Network) -> None:
    found = for_gate(trained, None, 300, 50)
    assert (len(found), found.description.split()[-1]) == (50, "fashion-mnist")
    assert found.targets is not None
    assert found.targets.shape == (50,)
    assert set(found.targets) <= set(range(10))


def test_untrained_weights_take_noise(untrained: Network) -> None:
    first, second = for_calibration(untrained, None, 100), for_gate(untrained, None, 100, 100)
    assert (first.real, second.real, first.targets, second.targets) == (False, False, None, None)
    assert first.description != second.description
    assert first.floats(0, 2).shape == (2, 3, 16, 16)
    assert not np.array_equal(first.floats(0, 7), second.floats(0, 7))
    assert not np.array_equal(first.floats(0, 7), untrained.vectors.inputs)


def test_other_trained_weights_need_images(trained: Network) -> None:
    stranger = dataclasses.replace(trained, dataset="photos", data=None)
    with refuses(UsageError, "calibration-data-missing", "--calibration"):
        for_calibration(stranger, None, 100)


def test_a_folder_of_pictures_serves_for_both(untrained: Network, photos: Path) -> None:
    calibration = for_calibration(untrained, str(photos), 30)
    judges = for_gate(untrained, str(photos), 30, 1000)
    assert (len(calibration), len(judges), judges.targets, judges.real) == (30, 10, None, True)
    seen = {image.tobytes() for image in calibration.values}
    assert not any(image.tobytes() in seen for image in judges.values)


def test_calibration_images_that_judge_too_are_marked(untrained: Network, photos: Path) -> None:
    judges = for_gate(untrained, str(photos), 40, 1000)
    calibration = for_calibration(untrained, str(photos), 40)
    assert len(judges) == len(calibration) == 40
    assert judges.description.startswith(f"{calibration.description} ")


def test_floats_are_the_manifests_preprocessing(untrained: Network, photos: Path) -> None:
    found = for_calibration(untrained, str(photos), 5)
    assert untrained.preprocessing is not None
    pixels = found.values[1:4].astype(np.uint8)
    np.testing.assert_array_equal(found.floats(1, 4), normalise(pixels, untrained.preprocessing))
    np.testing.assert_array_equal(found.feeds(1, 4, raw=True), found.values[1:4])
    np.testing.assert_array_equal(found.feeds(1, 4, raw=False), found.floats(1, 4))


def test_noise_for_raw_input_is_pixels() -> None:
    network = prepare(ExportRequest(BASIC, "unused", raw=True), SILENT)
    found = for_gate(network, None, 300, 1000)
    assert found.feeds(0, 2, raw=True).dtype == np.uint8
    assert found.feeds(0, 2, raw=True).shape == (2, 16, 16, 3)
    assert found.floats(0, 2).shape == (2, 3, 16, 16)
    assert found.floats(0, 2).dtype == np.float32


def test_a_broken_picture_is_named(untrained: Network, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with refuses(InputError, "image-format-unknown", tmp_path / "broken.png"):
        for_calibration(untrained, str(tmp_path), 5)


def test_data_of_other_classes_are_refused(trained: Network) -> None:
    other = dataclasses.replace(trained, classes=7)
    with refuses(ModelMismatchError, "class-count-mismatch", "10", "7"):
        for_gate(other, None, 300, 20)


def test_images_need_a_preprocessing(untrained: Network, photos: Path) -> None:
    with refuses(UsageError, "images-need-statistics", "--mean", "--std", "3"):
        for_calibration(dataclasses.replace(untrained, preprocessing=None), str(photos), 5)


@pytest.mark.parametrize(
    ("options", "code", "values"),
    [
        ({"precision": "int4"}, "precision-unknown", ["'int4'", "fp32", "tf32", "fp16", "bf16", "int8"]),
        ({"precision": "int8", "calibration_images": 0}, "image-count-below-one", []),
        ({"precision": "int8", "gate_images": 0}, "image-count-below-one", []),
    ],
)
def test_wrong_values_are_refused(options: dict[str, object], code: str, values: list[str]) -> None:
    with refuses(UsageError, code, *values):
        PrecisionSpec(**options)  # type: ignore[arg-type]


def test_noise_calibrates_with_few_images(untrained: Network) -> None:
    assert len(for_calibration(untrained, None, 5000)) == calibration_images.NOISE_IMAGES
