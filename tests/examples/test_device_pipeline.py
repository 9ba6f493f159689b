"""The pipeline of futures and outputs that stay on their device: on the CPU, by the command of its first lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from runtimes import Artifact, Classifier
from tests.conftest import SILENT
from tests.exporter.deploy.changes import change
from tests.runtimes.images.pictures import picture

ROOT = Path(__file__).parents[2]


def run(model: Path, paths: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / "device_pipeline.py", str(model)],
        input="\n".join(map(str, paths)) + "\n",
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )


def test_one_output_is_refused(tmp_path: Path) -> None:
    row = replace(variant("resnet20"), classes=1)
    artifact = onnx_file.export(ExportRequest(row, f"{tmp_path}/single.onnx"), SILENT)
    done = run(artifact.path, [tmp_path / "absent.png"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{artifact.path} has one output")


def test_the_probability_is_that_of_the_manifest(onnx_artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "models")
    model, photo = tmp_path / "models" / onnx_artifact.path.name, tmp_path / "photo.png"
    change(model, activation="sigmoid")
    Image.fromarray(picture(32, 40)).save(photo)
    with Classifier.open(model) as classifier:
        label = classifier.predict(photo)[0].labels[0]
    assert run(model, [photo]).stdout == f"{photo}\t{label.index}\t{label.probability:.3f}\n"


def test_each_image_has_the_class_of_the_classifier(onnx_artifact: Artifact, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(32 + number, 40)).save(path)
    done = run(onnx_artifact.path, paths)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    with Classifier.open(onnx_artifact.path) as classifier:
        labels = [prediction.labels[0] for prediction in classifier.predict(paths)]
    assert [(path, int(index)) for path, index, _ in lines] == [
        (str(path), label.index) for path, label in zip(paths, labels, strict=True)
    ]
