"""One case of growth in its own process: ``python -m scripts.figures.growth_cases KIND SIZE`` prints one JSON line.

CPU seconds are those of this process with all its threads, without what it needs to make the input.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from exporter.models.variants import Variant

ROWS = Path(__file__).resolve().parents[2] / "docs" / "results" / "sizes" / "results.jsonl.xz"
"""Measured rows, which stand for rows of other networks under other names."""


def _deep(layers: int) -> Variant:
    """A CIFAR ResNet of 6n + 2 layers."""
    from exporter.models.variants import VARIANTS

    blocks = (layers - 2) // 6
    return replace(VARIANTS["resnet1202"], name=f"resnet{layers}", depths=(blocks,) * 3)


def export(layers: int, folder: Path) -> float:
    """Export a network of that many layers to ONNX, with all checks. The imports count."""
    start = time.process_time()
    from exporter.export_request import ExportRequest
    from exporter.targets import onnx_file
    from scripts.figures.setting import SILENT

    onnx_file.export(ExportRequest(_deep(layers), f"{folder}/"), SILENT)
    return time.process_time() - start


def export_whole(layers: int, folder: Path) -> float:
    """The same, with a trace of the whole network, as of a network of the user's own."""
    from exporter.targets import onnx_file

    with mock.patch.object(onnx_file, "shorten", return_value=None):
        return export(layers, folder)


def _write_rows(rows: int, path: Path) -> None:
    with lzma.open(ROWS) as file:
        measured = [json.loads(line) for line in file]
    with path.open("w") as out:
        for number in range(rows):
            row = measured[number % len(measured)]
            network = f"network-{number // len(measured)}"
            identity = {**row["identity"], "subject": network, "artifact": network}
            out.write(json.dumps({**row, "run": network, "identity": identity}) + "\n")


def report(rows: int, folder: Path) -> float:
    """Write the page and the Markdown of that many rows."""
    from benchmarks.commands.results import report as command

    _write_rows(rows, folder / "results.jsonl")
    page, markdown = folder / "report.html", folder / "report.md"
    start = time.process_time()
    with redirect_stdout(io.StringIO()):
        command.main([str(folder), "-o", str(page), "--markdown", str(markdown)], standalone_mode=False)
    return time.process_time() - start


def compare(rows: int, folder: Path) -> float:
    """Compare a file of that many rows with itself."""
    from benchmarks.compare.compare import Limits
    from benchmarks.compare.compare import compare as compare_files

    path = folder / "results.jsonl"
    _write_rows(rows, path)
    start = time.process_time()
    compare_files(path, path, Limits())
    return time.process_time() - start


def read_graph(nodes: int, folder: Path) -> float:
    """Read an ONNX file of that many nodes, and find the type of each convolution."""
    from onnx import TensorProto, helper

    from runtimes.onnx import external_data
    from runtimes.onnx.graph import graph

    values = ["input", *(f"value{number}" for number in range(nodes))]
    made = [
        helper.make_node(
            "Conv" if number % 2 else "Relu", [values[number], f"w{number}"][: 1 + number % 2], [values[number + 1]]
        )
        for number in range(nodes)
    ]
    weights = [helper.make_tensor(f"w{number}", TensorProto.FLOAT, [1], [1.0]) for number in range(1, nodes, 2)]
    path = folder / "deep.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(made, "deep", [], [], weights)).SerializeToString())
    start = time.process_time()
    external_data.check(path)
    found = graph(path)
    assert len(found.weighted) == nodes // 2
    return time.process_time() - start


def label(images: int, folder: Path) -> float:
    """Label that many copies of one image in a tar archive, with a backend that computes a mean."""
    import PIL.Image

    from runtimes.labelling.label import LabellingRequest
    from runtimes.labelling.label import label as run
    from tests.samples import publish_script

    picture = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (200, 30, 30)).save(picture, "PNG")
    content = picture.getvalue()
    with tarfile.open(folder / "images.tar", "w") as archive:
        for number in range(images):
            entry = tarfile.TarInfo(f"{number:09}.png")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    artifact = publish_script(folder / "mean.fake")
    start = time.process_time()
    result = run(LabellingRequest(str(folder / "images.tar"), artifact.path, str(folder / "labels")))
    assert result.counts.images == images
    return time.process_time() - start


CASES: dict[str, Callable[[int, Path], float]] = {
    "export": export,
    "export-whole": export_whole,
    "report": report,
    "compare": compare,
    "reader": read_graph,
    "label": label,
}
"""What grows, by name. Each returns its CPU seconds, without those for its input."""


def main(kind: str, size: int) -> None:
    """Run one case and print its line."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = CASES[kind](size, Path(folder))
    status = Path("/proc/self/status").read_text()  # ru_maxrss would include what the parent had before the start
    peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
    sys.stdout.write(json.dumps({"kind": kind, "size": size, "cpu_s": round(seconds, 3), "peak_bytes": peak}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
