from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.paper import fashion, train
from benchmarks.paper.train import Recipe, augmented, normalised, placed
from runtimes.errors import ArtifactError, IntegrityError, ResourceError, UsageError

RECIPE = Recipe(epochs=2, batch=32)
IMAGES = {"train": 96, "t10k": 40}


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Small IDX files under the published names: bright squares whose place tells the class."""
    files = {}
    for number, (split, count) in enumerate(IMAGES.items()):
        random = np.random.default_rng(number)
        targets = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, target in zip(images, targets, strict=True):
            image[2 * target : 2 * target + 8, 4:20] = 255
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        files[f"{split}-images-idx3-ubyte"] = header + images.tobytes()
        files[f"{split}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, count) + targets.tobytes()
    return files


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> Path:
    """A folder with these files, their digests taken for the published ones."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        monkeypatch.setitem(fashion.SHA256, name, hashlib.sha256(content).hexdigest())
    return folder


def test_the_files_are_read_as_they_are(data: Path) -> None:
    images, targets = fashion.read("t10k", data)
    assert images.shape == (40, 28, 28)
    assert (images.dtype.name, targets.dtype.name) == ("uint8", "int64")
    np.testing.assert_array_equal(targets, np.arange(40) % 10)
    assert (images[3, 6:14, 4:20] == 255).all()


def test_missing_files_are_named_with_their_package(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"train-images-idx3-ubyte.gz: cannot read: No such file .*apt-get install"):
        fashion.read("train", tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_damaged_archives_are_refused(data: Path, damage: str) -> None:
    path = data / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    spoilt = {"text": b"not gzip", "cut": content[:-50], "flipped": content[:40] + b"\xff\xff" + content[42:]}[damage]
    path.write_bytes(spoilt)
    with pytest.raises(ArtifactError, match=r"train-images-idx3-ubyte.gz: not a whole gzip file"):
        fashion.read("train", data)


def test_other_content_is_refused(data: Path, contents: dict[str, bytes]) -> None:
    content = contents["train-labels-idx1-ubyte"]
    (data / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content[:-1] + b"\x07"))
    with pytest.raises(IntegrityError, match="its unpacked content is not the published Fashion-MNIST file"):
        fashion.read("train", data)


def test_the_published_files_are_what_we_take_them_for() -> None:
    if not fashion.DEBIAN_FOLDER.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    images, targets = fashion.read("t10k")
    assert images.shape == (10_000, 28, 28)
    np.testing.assert_array_equal(np.bincount(targets), [1000] * 10)


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(epochs=18, peak_learning_rate=0.2, warmup_epochs=2.0)
    assert [recipe.learning_rate(epoch) for epoch in (0, 1, 2, 10, 18)] == pytest.approx([0, 0.1, 0.2, 0.1, 0])
    assert recipe.learning_rate(6) == pytest.approx(0.1 * (1 + math.sqrt(0.5)))


def test_an_image_is_placed_where_it_is_told() -> None:
    image = torch.arange(1, 5, dtype=torch.uint8).reshape(1, 2, 2)
    canvas = placed(image, torch.tensor([1]), torch.tensor([0]), 4)
    np.testing.assert_array_equal(canvas[0], [[0, 0, 0, 0], [1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 0, 0]])


def test_no_place_cuts_anything_off() -> None:
    places = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    images = torch.randint(1, 255, (25, 28, 28), dtype=torch.uint8)
    canvases = placed(images, places[:, 0], places[:, 1], 32)
    for canvas, image, (top, left) in zip(canvases, images, places.tolist(), strict=True):
        np.testing.assert_array_equal(canvas[top : top + 28, left : left + 28], image)
        assert int((canvas > 0).sum()) == 28 * 28


def test_augmentation_cuts_nothing_and_mirrors_half() -> None:
    image = torch.arange(1, 17, dtype=torch.uint8).reshape(1, 4, 4).expand(4000, -1, -1)
    canvases = augmented(image, 6, torch.Generator().manual_seed(0))
    seen = {tuple(canvas.flatten().tolist()) for canvas in canvases}
    assert len(seen) == 2 * 9
    content = torch.sort(canvases.flatten(1), dim=1).values[:, -16:]
    np.testing.assert_array_equal(content, torch.arange(1, 17).expand(4000, -1))
    first, second = (canvases == 1).flatten(1).int().argmax(1), (canvases == 2).flatten(1).int().argmax(1)
    assert float((first > second).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_images_are_normalised_as_the_recipe_says() -> None:
    canvases = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-0.286 / 0.353, 0.714 / 0.353]]]]).expand(1, 3, -1, -1)
    np.testing.assert_allclose(normalised(canvases, Recipe()), expected, rtol=1e-6)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "weights.safetensors"))


class StopError(Exception):
    """Ends a run from inside."""


def test_an_interrupted_run_ends_with_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.train(RECIPE, whole, data)

    def stopping(*arguments: object) -> tuple[float, float]:
        if arguments[-1] == 1:
            raise StopError
        return epoch(*arguments)  # type: ignore[arg-type]

    epoch = train.train_epoch
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_epoch", stopping)
        with pytest.raises(StopError):
            train.train(RECIPE, broken, data)
    assert not (broken / "weights.safetensors").exists()
    train.train(RECIPE, broken, data)
    first, second = weights(whole), weights(broken)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [json.loads(line) for line in (broken / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert json.loads((broken / "recipe.json").read_text())["batch"] == 32
    assert capsys.readouterr().err.count("epoch  ") == 4
    assert not list(broken.glob(".*"))
    other = tmp_path / "other"
    train.train(dataclasses.replace(RECIPE, seed=1), other, data)
    assert not torch.equal(weights(other)["conv1.weight"], first["conv1.weight"])


def test_a_folder_keeps_to_one_run(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train.train(dataclasses.replace(RECIPE, epochs=1), folder, data)
    before = {place.name: place.read_bytes() for place in folder.iterdir()}
    for recipe, limit in ((RECIPE, None), (dataclasses.replace(RECIPE, epochs=1, seed=1), None)):
        with pytest.raises(
            UsageError, match=r"run: it holds a run of another recipe, seed or limit \(name a new one\)"
        ):
            train.train(recipe, folder, data, limit)
    with pytest.raises(UsageError, match="another recipe, seed or limit"):
        train.train(dataclasses.replace(RECIPE, epochs=1), folder, data, limit=64)
    assert {place.name: place.read_bytes() for place in folder.iterdir()} == before


def test_less_than_a_batch_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"31 images, fewer than a batch of 32 \(a larger --limit\)"):
        train.train(RECIPE, tmp_path / "run", data, limit=31)


def test_the_command_runs_the_debian_files_and_tells_its_errors(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.paper.train", "-o", str(tmp_path / "run"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("error: ")
    assert "apt-get install dataset-fashion-mnist" in done.stderr
    assert "Traceback" not in done.stderr
