"""What the names and the places of folders say about a dataset: classes, parts, and images that belong to neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.data import class_folders
from exporter.data.opening import open_dataset
from exporter.guesses import CODES
from exporter.weights.sources import IMAGENET_PREPROCESSING, scale_preprocessing
from runtimes.errors import ArtifactError, UsageError
from runtimes.images.left_out import LeftOutFiles
from runtimes.images.preprocessing import fit_image
from tests.exporter.datasets import folder_of, png, tar_of
from tests.refusals import refuses


@dataclass(frozen=True)
class Folders:
    """Folders of images, and what they mean."""

    names: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    split: str | None = None
    code: str | None = None
    wanted: class_folders.Split = "test"
    reading: class_folders.Reading | None = None


PETS = ("cat", "dog")
CASES = {
    "suffixed": Folders(("training_set/cat", "training_set/dog", "test_set/cat"), PETS, "test_set"),
    "capitals": Folders(("Train/cat", "Train/dog", "Test/dog"), PETS, "Test"),
    "upper case": Folders(("TRAIN/cat", "VAL/dog"), PETS, "VAL"),
    "joined": Folders(("trainset/cat", "testset/dog"), PETS, "testset"),
    "a shared beginning": Folders(("seg_train/cat", "seg_test/dog"), PETS, "seg_test"),
    "twice the name": Folders(("seg_train/seg_train/cat", "seg_test/seg_test/dog"), PETS, "seg_test"),
    "nested": Folders(("data/data/train/cat", "data/data/train/dog"), PETS, "train"),
    "deep": Folders(("a/b/c/d/e/train/cat", "a/b/c/d/e/test/dog"), PETS, "test"),
    "training alone": Folders(("train/cat", "train/dog"), PETS, "train"),
    "to train": Folders(("Train/cat", "Train/dog", "Test/dog"), PETS, "Train", wanted="train"),
    "a class called train": Folders(("bus", "car", "train"), ("bus", "car", "train"), code="dataset-split-is-class"),
    "a class called train in a part": Folders(("test/bus", "test/train"), ("bus", "train"), "test"),
    "a class called train station": Folders(("train_station", "airport"), ("airport", "train_station")),
    "a class of trains with kinds": Folders(("bus/city", "train/steam"), code="dataset-layout-unclear"),
    "trains with kinds, as classes": Folders(("bus/city", "train/steam"), ("bus", "train"), reading="classes"),
    "trains with kinds, as parts": Folders(("bus/city", "train/steam"), ("steam",), "train", reading="splits"),
    "parts and another folder": Folders(("train/cat", "test/cat", "extra/dog"), ("cat",), "test"),
    "two of one part": Folders(("val/cat", "validation/cat"), code="dataset-splits-ambiguous"),
    "no parts": Folders(("cat", "dog"), code="dataset-splits-absent", reading="splits"),
    "folders in classes": Folders(("pets/cat", "wild/fox"), ("pets", "wild"), code="dataset-folders-inside-classes"),
    "folders of images in classes": Folders(("cat/images", "dog/images"), PETS, code="dataset-folders-inside-classes"),
    "folds": Folders(("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"), code="dataset-folds-unclear"),
    "names that are no parts": Folders(("dev/cat", "dev/dog", "hold/cat", "hold/dog"), code="dataset-folds-unclear"),
    "folds to train": Folders(("1/cat", "1/dog", "2/cat", "2/dog"), code="dataset-folds-unclear", wanted="train"),
    "folds, as classes": Folders(("1/cat", "1/dog", "2/cat", "2/dog"), ("1", "2"), reading="classes"),
    "parts in classes": Folders(("cat/train", "cat/val", "dog/train"), code="dataset-parts-inside-classes"),
    "parts in classes to train": Folders(
        ("cat/test", "cat/val", "dog/test", "dog/val"), code="dataset-parts-inside-classes", wanted="train"
    ),
    "parts in classes, together": Folders(("cat/train", "cat/val", "dog/train", "dog/val"), PETS, reading="classes"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_folders_mean_what_their_names_say(case: Folders) -> None:
    names = [f"{name}/{number}.png" for name in case.names for number in (1, 2)]
    if case.classes is None:
        kind = UsageError if case.code == "dataset-splits-absent" else ArtifactError
        with refuses(kind, str(case.code)):
            class_folders.read(names, case.wanted, case.reading)
        return
    found = class_folders.read(names, case.wanted, case.reading)
    assert found is not None
    assert (found.classes, found.split) == (case.classes, case.split)
    assert len(found.files) == 2 * (sum(case.split in name.split("/") for name in case.names) if case.split else
                                    len(case.names))  # fmt: skip
    codes = {notice.code for notice in found.notices}
    assert codes <= CODES
    assert case.split is None or "dataset-split-chosen" in codes
    assert case.code in (None, *codes)


@pytest.mark.parametrize(
    ("names", "reading", "wanted", "said"),
    [
        (("test/cat", "val/cat"), None, "test", "classes:PATH takes every folder"),
        (("test/cat", "val/cat"), "splits", "test", "those of test; PATH/val takes others"),
        (("test/cat", "val set/cat"), "splits", "test", "PATH/'val set' takes others"),
        (("test", "val"), "splits", "train", "those of val (validation images, because there is no train part)"),
        (("train/cat", "extra/cat"), "splits", "test", "a folder test would be taken first"),
        (("test/cat", "extra/cat"), "splits", "test", None),
    ],
)  # fmt: skip
def test_a_reading_that_the_user_says_is_no_guess(
    names: tuple[str, ...],
    reading: class_folders.Reading | None,
    wanted: class_folders.Split,
    said: str | None,
) -> None:
    found = class_folders.read([f"{name}/1.png" for name in names], wanted, reading)
    assert found is not None
    sentences = [notice.sentence for notice in found.notices]
    assert len(sentences) == (said is not None)
    assert all(str(said) in sentence for sentence in sentences)
    assert all(("taken as parts" in sentence) == (reading is None) for sentence in sentences)
    assert all(("classes:PATH" in sentence) == (reading is None) for sentence in sentences)


def test_the_forms_of_a_dataset_are_read(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "my vehicles", {f"{name}/x/1.png": png(1) for name in ("bus", "train")})
    with refuses(ArtifactError, "dataset-layout-unclear", f"classes:'{place}'", f"splits:'{place}'"):
        open_dataset(str(place))
    assert open_dataset(f"classes:{place}").classes == ("bus", "train")
    assert open_dataset(f"splits:{place}").classes == ("x",)


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    contents = {"cat/1.png": png(1), "cat/2.HEIC": b"x", "fox/1.heic": b"x", "dog/1.png": png(2), "list.csv": b"x",
                "README": b"x", "loose.png": png(1), "cat/.hidden": b"x"}  # fmt: skip
    for place in (folder_of(tmp_path / "pets", contents), tar_of(tmp_path / "pets.tar", contents)):
        dataset = open_dataset(str(place))
        assert dataset.classes == ("cat", "dog", "fox")  # so that no index moves
        np.testing.assert_array_equal(dataset.targets, [0, 1])
        (line,) = [notice.sentence for notice in dataset.notices if notice.code == "files-left-out"]
        assert "4 of 7" in line
        assert "2 .heic" in line
        assert "images-outside-classes" in {notice.code for notice in dataset.notices}
    assert LeftOutFiles(["a.png", ".b"]).notice("x") is None


@pytest.mark.parametrize("suffix", ["avif", "jp2", "bmp", "tiff", "webp", "gif", "ppm"])
def test_the_formats_of_pillow_are_read(suffix: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / name / f"1.{suffix}")
    dataset = open_dataset(str(tmp_path))
    assert (len(dataset), dataset.notices) == (2, ())
    view = scale_preprocessing(IMAGENET_PREPROCESSING, (16, 16))
    assert abs(int(fit_image(dataset.image(0), view)[8, 8, 0]) - 200) < 8


@pytest.mark.parametrize(
    ("names", "form", "split", "place", "outside"),
    [
        (("Train/cat", "Train/dog", "Val/cat", "unlabeled"), "{}", "test", "outside the classes", "unlabeled/1.png"),
        (("train/cat", "train/dog", "test/cat", "extra/dog"), "{}", "test", "outside the classes", "extra/dog/1.png"),
        (("train/cat", "train/dog", "train"), "{}", "train", "outside the classes", "train/1.png"),
        (("train/cat", "train/dog", "extra"), "splits:{}", "test", "outside the classes", "extra/1.png"),
        (("cat", "dog", "."), "{}", "train", "outside the classes", "1.png"),
        (("train", "val", "extra"), "splits:{}", "train", "outside the parts", "extra/1.png"),
        (("train/cat", "train/dog", "val/cat"), "{}", "test", "", ""),
        (("cat", "."), "{}", "train", "", ""),  # one class is none, so all images count
    ],
)
def test_no_image_is_left_out_in_silence(
    names: tuple[str, ...], form: str, split: class_folders.Split, place: str, outside: str, tmp_path: Path
) -> None:
    root = folder_of(tmp_path / "pets", {f"{name}/1.png": png(1) for name in names})
    notices = {notice.code: notice.sentence for notice in open_dataset(form.format(root), split=split).notices}
    assert ("images-outside-classes" in notices) == bool(outside)
    assert notices.get("images-outside-classes", "").endswith(f"{place}, as {outside}" if outside else "")


@pytest.mark.parametrize(
    ("names", "empty", "said"),
    [
        (("cat", "dog"), "eel", True),
        (("test/cat", "train/cat"), "train/eel", True),
        (("test/cat", "train/cat", "train/eel"), "test/eel", False),  # a class without test images
        (("cat", "dog"), "cat/eel", False),
        (("cat", "dog"), ".eel", False),
    ],
)
def test_empty_class_folders_are_said(names: tuple[str, ...], empty: str, said: bool, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", {f"{name}/1.png": png(1) for name in names})
    (root / empty).mkdir()
    notices = {notice.code: notice.sentence for notice in open_dataset(str(root)).notices}
    assert ("eel" in notices.get("class-folders-empty", "")) == said


@pytest.mark.parametrize("names", [("train", "val", "test", "extra"), ("bus", "train")])
def test_a_reading_without_classes_is_not_recommended(names: tuple[str, ...], tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", {f"{name}/1.png": png(1) for name in names})
    (notice,) = open_dataset(str(root)).notices
    assert (notice.code, "splits:" in notice.sentence) == ("dataset-split-is-class", False)


def test_a_zip_archive_is_named_with_its_command(tmp_path: Path) -> None:
    place = tmp_path / "photos.zip"
    place.write_bytes(b"PK\x03\x04" + bytes(600))
    with refuses(ArtifactError, "archive-expected", "zip", f"unzip {place} -d {tmp_path}/photos"):
        open_dataset(str(place))
