"""A network of other than 1 or 3 channels takes no image files: each command that reads such files says so at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.export_request import ExportRequest
from exporter.inspect.predict import PredictionRequest, predict
from exporter.models.variants import customise
from exporter.network import prepare
from exporter.preprocessing.options import NOTHING_CHOSEN, PreprocessingOptions
from exporter.weights.sources import resolve
from runtimes import Artifact
from runtimes.errors import CompatibilityError, Reason, UsageError
from runtimes.serving.model import ServedModel
from tests.exporter.small import BASIC, SILENT, export, recording
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import request, run, write_images

FOUR = customise(BASIC, in_channels=4)
HALVES = PreprocessingOptions(mean=(0.5,) * 4, std=(0.5,) * 4)


@pytest.fixture(scope="module", params=["described", "undescribed", "raw"])
def four(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A network of four channels, with and without preprocessing."""
    options = NOTHING_CHOSEN if request.param == "undescribed" else HALVES
    return export(FOUR, tmp_path_factory.mktemp("four"), raw=request.param == "raw", preprocessing=options)


def test_predict_refuses_it_before_it_reads_an_image(four: Artifact, tmp_path: Path) -> None:
    with refuses(CompatibilityError, "channels-not-of-images", four.path, "4 channels") as caught:
        predict(PredictionRequest(four.path), [tmp_path / "no such image.png"], SILENT)
    assert caught.value.exit_code == 4


def test_a_file_without_its_manifest_is_refused_as_well(tmp_path: Path) -> None:
    alone = export(FOUR, tmp_path, preprocessing=HALVES)
    alone.path.with_name(f"{alone.path.name}.json").unlink()
    with refuses(CompatibilityError, "channels-not-of-images"):
        predict(PredictionRequest(alone.path), [], SILENT)


def test_label_refuses_it_and_leaves_no_folder(four: Artifact, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 2)
    with refuses(CompatibilityError, "channels-not-of-images", four.path):
        run(request(photos, four.path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_serve_opens_it_for_tensors(four: Artifact, notice_codes: list[str]) -> None:
    model = ServedModel.open(four.path, "four", "onnxruntime")
    try:
        assert (model.classifier, model.labels_images) == (None, False)
        assert [spec.name for spec in model.runtime.outputs] == ["logits"]
    finally:
        model.close()
    assert notice_codes == ["model-opened-for-tensors"]


@pytest.mark.parametrize(("channels", "words"), [(1, "--mean 0.5 --std 0.5"), (4, "image files have 1 or 3 channels")])
def test_the_export_says_what_uses_it(channels: int, words: str) -> None:
    notices, listener = recording()
    row = customise(BASIC, in_channels=channels)
    loaded = resolve("random", row, 0, SILENT.notice, SILENT.progress)
    trained = replace(loaded, record=replace(loaded.record, trained=True))
    prepare(ExportRequest(row, "unused", trained), listener)
    (line,) = [each for each in notices if isinstance(each, Reason) and each.code == "preprocessing-unrecorded"]
    assert words in line.sentence
    assert ("--mean" in line.sentence) == (channels == 1)


@pytest.mark.parametrize("options", [NOTHING_CHOSEN, HALVES])
def test_images_are_no_data_for_it(options: PreprocessingOptions) -> None:
    with refuses(UsageError, "data-channel-count", "--data", "4 input channels"):
        prepare(ExportRequest(FOUR, "unused", preprocessing=options, data="fashion-mnist"), SILENT)
