from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.data.labels_file import read_labels
from exporter.export_request import ExportRequest
from exporter.models.resnet import build, initialise
from exporter.models.variants import customise, variant
from exporter.network import prepare, reference_logits
from exporter.preprocessing.options import PreprocessingOptions
from runtimes.errors import ArtifactError, ModelMismatchError, ResourceError, UsageError
from tests.exporter.small import BASIC, SILENT, reason_codes, recording
from tests.refusals import refuses

GREEK = "γάτα"


def labels_file(folder: Path, content: bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\nfox\n",
        b"cat\ndog\nfox",
        b"cat\r\ndog\r\nfox\r\n",
        b"\xef\xbb\xbfcat\ndog\nfox\n",
        b"cat\ndog\nfox\n\n \n\n",
        b"  cat \ndog\t\nfox\n",
    ],
)
def test_labels_are_read_however_they_were_written(tmp_path: Path, content: bytes) -> None:
    assert read_labels(labels_file(tmp_path, content), 3, SILENT.notice) == ("cat", "dog", "fox")


def test_labels_are_unicode(tmp_path: Path) -> None:
    assert read_labels(labels_file(tmp_path, f"{GREEK}\nfox".encode()), 2, SILENT.notice) == (GREEK, "fox")


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_labels_is_refused(tmp_path: Path, count: int) -> None:
    path = labels_file(tmp_path, b"".join(b"label %d\n" % number for number in range(count)))
    with refuses(ModelMismatchError, "label-count-mismatch", "labels.txt", "3", count):
        read_labels(path, 3, SILENT.notice)


def test_a_blank_label_is_named(tmp_path: Path) -> None:
    with refuses(ArtifactError, "label-blank", "2"):
        read_labels(labels_file(tmp_path, b"cat\n\nfox\n"), 3, SILENT.notice)


def test_labels_of_another_encoding_are_refused(tmp_path: Path) -> None:
    with refuses(ArtifactError, "labels-not-utf8", "UTF-8", "1"):
        read_labels(labels_file(tmp_path, b"k\xe4se\n"), 1, SILENT.notice)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with refuses(ResourceError, "file-access-failed", "none.txt"):
        read_labels(tmp_path / "none.txt", 3, SILENT.notice)


def test_the_number_of_labels_may_be_open(tmp_path: Path) -> None:
    assert read_labels(labels_file(tmp_path, b"cat\ndog\n"), None, SILENT.notice) == ("cat", "dog")


def test_doubled_labels_are_noticed(tmp_path: Path) -> None:
    notices, listener = recording()
    read_labels(labels_file(tmp_path, b"cat\ndog\ncat\n"), 3, listener.notice)
    assert reason_codes(notices) == ["labels-repeated"]
    assert "labels.txt: 1 " in str(notices[0])


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ({"mean": (0.5,) * 3}, "statistics-incomplete", []),
        ({"std": (0.5,) * 3}, "statistics-incomplete", []),
        ({"mean": (0.5,), "std": (0.5,)}, "statistics-channel-count", ["--mean", 1, 3]),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 4}, "statistics-channel-count", ["--std", 4, 3]),
        ({"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "std-not-positive", ["0.5,0.0,0.5"]),
        ({"mean": (0.5, float("nan"), 0.5), "std": (0.5,) * 3}, "statistics-not-finite", ["--mean", "0.5,nan,0.5"]),
        ({"mean": (0.5,) * 3, "std": (0.5, float("inf"), 0.5)}, "statistics-not-finite", ["--std"]),
    ],
)
def test_statistics_that_do_not_fit_are_refused(
    change: dict[str, tuple[float, ...]], code: str, values: list[object]
) -> None:
    request = ExportRequest(BASIC, "unused.onnx", preprocessing=PreprocessingOptions(**change))  # type: ignore[arg-type]
    with refuses(UsageError, code, *values):
        prepare(request, SILENT)


def target_in(out: str | Path, force: bool = False) -> Path:
    """The file to write of a request, after nothing was written."""
    with ExportRequest(BASIC, str(out), force=force).target(".onnx") as target:
        assert target.parent.is_dir()
    return target


def test_the_target_is_a_file_or_in_a_folder(tmp_path: Path) -> None:
    assert target_in(tmp_path) == tmp_path / "small-basic.onnx"
    assert target_in(f"{tmp_path}/new/") == tmp_path / "new" / "small-basic.onnx"
    (tmp_path / "new").mkdir()
    assert target_in(f"{tmp_path}/new/own.model") == tmp_path / "new" / "own.model"


def test_a_new_folder_stays_only_with_a_file_in_it(tmp_path: Path) -> None:
    request = ExportRequest(BASIC, f"{tmp_path}/a/b/")

    def fail() -> None:
        with request.target(".onnx"):
            raise UsageError("no", code="test-refusal")

    with refuses(UsageError, "test-refusal"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with request.target(".onnx") as target:
        target.touch()
    assert target.exists()


def test_a_new_folder_is_announced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("rexport"), "info", lambda words, *values, **_: lines.append(words % values))
    for _ in range(2):
        with ExportRequest(BASIC, f"{tmp_path}/a/b/").target(".onnx") as target:
            target.with_name("other").touch()
    assert lines == [f"created the folder {tmp_path}/a/b"]


