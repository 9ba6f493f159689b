"""The export with scaled decoding compares predictions on the user's images, and those who cannot follow refuse."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from exporter.deploy.web import SiteRequest, write_site
from exporter.export_request import ExportListener, ExportRequest
from exporter.models.variants import variant
from exporter.preprocessing.options import PreprocessingOptions
from exporter.targets import onnx_file, scaled_decoding
from runtimes import Artifact, Classifier, TensorSpec
from runtimes.errors import CheckFailedError, CompatibilityError, Reason, UsageError
from runtimes.images.preprocessing import fit_image
from tests.conftest import SILENT
from tests.refusals import refuses

SCALED = PreprocessingOptions(resize=(32, 32), scaled_decoding=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photographs of 300 x 200 pixels, each in a class of its own."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(10):
        path = folder / f"class-{number}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        coarse = PIL.Image.fromarray(random.integers(0, 256, (6, 9, 3), np.uint8))
        coarse.resize((300, 200), PIL.Image.Resampling.BICUBIC).save(path, quality=92)
    return folder


def _request(folder: Path, data: Path | None) -> ExportRequest:
    return ExportRequest(
        variant("resnet20"),
        f"{folder}/scaled.onnx",
        data=None if data is None else str(data),
        preprocessing=SCALED,
    )


@pytest.fixture(scope="module")
def scaled(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact that decodes JPEG files at a fraction of their size."""
    return onnx_file.export(_request(tmp_path_factory.mktemp("scaled"), photos), SILENT)


def test_the_comparison_stands_in_the_manifest(scaled: Artifact) -> None:
    assert scaled.manifest is not None
    assert scaled.manifest.preprocessing is not None
    assert scaled.manifest.preprocessing.scaled_decoding
    record = scaled.manifest.decoding
    assert record is not None
    assert (record.images, record.scaled, record.least) == (10, 10, scaled_decoding.LEAST_AGREEMENT)
    assert record.agreement >= record.least
    assert 0 < record.max_difference < 0.1
    assert Artifact.read(scaled.path).manifest == scaled.manifest


def test_all_ways_to_predict_decode_alike(scaled: Artifact, photos: Path) -> None:
    with Classifier.open(scaled.path, "onnxruntime") as classifier:
        paths = sorted(photos.rglob("*.jpg"))
        predicted = [prediction.probability for prediction in classifier.predict(paths)]
        pixels = np.stack([fit_image(path, classifier.preprocessing) for path in paths])
        answered = classifier.answer(pixels).probabilities.max(axis=1)
        prepared = [classifier.interpret(classifier.runtime.infer(classifier.prepare(path)))[0] for path in paths]
    np.testing.assert_allclose(predicted, answered, atol=1e-6)
    np.testing.assert_allclose(predicted, [one.probability for one in prepared], atol=1e-6)


def test_changed_predictions_fail_the_export(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled_decoding, "LEAST_AGREEMENT", 1.1)
    with refuses(CheckFailedError, "scaled-decoding-differs", "--full-decoding"):
        onnx_file.export(_request(tmp_path, photos), SILENT)
    assert not list(tmp_path.iterdir())


def test_small_images_test_nothing(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"class-{number}").mkdir()
        PIL.Image.new("RGB", (40, 40)).save(tmp_path / f"class-{number}" / "1.jpg")
    notices: list[str | Reason] = []
    onnx_file.export(_request(tmp_path, tmp_path), ExportListener(lambda _: None, notices.append))
    assert "scaled-decoding-untested" in {notice.code for notice in notices if isinstance(notice, Reason)}


def test_without_images_nothing_is_scaled(tmp_path: Path) -> None:
    with refuses(UsageError, "scaled-decoding-without-data", "--data"):
        onnx_file.export(_request(tmp_path, None), SILENT)


def test_without_logits_nothing_is_compared(scaled: Artifact) -> None:
    assert scaled.manifest is not None
    trunk = SimpleNamespace(outputs=(TensorSpec("features", "float32", ("batch", 64)),))
    network = SimpleNamespace(preprocessing=scaled.manifest.preprocessing, data="photos")
    with refuses(UsageError, "scaled-decoding-without-logits", "--output logits"):
        scaled_decoding.check(trunk, network, SILENT)  # type: ignore[arg-type]


def test_a_page_refuses_what_it_cannot_follow(scaled: Artifact, tmp_path: Path) -> None:
    page = SiteRequest(scaled.path, f"{tmp_path}/page.html")
    with refuses(CompatibilityError, "web-scaled-decoding", "--full-decoding"):
        write_site(page, SILENT)
