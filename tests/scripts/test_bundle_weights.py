from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.paper.training.corpus import DEBIAN_FOLDER, read_fashion_mnist
from exporter.data.class_folders import Split
from exporter.data.opening import BUNDLED
from exporter.weights.sources import BUNDLE, BUNDLED_FOLDER
from runtimes import files
from runtimes.errors import ResourceError
from scripts import bundle_weights
from tests.refusals import refuses

PUBLISHED = pytest.mark.skipif(not DEBIAN_FOLDER.exists(), reason="needs Debian's package dataset-fashion-mnist")


@PUBLISHED
def test_the_command_makes_the_shipped_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: dict[Split, Path] = {"test": tmp_path / "test.npz", "train": tmp_path / "train.npz"}
    monkeypatch.setattr(bundle_weights, "BUNDLED", places)
    done = CliRunner().invoke(bundle_weights.main, [])
    assert (done.exit_code, done.stdout.splitlines()) == (0, [str(place) for place in places.values()])
    for split, place in places.items():
        with np.load(place) as again, np.load(BUNDLED[split]) as shipped:
            assert list(again) == list(shipped)
            for name in again:
                np.testing.assert_array_equal(again[name], shipped[name], strict=True)
    bundle_weights.bundle_sample(tmp_path / "once more.npz")
    assert (tmp_path / "once more.npz").read_bytes() == places["train"].read_bytes()


@PUBLISHED
def test_the_samples_images_keep_their_training_labels() -> None:
    images, targets = read_fashion_mnist("train")
    published = {image.tobytes(): target for image, target in zip(images, targets, strict=True)}
    with np.load(BUNDLED["train"]) as sample:
        expected = [published[image.tobytes()] for image in sample["images"]]
        np.testing.assert_array_equal(sample["targets"], expected)


def test_without_the_published_files_nothing_is_written(tmp_path: Path) -> None:
    with refuses(ResourceError, "fashion-mnist-unreadable", "train-images-idx3-ubyte.gz", "apt-get install"):
        bundle_weights.bundle_sample(tmp_path / "sample.npz", tmp_path)
    assert not list(tmp_path.iterdir())


def write_run(folder: Path) -> Path:
    folder.mkdir()
    for name in ("weights.safetensors", "run.json", "curve.jsonl"):
        (folder / name).write_text(name)
    return folder


def test_a_run_becomes_the_bundle_with_its_digest(tmp_path: Path) -> None:
    shutil.copy(BUNDLED_FOLDER / BUNDLE, tmp_path / BUNDLE)
    target = bundle_weights.bundle_weights(write_run(tmp_path / "run"), tmp_path)
    assert target.read_text() == "weights.safetensors"
    assert json.loads((tmp_path / BUNDLE).read_text())["sha256"] == files.sha256_of(target)
    assert target.with_suffix(".log.jsonl").read_text() == "curve.jsonl"
    assert target.with_suffix(".recipe.json").read_text() == "run.json"


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    shutil.copy(BUNDLED_FOLDER / BUNDLE, tmp_path / BUNDLE)
    run = write_run(tmp_path / "run")
    (run / "weights.safetensors").unlink()
    with refuses(ResourceError, "file-access-failed", run / "weights.safetensors"):
        bundle_weights.bundle_weights(run, tmp_path)
