"""Labels for images: where they are found, how they are printed, and what stands in for a manifest."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from exporter.export_request import ExportListener
from exporter.inspect import predict as prediction
from exporter.inspect.predict import COLUMNS, ImagePrediction, PredictionRequest, find_images, predict
from exporter.preprocessing.options import PreprocessingOptions
from runtimes import Artifact, Classifier, Label
from runtimes.errors import DeviceLostError, ModelMismatchError, Reason, ResourceError, UsageError
from tests.exporter.small import BASIC, SILENT, export, reason_codes, recording
from tests.refusals import refuses

ONES = (1.0, 1.0, 1.0)
ZEROS = (0.0, 0.0, 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images below it, a broken one, hidden ones, and files that are no images."""
    rng = np.random.default_rng(0)
    for name in ("b.png", "sub/a.JPG", 'a, "b".png', ".hidden.png", ".cache/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path, "png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def moved(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """The model file alone, as it arrives in a mail, and of a program that wrote nothing about it into the file."""
    model = onnx.load(onnx_artifact.path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "moved.onnx")
    return tmp_path / "moved.onnx"


def names(*arguments: str, stdin: bytes = b"") -> list[str]:
    return [str(path) for path in find_images(arguments, io.BytesIO(stdin))]


def test_folders_are_walked_in_order_without_hidden_files(folder: Path) -> None:
    expected = [f"{folder}/{name}" for name in ('a, "b".png', "b.png", "broken.png", "sub/a.JPG")]
    assert names(str(folder)) == expected
    assert names("gone.png", str(folder / ".cache")) == ["gone.png", f"{folder}/.cache/c.png"]


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    assert len(names(str(folder))) == 4


@pytest.mark.parametrize(
    "listing", [b"a.png\nb c.png\n", b"a.png\nb c.png", b"a.png\r\n\nb c.png\r\n", b"a.png\0b c.png\0"]
)
def test_standard_input_lists_paths(listing: bytes) -> None:
    assert names("x.png", "-", "./-", stdin=listing) == ["x.png", "a.png", "b c.png", "-"]


def test_listed_folders_are_walked_and_odd_names_are_kept(folder: Path) -> None:
    assert names("-", stdin=os.fsencode(folder / "sub")) == [f"{folder}/sub/a.JPG"]
    assert names("-", stdin=b"one\ntwo\0") == ["one\ntwo"]
    assert names("-", stdin=b"\xff.png\n") == [os.fsdecode(b"\xff.png")]


def test_nothing_to_predict_is_refused(tmp_path: Path) -> None:
    with refuses(UsageError, "stdin-empty", "find . -name '*.jpg' | rexport predict MODEL -"):
        names("-", stdin=b"\n \n")
    with refuses(UsageError, "stdin-twice"):
        names("-", "x.png", "-", stdin=b"a.png\n")
    (tmp_path / "notes.txt").touch()
    with refuses(UsageError, "folder-without-images", tmp_path, ".jpg", "1 files"):
        names(str(tmp_path))


def answers_for(path: Path, *images: Path, **options: object) -> tuple[ImagePrediction, ...]:
    names = {field.name for field in fields(PreprocessingOptions)}
    chosen = PreprocessingOptions(**{name: options.pop(name) for name in names & set(options)})  # type: ignore[arg-type]
    return predict(PredictionRequest(path, preprocessing=chosen, **options), images, SILENT)  # type: ignore[arg-type]


def test_a_bad_image_among_many_is_a_row_of_its_own(onnx_artifact: Artifact, folder: Path) -> None:
    good, bad = folder / "b.png", folder / "broken.png"
    images = [good] * 40 + [bad] + [good] * 3
    answers = answers_for(onnx_artifact.path, *images, top=2)
    assert [answer.error is None for answer in answers] == [image == good for image in images]
    assert {answer.path for answer in answers} == {str(good), str(bad)}
    assert [len(answer.labels) for answer in answers] == [2 if image == good else 0 for image in images]


def test_a_lost_device_is_no_bad_image(onnx_artifact: Artifact, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> None:
        raise DeviceLostError("the GPU fell off the bus")

    monkeypatch.setattr(Classifier, "predict", lose)
    with pytest.raises(DeviceLostError):
        answers_for(onnx_artifact.path, folder / "b.png")


def test_steps_tell_how_far_it_is(onnx_artifact: Artifact, folder: Path) -> None:
    steps: list[str] = []
    listener = ExportListener(step=steps.append, notice=SILENT.notice)
    predict(PredictionRequest(onnx_artifact.path), [folder / "b.png"] * 33, listener)
    assert steps == ["opening the model", "0 of 33 images", "32 of 33 images"]


def test_a_moved_model_needs_its_statistics(moved: Path, folder: Path) -> None:
    with refuses(UsageError, "statistics-unknown", "moved.onnx.json", "--mean 0.485,0.456,0.406", "--std 0.229"):
        answers_for(moved, folder / "b.png")
    with refuses(UsageError, "statistics-incomplete"):
        answers_for(moved, folder / "b.png", mean=ZEROS)
    with refuses(UsageError, "statistics-incomplete"):
        answers_for(moved, folder / "b.png", std=ONES)


def test_a_moved_model_answers_and_says_its_assumptions(
    moved: Path, onnx_artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("".join(f"name {number}\n" for number in range(10)))
    manifest = onnx_artifact.manifest
    assert manifest is not None
    assert manifest.preprocessing is not None
    statistics = PreprocessingOptions(mean=manifest.preprocessing.mean, std=manifest.preprocessing.std)
    notices, listener = recording()
    request = PredictionRequest(moved, labels=tmp_path / "names.txt", preprocessing=statistics)
    ((answer),) = predict(request, [folder / "b.png"], listener)
    assert reason_codes(notices) == ["preprocessing-assumed"]
    for fact in ("moved.onnx", "RGB", "resized to 32", "32 x 32", "names.txt"):
        assert fact in str(notices[0])
    (before,) = answers_for(onnx_artifact.path, folder / "b.png")
    assert answer.labels[0].name == f"name {before.labels[0].index}"
    np.testing.assert_allclose(answer.labels[0].probability, before.labels[0].probability, rtol=1e-6)


def test_a_file_that_describes_itself_answers_with_a_notice(
    onnx_artifact: Artifact, folder: Path, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(onnx_artifact.path, tmp_path / "alone.onnx"))
    notices, listener = recording()
    (answer,) = predict(PredictionRequest(alone), [folder / "b.png"], listener)
    assert reason_codes(notices) == ["manifest-missing"]
    assert answer.labels == answers_for(onnx_artifact.path, folder / "b.png")[0].labels


def test_options_stand_above_the_manifest(onnx_artifact: Artifact, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("".join(f"name {number}\n" for number in range(10)))
    (plain,) = answers_for(onnx_artifact.path, folder / "b.png", top=10)
    (named,) = answers_for(onnx_artifact.path, folder / "b.png", top=10, labels=tmp_path / "names.txt")
    assert [label.name for label in named.labels] == [f"name {label.index}" for label in plain.labels]
    (other,) = answers_for(onnx_artifact.path, folder / "b.png", top=10, mean=ZEROS, std=(0.1, 0.1, 0.1))
    assert [label.probability for label in other.labels] != [label.probability for label in plain.labels]


def test_wrong_labels_and_channels_are_refused(moved: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    with refuses(ModelMismatchError, "label-count-mismatch", "2 labels", "10 classes"):
        answers_for(moved, folder / "b.png", mean=ZEROS, std=ONES, labels=tmp_path / "names.txt")
    with refuses(ModelMismatchError, "preprocessing-mismatch", "1 channels"):
        answers_for(moved, folder / "b.png", mean=(0.0,), std=(1.0,))
    with refuses(ResourceError, "file-access-failed", "gone.txt"):
        answers_for(moved, folder / "b.png", mean=ZEROS, std=ONES, labels=tmp_path / "gone.txt")


def averaging(path: Path, shape: list[int | str], axes: list[int]) -> Path:
    """A model that gives the mean of each channel as that channel's logit."""
    axes_tensor = helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)
    node = helper.make_node("ReduceMean", ["x", "axes"], ["logits"], keepdims=0)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "averaging",
        [value("x", TensorProto.FLOAT, shape)],
        [value("logits", TensorProto.FLOAT, ["n", 3])],
        [axes_tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("shape", "axes", "said"),
    [
        (["n", 3, 64, 48], [2, 3], ["squashed", "to 64 x 48", "64 x 48"]),
        (["n", 3, 300, 200], [2, 3], ["squashed", "to 343 x 229", "300 x 200"]),
        (["n", 3, "h", "w"], [2, 3], ["resized to 256", "224 x 224"]),
        (["n", 32, 32, 3], [1, 2], ["resized to 32", "32 x 32"]),
    ],
)
def test_the_fitting_follows_from_the_input(
    shape: list[int | str], axes: list[int], said: list[str], tmp_path: Path
) -> None:
    red = tmp_path / "red.png"
    Image.fromarray(np.full((400, 500, 3), (255, 0, 0), np.uint8)).save(red)
    notices, listener = recording()
    statistics = PreprocessingOptions(mean=ZEROS, std=ONES)
    request = PredictionRequest(averaging(tmp_path / "m.onnx", shape, axes), preprocessing=statistics)
    ((answer),) = predict(request, [red], listener)
    assert answer.labels[0].index == 0
    assert [words for words in said if words not in str(notices[0])] == []


def test_the_order_of_the_channels_is_the_users(tmp_path: Path) -> None:
    red = tmp_path / "red.png"
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8)).save(red)
    model = averaging(tmp_path / "m.onnx", ["n", 3, 8, 8], [2, 3])
    plain, swapped = (answers_for(model, red, mean=ZEROS, std=ONES, channel_order=order)[0] for order in ("RGB", "BGR"))
    assert (plain.labels[0].index, swapped.labels[0].index) == (0, 2)


def test_a_manifests_fields_are_replaced(onnx_artifact: Artifact, tmp_path: Path) -> None:
    image = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 64, 3), np.uint8)).save(image)
    squashed = Image.open(image).resize((32, 32), Image.Resampling.BICUBIC)
    squashed.save(tmp_path / "small.png")
    (expected,) = answers_for(onnx_artifact.path, tmp_path / "small.png")
    (given,) = answers_for(onnx_artifact.path, image, resize=(32, 32), interpolation="bicubic")
    assert given.labels == expected.labels
    (cropped,) = answers_for(onnx_artifact.path, image)
    assert cropped.labels[0].probability != expected.labels[0].probability


