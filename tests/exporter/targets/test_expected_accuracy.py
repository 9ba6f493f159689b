"""A network that was trained on squashed images: exported as it was evaluated, it answers as PyTorch's own loop did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

import runtimes
from exporter.data.opening import open_dataset
from exporter.export_request import ExpectedAccuracy, ExportRequest
from exporter.inspect import manifest_view
from exporter.models.resnet import build, initialise, settle_statistics
from exporter.models.variants import customise
from exporter.preprocessing.alternatives import alternatives
from exporter.preprocessing.options import ASSUMABLE, NOTHING_CHOSEN, PreprocessingOptions
from exporter.targets import onnx_file
from exporter.targets.expected_accuracy import _best_order
from runtimes import Artifact
from runtimes.artifacts.embedded import manifest_digest, read_embedded
from runtimes.errors import CheckFailedError, UsageError
from runtimes.images.preprocessing import Preprocessing, fit_image
from tests.exporter.small import BASIC, SILENT, reason_codes, recording
from tests.refusals import refuses

NET = customise(BASIC, classes=3)
SQUASH = PreprocessingOptions(resize=NET.size)
COUNT = 48
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Trained:
    """Weights, images in a folder for each class, and the class that PyTorch's own loop gives each image's path."""

    weights: Path
    photos: Path
    classes: dict[str, int]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A network whose last bias makes its classes equally frequent; the images' labels are what the loop answers."""
    folder = tmp_path_factory.mktemp("trained")
    model = build(NET)
    initialise(model, 7)
    settle_statistics(model, 7)
    model.eval()
    random = np.random.default_rng(0)
    sides = random.integers(0, 256, (COUNT, 4, 12, 3), np.uint8)  # coarse colours, wider than high
    pictures = [PIL.Image.fromarray(side).resize((60, 20), PIL.Image.Resampling.NEAREST) for side in sides]
    with torch.inference_mode():
        logits = torch.cat([model(squashed(picture)) for picture in pictures])
        model.fc.bias.sub_(logits.median(0).values)
        classes = torch.cat([model(squashed(picture)) for picture in pictures]).argmax(1).tolist()
    torch.save(model.state_dict(), folder / "best.pth")
    answers = {}
    for number, (picture, answer) in enumerate(zip(pictures, classes, strict=True)):
        path = folder / "photos" / "abc"[answer] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        answers[str(path)] = answer
    assert set(classes) == {0, 1, 2}
    return Trained(folder / "best.pth", folder / "photos", answers)


def squashed(picture: PIL.Image.Image) -> torch.Tensor:
    """As a user's evaluation prepares an image: Pillow's resize to both sides, then torch."""
    pixels = np.array(picture.resize(NET.size[::-1], PIL.Image.Resampling.BILINEAR))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((torch.from_numpy(pixels).permute(2, 0, 1).float().div(255) - mean) / std)[None]


def request(trained: Trained, folder: Path, options: PreprocessingOptions, top1: float = 100.0) -> ExportRequest:
    return ExportRequest(
        NET,
        f"{folder}/",
        str(trained.weights),
        data=str(trained.photos),
        preprocessing=options,
        expected=ExpectedAccuracy.from_percent(top1, 0.5),
    )


