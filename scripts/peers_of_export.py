"""Exports networks of torchvision and timm, which are no variants, and prints a table of what passed and what not.

    python -m scripts.peers_of_export [NETWORK ...]

It runs in an environment with torchvision and timm besides rexport's own extras. A network has ten classes, seeded
random weights, and batch norms with the statistics of training images of Fashion-MNIST. Each network has a process of
its own, so that a crash is a cell of the table. A cell holds the error of the logits against PyTorch in fp32, on
test images of the same dataset, or the code of the error:

- ``fp32`` is the parity check: the largest difference, divided by the largest logit;
- the other precisions are the accuracy gate: the root mean square of the differences, divided by that of the fp32
  logits. int8 is calibrated on training images.
"""

from __future__ import annotations

import importlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.data.opening import open_dataset
from exporter.document.blocks import Document, Sentence, Table, TableColumn, TableRow
from exporter.document.terminal import print_document
from exporter.preprocessing.options import assume_preprocessing

if TYPE_CHECKING:
    from torch import nn

NETWORKS = (
    "torchvision.models:mobilenet_v3_small",
    "torchvision.models:efficientnet_b0",
    "torchvision.models:vgg11_bn",
    "torchvision.models:densenet121",
    "torchvision.models:regnet_y_400mf",
    "torchvision.models:convnext_tiny",
)
"""The networks, as the command takes them."""

EXPORTS = (("fp32", ".onnx"), ("fp16", ".onnx"), ("int8", ".onnx"))
"""The precision and the format of each column."""

SIZE = 224
"""The height and width of the images in pixels."""

CALIBRATION_IMAGES = 16
"""The number of images for the calibration of int8."""

GATE_IMAGES = 32
"""The number of images for the accuracy gate."""

DATA, CLASSES = "fashion-mnist", 10
"""The dataset, and the number of its classes."""


def build(name: str) -> nn.Module:
    """Return a network with seeded weights, whose batch norms have the statistics of images."""
    import torch
    from torch import nn

    owner, _, factory = name.partition(":")
    torch.manual_seed(0)
    module: nn.Module = getattr(importlib.import_module(owner), factory)(num_classes=CLASSES)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the average over all batches
    preparation = assume_preprocessing((SIZE, SIZE), whole_image=False)
    dataset = open_dataset(DATA, CALIBRATION_IMAGES, split="train")
    with torch.inference_mode():
        for _, images in dataset.batches(preparation, CALIBRATION_IMAGES):
            module.train()(torch.from_numpy(images))
    return module.eval()


def export_cells(name: str) -> Iterator[str]:
    """Yield the contents of the cells of a network."""
    import rexport

    module = build(name)
    for precision, suffix in EXPORTS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                manifest = rexport.export(
                    module,
                    Path(folder, f"network{suffix}"),
                    input_size=SIZE,
                    precision=precision,
                    calibration=DATA if precision == "int8" else None,
                    calibration_images=CALIBRATION_IMAGES,
                    data=DATA,
                    gate_images=GATE_IMAGES,
                ).manifest
            except rexport.RexportError as error:
                sys.stderr.write(f"{name} {precision} {suffix}: {error}\n")
                yield error.code
                continue
        assert manifest is not None
        assert manifest.parity is not None
        yield f"{manifest.parity.relative_difference if manifest.gate is None else manifest.gate.error:.1e}"


def run_cells(name: str) -> list[str]:
    """Return the contents of the cells of a network from a process of its own."""
    command = [sys.executable, "-m", "scripts.peers_of_export", "--one", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    cells = done.stdout.splitlines()
    return [*cells, *[f"exit code {done.returncode}"] * (len(EXPORTS) - len(cells))]


def setting() -> str:
    """Return the versions and the processor in words."""
    versions = (
        f"{name} {importlib.import_module(name).__version__}"
        for name in ("torch", "torchvision", "timm", "onnxruntime")
    )
    return (
        f"{', '.join(versions)} on {platform.machine()}, {SIZE} x {SIZE} pixels, {CALIBRATION_IMAGES} images for "
        f"calibration, {GATE_IMAGES} for the gate, one export for each cell"
    )


def main() -> None:
    """Print the table, or the cell that the arguments name."""
    if sys.argv[1:2] == ["--one"]:
        for cell in export_cells(sys.argv[2]):
            sys.stdout.write(f"{cell}\n")
            sys.stdout.flush()
        return
    columns = ("network", *(f"{precision} {suffix}" for precision, suffix in EXPORTS))
    rows = []
    for name in sys.argv[1:] or NETWORKS:
        cells = run_cells(name)
        sys.stderr.write(f"{name}: {cells}\n")
        rows.append(TableRow((name, *cells)))
    table = Table(tuple(TableColumn(column, left=True, unbroken=True) for column in columns), tuple(rows))
    print_document(Document("exports", (table, Sentence(setting()))), sys.stdout)


if __name__ == "__main__":
    main()
