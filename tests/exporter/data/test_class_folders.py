"""Class folders as folders and archives, their splits, and images that are sorted into none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.data import class_folders
from exporter.data.opening import open_dataset
from runtimes.errors import ArtifactError
from tests.exporter.datasets import folder_of, png, tar_of, values
from tests.refusals import refuses

ANIMALS = {
    "zebra/b.png": png(11),
    "zebra/a.PNG": png(10),
    "ant/1.png": png(20),
    "ant/notes.txt": b"no image",
    "ant/.hidden.png": b"no image",
    "index.png": png(1),
}


@pytest.mark.parametrize("form", ["folder", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".wrapped.tar"])
def test_class_folders(form: str, tmp_path: Path) -> None:
    if form == "folder":
        place = folder_of(tmp_path / "animals", ANIMALS)
    elif form == ".wrapped.tar":
        wrapped = {f"./some/where/{name}": content for name, content in ANIMALS.items() if name != "index.png"}
        place = tar_of(tmp_path / "animals.tar", wrapped)
    else:
        place = tar_of(tmp_path / f"animals{form}", ANIMALS, "w" if form == ".tar" else f"w:{form.split('.')[-1]}")
    dataset = open_dataset(str(place))
    assert (dataset.name, dataset.classes, len(dataset)) == ("animals", ("ant", "zebra"), 3)
    np.testing.assert_array_equal(dataset.targets, [0, 1, 1])
    assert values(dataset) == [20, 10, 11]
    assert dataset.label(0).endswith("ant/1.png")
    assert dataset.label(0).startswith(str(place))


@pytest.mark.parametrize(
    ("splits", "taken"),
    [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("train", "validation"), "validation")],
)
def test_the_test_split_is_taken(splits: tuple[str, ...], taken: str, tmp_path: Path) -> None:
    contents = {f"{split}/cat/{split}.png": png(len(split)) for split in splits} | {"train/bat/1.png": png(99)}
    dataset = open_dataset(str(folder_of(tmp_path / "pets", contents)))
    assert dataset.name == f"pets/{taken}"
    assert dataset.classes == ("bat", "cat")
    assert values(dataset) == [len(taken)]
    np.testing.assert_array_equal(dataset.targets, [1])


@pytest.mark.parametrize(
    ("splits", "taken"),
    [(("train", "val", "test"), "train"), (("val", "test"), "val"), (("test", "validation"), "validation")],
)
def test_to_train_the_training_split_is_taken(splits: tuple[str, ...], taken: str, tmp_path: Path) -> None:
    contents = {f"{split}/cat/{split}.png": png(len(split)) for split in splits} | {"test/bat/1.png": png(99)}
    for place in (folder_of(tmp_path / "pets", contents), tar_of(tmp_path / "pets.tar", contents)):
        dataset = open_dataset(str(place), split="train")
        assert (dataset.name, dataset.classes) == (f"pets/{taken}", ("bat", "cat"))
        assert values(dataset) == [len(taken)]
        np.testing.assert_array_equal(dataset.targets, [1])


def test_to_train_what_has_no_splits_is_taken_whole(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path / "animals", ANIMALS)), split="train")
    assert (dataset.name, dataset.classes, values(dataset)) == ("animals", ("ant", "zebra"), [20, 10, 11])


@pytest.mark.parametrize(
    ("contents", "name", "taken"),
    [
        ({"2.png": 2, "1.JPG": 1, "notes.txt": 9, ".3.png": 3}, "photos", [1, 2]),
        ({"out/2.png": 2, "out/1.png": 1}, "photos", [1, 2]),
        ({"a/b/2.png": 2, "1.png": 1}, "photos", [1, 2]),
        ({"train/1.png": 1, "train/2.png": 2, "test/3.png": 3}, "photos/train", [1, 2]),
        ({"out/train/1.png": 1, "out/val/3.png": 3}, "photos/train", [1]),
        ({"train/cat/1.png": 1, "val/cat/3.png": 3}, "photos/train", [1]),
        ({"val/1.png": 1, "test/3.png": 3}, "photos/val", [1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("packed", [False, True])
def test_to_train_images_need_no_classes(
    contents: dict[str, int], name: str, taken: list[int], packed: bool, tmp_path: Path
) -> None:
    files = {file: png(value) for file, value in contents.items()}
    place = tar_of(tmp_path / "photos.tar", files) if packed else folder_of(tmp_path / "photos", files)
    dataset = open_dataset(str(place), split="train")
    assert (dataset.name, dataset.classes, dataset.targets) == (name, (), None)
    assert sorted(values(dataset)) == taken
    assert dataset.label(0).startswith(str(place))
    some = open_dataset(str(place), 1, "train")
    assert (len(some), some.targets) == (1, None)


def test_folders_that_are_splits_are_no_classes(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "photos", {"train/1.png": png(1), "test/2.png": png(2)})
    with refuses(ArtifactError, "dataset-empty"):
        open_dataset(str(place))
    folder_of(place, {"bus/3.png": png(3)})
    assert open_dataset(str(place)).classes == ("bus", "test", "train")


@pytest.mark.parametrize("contents", [{}, {"readme.txt": b"hi"}, {"cat/1.txt": b"hi"}, {"cat/.1.png": png(1)}])
def test_a_folder_without_images_is_refused_to_train(contents: dict[str, bytes], tmp_path: Path) -> None:
    with refuses(ArtifactError, "dataset-empty", tmp_path, "train/CLASS/IMAGE.jpg", "data_batch_1"):
        open_dataset(str(folder_of(tmp_path, contents)), split="train")


def test_a_lone_training_split_is_taken(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path, {"train/a/1.png": png(1), "train/b/1.png": png(2)})))
    assert (dataset.classes, values(dataset)) == (("a", "b"), [1, 2])


def test_folders_of_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    folder_of(tmp_path / "store", {"x/1.png": png(7)})
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "linked.png").symlink_to(tmp_path / "store" / "x" / "1.png")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "store" / "x")
    assert values(open_dataset(str(tmp_path / "set"))) == [7, 7]
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set" / "cat")
    assert len(open_dataset(str(tmp_path / "set"))) < 10


@pytest.mark.parametrize(
    "contents", [{}, {"readme.txt": b"hi"}, {"lonely.png": png(1)}, {"cat/1.txt": b"hi"}, {"cat/.1.png": png(1)}]
)
def test_a_folder_without_classes_is_refused(contents: dict[str, bytes], tmp_path: Path) -> None:
    with refuses(ArtifactError, "dataset-empty", tmp_path, "test/CLASS/IMAGE.jpg"):
        open_dataset(str(folder_of(tmp_path, contents)))


def test_class_folders_by_names_alone() -> None:
    assert class_folders.read(["a/1.txt", "1.png"]) is None
    assert class_folders.read(["a/1.txt", "1.png"], "train") == class_folders.ClassFolders(("1.png",), None, (), None)
    found = class_folders.read(["pets/test/b/1.png", "pets/test/a/deep/2.png", "pets/train/c/3.png"])
    assert found is not None
    assert replace(found, notices=()) == class_folders.ClassFolders(
        ("pets/test/b/1.png", "pets/test/a/deep/2.png"), (1, 0), ("a", "b", "c"), "test"
    )
    assert [notice.code for notice in found.notices] == ["dataset-split-chosen", "dataset-folders-inside-classes"]
