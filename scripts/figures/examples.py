"""Whether the examples in Node.js and C++ label JPEG files as Python does: each example as a program of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.deploy.web import SiteRequest, write_site
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Classifier
from scripts.consumers.compilers import compile_program, onnxruntime_options, openvino_options
from scripts.figures.setting import SILENT, Figure, FigureSettings
from scripts.figures.web import BOUND, IMAGES, NODE, PRECISIONS, image_files

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

PRINTED = 5e-7
"""The rounding of the printed probabilities."""


def measure_examples(setting: FigureSettings) -> Iterator[Figure]:
    """Top-1 class and its probability by each example, against those of the same library in Python."""
    paths = write_images(setting.folder, setting.limit or IMAGES)
    programs = {
        "C++ with ONNX Runtime": ("onnxruntime", onnxruntime_options(setting.folder)),
        "C++ with OpenVINO": ("openvino", openvino_options()),
    }
    compiled = {
        name: compile_program(EXAMPLES / "classify.cpp", setting.folder / backend, *options)
        for name, (backend, options) in programs.items()
    }
    for precision, spec in PRECISIONS.items():
        folder = setting.folder / precision
        folder.mkdir()
        request = ExportRequest(VARIANTS["resnet20"], f"{folder}/resnet20.onnx", weights="bundled")
        model = onnx_file.export(request, SILENT, precision_spec=spec).path
        for name, program in compiled.items():
            yield compare(f"resnet20 {precision}, {name}", model, programs[name][0], (str(program), str(model)), paths)
        if (NODE / ".complete").exists():
            write_site(SiteRequest(model, f"{folder}/site/", NODE), SILENT)
            command = ("node", str(EXAMPLES / "classify.mjs"), f"{folder}/site")
            yield compare(f"resnet20 {precision}, Node.js", model, "onnxruntime", command, paths)


def write_images(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of several sizes and qualities, and return their paths."""
    paths = [folder / f"image{index:03}.jpg" for index in range(count)]
    for path, content in zip(paths, image_files("JPEG", count), strict=True):
        path.write_bytes(content)
    return paths


def compare(name: str, model: Path, backend: str, command: Sequence[str], paths: Sequence[Path]) -> Figure:
    """Compare the lines that an example prints with Python's predictions."""
    done = subprocess.run(
        [*command, *map(str, paths)], cwd=NODE if NODE.exists() else None, check=True, capture_output=True, text=True
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    with Classifier.open(model, backend, threads=1) as classifier:
        predictions = classifier.predict(list(map(str, paths)))
    pairs = list(zip(rows, predictions, strict=True))
    same = sum(label == prediction.label for (_, label, _), prediction in pairs)
    largest = max(abs(float(printed) - prediction.probability) for (_, _, printed), prediction in pairs)
    return Figure(
        f"{name} and Python on {backend}",
        f"same top-1 class for {same} of {len(paths)} JPEG files, largest difference of a probability {largest:.1e}",
        f"all, <= {BOUND:.0e}",
        same == len(paths) and largest <= BOUND + PRINTED,
    )
