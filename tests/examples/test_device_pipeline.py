"""The pipeline of futures and outputs that stay on their device: on the CPU, by the command of its first lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from runtimes import Artifact, Classifier
from tests.runtimes.images.pictures import picture

ROOT = Path(__file__).parents[2]


def test_each_image_has_the_class_of_the_classifier(onnx_artifact: Artifact, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(32 + number, 40)).save(path)
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / "device_pipeline.py", str(onnx_artifact.path)],
        input="\n".join(map(str, paths)) + "\n",
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    with Classifier.open(onnx_artifact.path) as classifier:
        labels = [prediction.labels[0] for prediction in classifier.predict(paths)]
    assert [(path, int(index)) for path, index, _ in lines] == [
        (str(path), label.index) for path, label in zip(paths, labels, strict=True)
    ]