def test_the_folder_of_a_file_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "a b" / "c"
    with refuses(ResourceError, "folder-missing", folder, f"mkdir -p '{folder}'"):
        target_in(f"{folder}/x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "it.onnx"
    path.write_bytes(b"old")
    with refuses(UsageError, "target-exists", "it.onnx", "--force"):
        target_in(path)
    assert target_in(path, force=True) == path
    assert path.read_bytes() == b"old"


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "small-basic.onnx").mkdir()
    with refuses(UsageError, "target-is-folder", "small-basic.onnx"):
        target_in(tmp_path, force=True)


def test_a_target_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with refuses(ResourceError, "file-access-failed", tmp_path / "file"):
        target_in(f"{tmp_path}/file/inside/x.onnx")


def test_noise_is_seeded_and_of_the_inputs_shape() -> None:
    first, again = (prepare(ExportRequest(BASIC, "unused", seed=4), SILENT) for _ in range(2))
    other = prepare(ExportRequest(BASIC, "unused", seed=5), SILENT)
    assert first.vectors.inputs.shape == (7, 3, 16, 16)
    assert first.images.endswith("seed 4")
    np.testing.assert_array_equal(first.vectors.inputs, again.vectors.inputs)
    np.testing.assert_array_equal(first.vectors.logits, again.vectors.logits)
    assert not np.array_equal(first.vectors.inputs, other.vectors.inputs)
    assert (first.weights.origin, first.weights.trained, first.weights.seed) == ("random", False, 4)
    assert first.weights.sha256 == again.weights.sha256 != other.weights.sha256


def test_untrained_weights_are_announced() -> None:
    notices, listener = recording()
    prepare(ExportRequest(BASIC, "unused", seed=9), listener)
    assert reason_codes(notices) == ["untrained"]
    assert "seed 9" in str(notices[0])


def test_preprocessing_scales_and_takes_the_users_statistics() -> None:
    row = customise(variant("resnet18"), size=(32, 32))
    statistics = PreprocessingOptions(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    network = prepare(ExportRequest(row, "unused", preprocessing=statistics), SILENT)
    assert network.preprocessing is not None
    assert (network.preprocessing.resize, network.preprocessing.crop) == (37, (32, 32))
    assert (network.preprocessing.mean, network.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_cifar_nets_see_the_whole_image() -> None:
    network = prepare(ExportRequest(BASIC, "unused"), SILENT)
    assert network.preprocessing is not None
    assert (network.preprocessing.resize, network.preprocessing.size) == (16, (16, 16))


def test_other_channels_need_statistics_for_preprocessing() -> None:
    row = customise(BASIC, in_channels=1)
    assert prepare(ExportRequest(row, "unused"), SILENT).preprocessing is None
    statistics = PreprocessingOptions(mean=(0.5,), std=(0.25,))
    told = prepare(ExportRequest(row, "unused", preprocessing=statistics), SILENT).preprocessing
    assert told is not None
    assert told.mean == (0.5,)


def test_data_without_statistics_is_refused() -> None:
    request = ExportRequest(customise(BASIC, in_channels=1), "unused", data="fashion-mnist")
    with refuses(UsageError, "option-needs-statistics", "--data", "--mean", "--std", "1"):
        prepare(request, SILENT)


def test_data_of_other_classes_is_refused() -> None:
    request = ExportRequest(customise(BASIC, classes=7), "unused", data="fashion-mnist")
    with refuses(ModelMismatchError, "data-class-count", "10", "7", "export with --num-classes 10"):
        prepare(request, SILENT)


def test_trained_weights_have_their_number_of_classes(tmp_path: Path) -> None:
    """Another one would be refused, as the tensors have another shape. So the advice is about the images."""
    torch.save(build(customise(BASIC, classes=7)).state_dict(), tmp_path / "best.pth")
    request = ExportRequest(customise(BASIC, classes=7), "unused", str(tmp_path / "best.pth"), data="fashion-mnist")
    with refuses(ModelMismatchError, "data-class-count", "10", "images of its 7 classes") as caught:
        prepare(request, SILENT)
    assert "--num-classes" not in str(caught.value)


def test_real_images_come_with_their_classes() -> None:
    network = prepare(ExportRequest(BASIC, "unused", data="fashion-mnist"), SILENT)
    assert (network.images.split()[0], network.images.split()[-1]) == ("7", "fashion-mnist")
    assert network.vectors.inputs.shape == (7, 3, 16, 16)
    assert network.dataset == "fashion-mnist"
    assert network.labels is not None
    assert len(network.labels) == 10


def test_logits_that_are_not_finite_are_refused() -> None:
    model = build(BASIC)
    initialise(model, 0)
    with torch.no_grad():
        model.fc.bias[3] = float("inf")
    with refuses(ArtifactError, "reference-not-finite"):
        reference_logits(model, np.zeros((1, 3, 16, 16), np.float32))
