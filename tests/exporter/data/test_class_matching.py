"""Classes of a dataset and outputs of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.data.class_matching import are_foreign, map_classes, position_example, targets_for
from exporter.data.opening import open_dataset
from runtimes.errors import ModelMismatchError
from tests.exporter.datasets import folder_of, png
from tests.refusals import refuses


def test_classes_are_matched_by_name() -> None:
    np.testing.assert_array_equal(map_classes(["ant", "bee", "cat"], ["cat", "ant", "bee"], 3), [1, 2, 0])
    np.testing.assert_array_equal(map_classes(["Ant_lion", "bee"], ["bee", "ant-lion"], 2), [1, 0])
    np.testing.assert_array_equal(map_classes(["T-shirt-top", "bag"], ["bag", "T-shirt/top"], 2), [1, 0])


@pytest.mark.parametrize("labels", [None, ["x", "y", "z"], ["ant", "bee", "cat"], ["ant", "bee", "tomcat"]])
def test_other_names_of_the_same_number_stand_in_order(labels: list[str] | None) -> None:
    np.testing.assert_array_equal(map_classes(["ant", "bee", "cat"], labels, 3), [0, 1, 2])


@pytest.mark.parametrize("classes", [2, 1000])
def test_another_number_of_classes_is_refused(classes: int) -> None:
    with refuses(ModelMismatchError, "class-count-mismatch", classes, f"images of its {classes} classes") as caught:
        map_classes(["ant", "bee", "cat"], None, classes)
    assert "--num-classes" not in str(caught.value)


def test_one_output_has_no_classes_to_match() -> None:
    """One folder would otherwise be the class of every image, and each of them right."""
    for labels in (None, ["defect"], ["fine", "defect"]):
        with refuses(ModelMismatchError, "class-count-mismatch", "1"):
            map_classes(["defect"], labels, 1)


@pytest.mark.parametrize(
    ("labels", "example"),
    [
        (["cat", "truck"], "lorry is truck"),
        (["x", "y"], "cat is x"),
        ([], "cat is output 0"),
        (["Lorry", "cat"], None),
    ],
)
def test_a_class_without_a_label_of_its_name_is_foreign(labels: list[str], example: str | None) -> None:
    names = ["cat", "lorry"]
    assert are_foreign(names, labels) == (example is not None)
    if example is not None:
        assert position_example(names, labels) == example
        np.testing.assert_array_equal(map_classes(names, labels or None, 2), [0, 1])


def test_names_that_contradict_are_refused() -> None:
    with refuses(ModelMismatchError, "class-order-unclear", "'ant' is no label", "bee", "--labels"):
        map_classes(["ant", "bee", "cat"], ["bee", "yak", "cow"], 3)


def test_images_without_classes_are_no_data_to_test_with(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path / "photos", {"1.png": png(1)})), split="train")
    with refuses(ModelMismatchError, "classes-missing", "photos"):
        targets_for(dataset, None, 2)


def test_targets_are_in_the_networks_order(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path, {"ant/1.png": png(1), "bee/1.png": png(2), "bee/2.png": png(3)})))
    np.testing.assert_array_equal(targets_for(dataset, ["bee", "ant"], 2), [1, 0, 0])
    np.testing.assert_array_equal(targets_for(dataset, None, 2), [0, 1, 1])
