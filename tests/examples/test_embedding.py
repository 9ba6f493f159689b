"""The examples that embed a model in Python: each runs by the command that its first lines name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from exporter import cli
from exporter.data.opening import open_dataset
from runtimes import Artifact, Classifier
from runtimes.images.preprocessing import decode
from tests.exporter.command_line import here

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SCREEN = 60
"""Lines that an example has at most."""

BUILD = ("onnx", "resnet20", "--weights", "bundled", "--output", "logits,features,cam")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def clothes(count: int) -> list[tuple[str, np.ndarray]]:
    """The name of the class and the pixels (28, 28, 3) of the first test images."""
    dataset = open_dataset("fashion-mnist")
    assert dataset.targets is not None
    return [(dataset.classes[dataset.targets[index]], decode(dataset.image(index))) for index in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder after the export: the model, a photograph, and a folder of photographs."""
    place = tmp_path_factory.mktemp("examples")
    assert here(cli.main, *BUILD, cwd=place).code == 0
    (place / "photos").mkdir()
    for number, (name, pixels) in enumerate(clothes(60)):
        image = Image.fromarray(pixels)
        image.save(place / "photos" / f"{number:02} {name.replace('/', ' ')}.png")
        if number == 0:
            image.save(place / "photo.png")
    return place


def run(folder: Path, example: str, *arguments: str) -> str:
    """The output of an example, run in the folder."""
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", ["fastapi_mount.py", "camera_loop.py", "embedding_search.py", "browser_page.html"])
def test_an_example_fits_on_a_screen(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= SCREEN


def test_the_search_finds_images_of_the_same_class(folder: Path) -> None:
    for _ in range(2):  # the second run reads the features that the first one kept
        lines = run(folder, "embedding_search.py", "resnet20.onnx", "photos", "photo.png").splitlines()
        assert lines[0].split()[:2] == ["1.000", "00"]
        assert sum("Ankle boot" in line for line in lines) >= 4
    assert (folder / "photos" / "features.npz").exists()


def test_the_camera_loop_reports_each_change(folder: Path) -> None:
    first = dict(reversed(clothes(60)))
    noise = np.random.default_rng(0).integers(0, 16, (24, 28, 28, 3), np.uint8)  # equal frames would become one
    names = [name for name in ("Trouser", "Bag", "Trouser") for _ in range(8)]
    frames = [Image.fromarray(np.minimum(first[name], 239) + grain) for name, grain in zip(names, noise, strict=True)]
    frames[0].save(folder / "camera.webp", save_all=True, append_images=frames[1:], lossless=True, duration=40)
    lines = run(folder, "camera_loop.py", "resnet20.onnx", "camera.webp").splitlines()
    assert [line.split()[2] for line in lines] == ["Trouser", "Bag", "Trouser"]
    starts = [int(line.split()[1].rstrip(":")) for line in lines]
    assert starts[0] == 0
    assert 8 < starts[1] < 14
    assert 16 < starts[2] < 22


def test_the_camera_loop_numbers_classes_without_names(folder: Path, onnx_artifact: Artifact) -> None:
    assert onnx_artifact.manifest is not None
    assert onnx_artifact.manifest.labels is None
    Image.fromarray(clothes(1)[0][1]).save(folder / "still.gif")
    line = run(folder, "camera_loop.py", str(onnx_artifact.path), "still.gif")
    with Classifier.open(onnx_artifact.path) as classifier, Image.open(folder / "still.gif") as still:
        label = classifier.predict(np.asarray(still.convert("RGB")))[0].labels[0]
    assert label.index != 0  # else the test shows nothing
    assert line == f"frame 0: class {label.index} {label.probability:.0%}\n"


def test_an_app_answers_below_its_path(folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "fastapi_mount:app",
                "--app-dir",
                EXAMPLES,
                "--fd",
                str(listener.fileno()),
            ],
            cwd=folder,
            env=ENVIRONMENT,
            pass_fds=(listener.fileno(),),
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            photo = (folder / "photo.png").read_bytes()
            with urllib.request.urlopen(f"{address}/labels/v1/label", photo, timeout=120) as answer:
                (image,) = json.loads(answer.read())["images"]
            with urllib.request.urlopen(f"{address}/", timeout=60) as answer:
                assert json.loads(answer.read())["page"] == "/labels/"
        finally:
            server.terminate()
            server.wait(60)
    assert image["labels"][0]["name"] == "Ankle boot"


def test_the_notebook_shows_labels_and_a_heat_map(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook: Any = nbformat.read(EXAMPLES / "labels.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    assert "Ankle boot" in outputs[1].text
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert outputs[-1].data["text/plain"] == "(28, 28)"