def test_what_the_graph_does_cannot_be_chosen(tmp_path: Path, folder: Path) -> None:
    raw = export(BASIC, tmp_path, raw=True)
    with refuses(UsageError, "normalisation-in-graph", "channel_order"):
        answers_for(raw.path, folder / "b.png", channel_order="BGR")


LABELS = (Label('trouser, "long"', 3, 0.75), Label("coat", 0, 1.5e-9))
ROWS = (
    ImagePrediction("a.png", LABELS, None),
    ImagePrediction("b\nc.png", (), Reason("image-broken", "b.png: cut off, at the end")),
)


def test_csv_has_a_header_and_is_quoted() -> None:
    text = prediction.as_csv(ROWS)
    assert text.startswith('path,rank,label,index,probability,error\na.png,1,"trouser, ""long""",3,0.75,\n')
    assert list(csv.DictReader(io.StringIO(text))) == [
        dict(zip(COLUMNS, row, strict=True))
        for row in (
            ("a.png", "1", 'trouser, "long"', "3", "0.75", ""),
            ("a.png", "2", "coat", "0", "1.5e-09", ""),
            (r"b\nc.png", "", "", "", "", "b.png: cut off, at the end"),
        )
    ]


def test_json_has_all_of_it() -> None:
    assert json.loads(prediction.as_json(ROWS)) == [
        {
            "path": "a.png",
            "predictions": [
                {"label": 'trouser, "long"', "index": 3, "probability": 0.75},
                {"label": "coat", "index": 0, "probability": 1.5e-9},
            ],
            "error": None,
            "error_code": None,
        },
        {"path": "b\nc.png", "predictions": [], "error": "b.png: cut off, at the end", "error_code": "image-broken"},
    ]


def test_text_has_a_line_for_each_image_that_could_be_read() -> None:
    assert prediction.as_text(ROWS) == 'a.png: trouser, "long" 75.0 %, coat 0.0 %'
