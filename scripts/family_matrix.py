"""Exports a network of each family in every precision, runs it in every backend, and prints a table.

    python -m scripts.family_matrix [FAMILY ...]

Each network is the first of its family, cut to two stages of one block and small images, so that the table takes
minutes. A cell holds the largest difference of a logit from PyTorch in fp32 over the largest logit, or the code of the
error. tf32 is left out, whose graph is that of fp32. Engines of TensorRT-RTX are built and not run, because that needs
a GPU. The column *floats* has the weighted layers that ran in a wider type than the graph's, of all weighted layers, as
``rexport explain`` counts them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import runtimes
from exporter.document.blocks import Document, Table, TableColumn, TableRow
from exporter.document.terminal import print_document
from exporter.explain.explanation import ExplanationRequest, explain
from exporter.export_request import ExportListener, ExportRequest
from exporter.models.variants import FAMILIES, Variant, customise
from exporter.network import INPUT, reference_logits
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets import onnx_file, rebuild, tensorrt_engine, torch_program
from runtimes import Artifact
from runtimes.artifacts.manifest import TF32
from runtimes.errors import RexportError
from runtimes.parity import LogitComparison

SIZES = {"imagenet": 64, "deep": 64, "cifar": 16}
"""The height and width of the images in pixels, by stem."""

IMAGES = 8
"""The number of images for calibration and for the accuracy gate."""

BACKENDS = ("onnxruntime", "openvino")
"""The backends that run every file."""

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)


@dataclass(frozen=True)
class Case:
    """A network in a precision.

    Attributes:
        family: The family.
        variant: The network.
        precision: The name of the precision.
        differences: The difference or the code of an error, one for each of ``BACKENDS``.
        floats: The layers in a wider type than the graph's, and all weighted layers, as text; or the code of an error.
        rebuilt: The difference of fp32 as it is rebuilt from the file, or the code of an error.
        program: The difference of a PyTorch program, or the code of an error.
        engine: ``built``, or the code of an error.
    """

    family: str
    variant: str
    precision: str
    differences: tuple[str, ...]
    floats: str
    rebuilt: str
    program: str
    engine: str


def representative(family: str) -> Variant:
    """Return the first network of a family for 10 classes and small images, cut to one block in two stages."""
    row = FAMILIES[family][0]
    channels = (row.channels[0], row.channels[row.depths[0]]) if row.channels else ()
    row = replace(row, depths=(1, 1), widths=row.widths[:2], channels=channels)
    return customise(row, size=(SIZES[row.stem], SIZES[row.stem]), classes=10)


def cases(families: Sequence[str], folder: Path) -> Iterator[Case]:
    """Yield the results of all precisions for each family. The call blocks for seconds for each of them."""
    for family in families:
        for precision in (name for name in PRECISIONS if name != TF32):
            yield _case(family, representative(family), precision, folder)


def _case(family: str, row: Variant, precision: str, folder: Path) -> Case:
    spec = PrecisionSpec(precision, calibration_images=IMAGES, gate_images=IMAGES)
    path = folder / f"{row.name}.{precision}.onnx"
    empty = Case(family, row.name, precision, ("",) * len(BACKENDS), "", "", "", "")
    try:
        artifact = onnx_file.export(ExportRequest(row, str(path)), SILENT, None, spec)
    except RexportError as error:
        return replace(empty, differences=(error.code, *[""] * (len(BACKENDS) - 1)))
    return replace(
        empty,
        differences=tuple(_difference(artifact, backend) for backend in BACKENDS),
        floats=_floats(path),
        rebuilt=_rebuilt(artifact),
        program=_program(row, spec, folder),
        engine=_engine(row, spec, folder),
    )


def _difference(artifact: Artifact, backend: str) -> str:
    vectors = artifact.vectors()
    try:
        with runtimes.open(artifact.path, backend) as runtime:
            (logits,) = runtime.infer({INPUT: vectors.inputs}).values()
    except RexportError as error:
        return error.code
    return f"{LogitComparison.compare(logits, vectors.logits).relative_difference:.0e}"


def _floats(path: Path) -> str:
    try:
        found = explain(ExplanationRequest(path, BACKENDS[0]), SILENT)
    except RexportError as error:
        return error.code
    if found.execution is None:
        return found.no_execution.code if found.no_execution else ""
    layers = sum(found.execution.precisions.values())
    wide = layers - found.execution.kept
    compared = "" if found.errors is not None else f" ({found.no_errors.code if found.no_errors else ''})"
    return f"{wide} of {layers}{compared}"


def _rebuilt(artifact: Artifact) -> str:
    vectors = artifact.vectors()
    try:
        logits = reference_logits(rebuild.network_of(artifact, SILENT).model, vectors.inputs)
    except RexportError as error:
        return error.code
    return f"{LogitComparison.compare(logits, vectors.logits).relative_difference:.0e}"


def _program(row: Variant, spec: PrecisionSpec, folder: Path) -> str:
    if spec.row.element is None:
        return ""
    path = folder / f"{row.name}.{spec.precision}.pt2"
    try:
        return _difference(torch_program.export(ExportRequest(row, str(path)), SILENT, spec), "pytorch")
    except RexportError as error:
        return error.code


def _engine(row: Variant, spec: PrecisionSpec, folder: Path) -> str:
    path = folder / f"{row.name}.{spec.precision}.onnx"
    try:
        if spec.row.calibrated:
            spec = replace(spec, target="tensorrt")
            onnx_file.export(ExportRequest(row, str(path), force=True), SILENT, None, spec)
        tensorrt_engine.build_artifact(path, tensorrt_engine.EngineRequest("rtx"), SILENT)
    except RexportError as error:
        return error.code
    return "built"


def document(found: Sequence[Case]) -> Document:
    """Return the table."""
    headings = ("family", "variant", "precision", *BACKENDS, "floats", "rebuilt", "pytorch", "TensorRT-RTX")
    rows = [
        TableRow(
            (
                case.family,
                case.variant,
                case.precision,
                *case.differences,
                case.floats,
                case.rebuilt,
                case.program,
                case.engine,
            )
        )
        for case in found
    ]
    columns = tuple(TableColumn(heading, left=True, unbroken=True) for heading in headings)
    return Document("families", (Table(columns, tuple(rows)),))


def main() -> None:
    """Print the table of the families that the arguments name, or of all."""
    names = sys.argv[1:] or list(FAMILIES)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(names, Path(folder)):
            found.append(case)
            sys.stderr.write(f"{case}\n")
    print_document(document(found), sys.stdout)


if __name__ == "__main__":
    main()
