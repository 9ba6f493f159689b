"""Pictures of heat maps: their files, their colours, and ``rexport predict --cam``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from exporter.export_request import ExportRequest
from exporter.inspect import overlay
from exporter.inspect.overlay import CAPTION, MARGIN, draw, picture_paths
from exporter.inspect.predict import PredictionRequest, as_json, predict
from exporter.targets import onnx_file
from runtimes import Artifact
from runtimes.errors import ArtifactError, ResourceError, UsageError
from tests.exporter.small import BASIC, SILENT
from tests.refusals import refuses


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    request = ExportRequest(BASIC, f"{tmp_path_factory.mktemp('model')}/", outputs=("logits", "cam"))
    return onnx_file.export(request, SILENT)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "in" / name for name in ("a.png", "b.png", "other/a.png")]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path)
    return paths


def test_one_image_is_one_file(model: Artifact, photos: list[Path], tmp_path: Path) -> None:
    (answer,) = predict(PredictionRequest(model.path, cam=str(tmp_path / "out.png")), photos[:1], SILENT)
    assert answer.cam == str(tmp_path / "out.png")
    with PIL.Image.open(answer.cam) as picture:
        assert picture.size == (2 * 224 + 3 * MARGIN, round(224 * 20 / 30) + 2 * MARGIN + CAPTION)
    (row,) = json.loads(as_json([answer]))
    assert row["cam"] == answer.cam


def test_several_images_are_a_folder(model: Artifact, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    images = [*photos, tmp_path / "in" / "broken.png"]
    answers = predict(PredictionRequest(model.path, cam=str(tmp_path / "maps")), images, SILENT)
    assert [None if answer.cam is None else Path(answer.cam).name for answer in answers] == [
        "a.png", "b.png", "a-2.png", None
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a-2.png", "a.png", "b.png"]


def test_a_picture_is_not_replaced_unasked(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"old")
    with refuses(UsageError, "target-exists", "out.png", "--force", "--cam FILE"):
        picture_paths(str(tmp_path / "out.png"), photos[:1], force=False)
    assert picture_paths(str(tmp_path / "out.png"), photos[:1], force=True) == [tmp_path / "out.png"]


def test_names_that_do_not_fit_are_refused(photos: list[Path], tmp_path: Path) -> None:
    with refuses(UsageError, "cam-needs-folder", "3 images"):
        picture_paths(str(tmp_path / "out.png"), photos, force=False)
    with refuses(UsageError, "cam-suffix-unknown", "out.txt"):
        picture_paths(str(tmp_path / "out.txt"), photos[:1], force=False)
    with pytest.raises(ResourceError):
        picture_paths(str(tmp_path / "none" / "out.png"), photos[:1], force=False)


def test_a_model_without_maps_is_refused(onnx_artifact: Artifact, photos: list[Path], tmp_path: Path) -> None:
    with refuses(ArtifactError, "output-absent", "--output cam"):
        predict(PredictionRequest(onnx_artifact.path, cam=str(tmp_path / "out.png")), photos[:1], SILENT)
    assert not (tmp_path / "out.png").exists()
    with refuses(ArtifactError, "output-absent"):
        predict(PredictionRequest(onnx_artifact.path, cam=f"{tmp_path}/maps/new/"), photos[:1], SILENT)
    assert not (tmp_path / "maps").exists()


def test_without_pictures_there_is_no_folder(model: Artifact, tmp_path: Path) -> None:
    (answer,) = predict(PredictionRequest(model.path, cam=f"{tmp_path}/maps/"), [tmp_path / "nosuch.png"], SILENT)
    assert answer.error is not None
    assert not (tmp_path / "maps").exists()


def test_a_file_is_no_folder_for_pictures(model: Artifact, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "maps").touch()
    with refuses(ResourceError, "file-access-failed"):
        predict(PredictionRequest(model.path, cam=str(tmp_path / "maps")), photos, SILENT)


def corners(heat: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[tuple[int, ...]]:
    """The colours of the corners of a grey image under the map."""
    pixels = np.full((*heat.shape, 3), 100, np.uint8)
    blended = overlay._blend(pixels, heat)
    return [tuple(map(int, blended[row, column])) for row in (0, -1) for column in (0, -1)]


def test_colours_show_the_map() -> None:
    heat = np.full((8, 8), -1, np.float32)
    heat[0, 0], heat[0, -1], heat[-1, 0] = 4, 0, np.nan
    warm, nothing, unseen, against = corners(heat)
    assert warm[0] > warm[2] + 50  # red
    assert nothing == against == (100, 100, 100)
    assert unseen == (33, 33, 33)


def test_a_map_of_nothing_leaves_the_image_grey() -> None:
    assert set(corners(np.zeros((4, 4), np.float32))) == {(100, 100, 100)}
    assert set(corners(np.full((4, 4), np.nan, np.float32))) == {(33, 33, 33)}


@pytest.mark.parametrize(("height", "width"), [(900, 1200), (3, 5), (1, 700)])
def test_pictures_have_a_readable_size(height: int, width: int) -> None:
    pixels = np.zeros((height, width, 1), np.uint8)
    picture = draw(pixels, np.ones((height, width), np.float32), "a label that is too long for the picture " * 5)
    inner = (picture.width - 3 * MARGIN) / 2
    assert overlay.SMALLEST <= inner <= overlay.LARGEST