@pytest.fixture(scope="module")
def artifact(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return onnx_file.export(request(trained, tmp_path_factory.mktemp("made"), SQUASH), SILENT)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_classifier_answers_as_the_loop(artifact: Artifact, trained: Trained, backend: str) -> None:
    with runtimes.Classifier.open(artifact.path, backend) as classifier:
        answers = classifier.predict(list(trained.classes))
    assert [answer.labels[0].index for answer in answers] == list(trained.classes.values())


def test_the_passed_check_is_recorded(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert manifest is not None
    record = manifest.accuracy
    assert record is not None
    assert (record.top1, record.expected, record.tolerance, record.images) == (1.0, 1.0, 0.005, COUNT)
    assert Artifact.read(artifact.path).manifest == manifest
    embedded = read_embedded(artifact)
    assert embedded is not None
    assert embedded.manifest == manifest_digest(manifest)  # the description in the file was written after the check
    assert embedded.preprocessing == manifest.preprocessing
    facts = dict(line.split("  ", 1) for line in manifest_view.as_text(artifact.path).splitlines())
    assert "100.00 %" in facts["accuracy"]
    assert facts["preprocessing"].strip().startswith("squashed to 16x16; ")
    assumed = [name for name in ASSUMABLE if name not in ("resize", "crop")]
    assert facts["assumed"].strip().endswith(f": {', '.join(assumed)}")


def test_another_accuracy_leaves_no_file_and_names_the_cause(trained: Trained, tmp_path: Path) -> None:
    notices, listener = recording()
    with refuses(CheckFailedError, "top1-differs", "100.00 %", f"{COUNT} images", "channel order BGR") as caught:
        onnx_file.export(request(trained, tmp_path, NOTHING_CHOSEN), listener)
    assert " 16 100.00 %" in str(caught.value)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("--resize 16x16 ")
    assert " or " not in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert "preprocessing-not-in-weights" in reason_codes(notices)


def test_every_cause_that_fits_is_named(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network mixes classes up, an order of labels may explain what a preprocessing explains as well."""
    monkeypatch.setattr("exporter.targets.expected_accuracy._best_order", lambda *_: 1.0)
    with refuses(CheckFailedError, "top1-differs", "another order of the labels 100.00 %") as caught:
        onnx_file.export(request(trained, tmp_path, NOTHING_CHOSEN), SILENT)
    assert caught.value.hint == "--labels FILE or --resize 16x16 gives the expected accuracy"


def test_no_cause_is_named_where_none_is_found(trained: Trained, tmp_path: Path) -> None:
    with refuses(CheckFailedError, "top1-differs", "3.00 % was expected", "another order of the labels") as caught:
        onnx_file.export(request(trained, tmp_path, SQUASH, top1=3), SILENT)
    assert caught.value.hint is None


def test_an_expectation_needs_data(tmp_path: Path) -> None:
    wanted = ExportRequest(NET, f"{tmp_path}/", expected=ExpectedAccuracy(0.5, 0.1))
    with refuses(UsageError, "expected-top1-needs-data", "--data"):
        onnx_file.export(wanted, SILENT)


def test_the_best_order_of_the_labels_is_found() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2])
    moved = np.array([2, 2, 2, 0, 0, 1])
    assert _best_order(moved, targets, 3) == 1.0
    assert _best_order(targets, targets, 3) == 1.0
    assert _best_order(np.zeros(6, np.int64), targets, 3) == 0.5
    assert _best_order(np.array([1, 1, 0, 0, 0, 2]), targets, 3) == pytest.approx(5 / 6)


COLOUR = Preprocessing(73, (64, 64), 0, MEAN, STD)


@pytest.mark.parametrize(
    "base",
    [
        COLOUR,
        replace(COLOUR, resize=(64, 64), interpolation="bicubic", antialias=False, channel_order="BGR", scale=1),
        replace(COLOUR, resize=None, interpolation="nearest", assumed=("mean",)),
        Preprocessing(None, (28, 28), 2, (0.5,), (0.5,)),
    ],
)
def test_each_alternative_is_what_its_options_choose(base: Preprocessing) -> None:
    """The hint must lead to the very preprocessing that was tried."""
    from exporter.cli import onnx as onnx_command
    from exporter.commands.preprocessing_options import preprocessing_of

    found = list(alternatives(base))
    assert len({other.words for other in found}) == len(found) >= 2
    for other in found:
        with onnx_command.make_context("onnx", ["resnet18", *other.options.split()]) as context:
            chosen = preprocessing_of(context.params).apply(base, base.size)
        assert other.preprocessing != base
        assert chosen == other.preprocessing


def test_data_in_arrays_is_prepared_as_single_images() -> None:
    dataset = open_dataset("fashion-mnist", 5)
    view = Preprocessing((20, 24), (20, 24), 0, (0.1, 0.2, 0.3), (1.0,) * 3, channel_order="BGR")
    for options in (view, replace(view, resize=(28, 28), crop=(28, 28))):
        (batch,) = [pixels for _, pixels in dataset.pixels(options, 5)]
        single: list[NDArray[np.uint8]] = [fit_image(dataset.image(index), options) for index in range(len(dataset))]
        np.testing.assert_array_equal(batch, np.stack(single))
