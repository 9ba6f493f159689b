"""Whether features and class maps are what the logits are made of, in an exported file on two backends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import runtimes
from exporter.export_request import ExportRequest
from exporter.models.outputs import CAM, FEATURES, LOGITS, OUTPUTS
from exporter.models.variants import VARIANTS
from exporter.network import prepare
from exporter.precision.spec import FP32
from exporter.targets.onnx_file import export_network
from exporter.targets.publish import ExportTarget
from runtimes.parity import outputs_of
from scripts.figures.setting import SILENT, Figure, FigureSettings

NETWORKS = {
    "resnet20": "bundled",
    "resnet50": "random",
    "seresnet50": "random",
    "resnet50d": "random",
    "resnetv2_50": "random",
}
"""The variants and their weights: one network of each family whose head or blocks differ."""

BACKENDS = ("onnxruntime", "openvino")

FEATURES_BOUND, CAM_BOUND = 1e-6, 1e-5
"""The largest difference from a logit, divided by the largest logit."""


def measure_outputs(setting: FigureSettings) -> Iterator[Figure]:
    """Features times the weights of the linear layer plus its bias against the logits, and the mean of a class map plus
    the bias against the logit of its class, on the test vectors of each file, batch 7. Sums are in float64."""
    for name, weights in NETWORKS.items():
        target = setting.folder / f"{name}.onnx"
        request = ExportRequest(VARIANTS[name], str(target), weights=weights, outputs=OUTPUTS)
        network = prepare(request, SILENT)
        artifact = export_network(network, ExportTarget(target), FP32, SILENT)
        weight, bias = (
            network.model.get_parameter(f"fc.{name}").detach().double().numpy() for name in ("weight", "bias")
        )
        for backend in BACKENDS:
            with runtimes.open(artifact.path, backend) as runtime:
                inputs = artifact.vectors().inputs
                values = {key: value.astype(np.float64) for key, value in outputs_of(runtime, inputs, 7).items()}
            largest = np.abs(values[LOGITS]).max()
            linear = np.abs(values[FEATURES] @ weight.T + bias - values[LOGITS]).max() / largest
            means = np.abs(values[CAM].mean((2, 3)) + bias - values[LOGITS]).max() / largest
            yield _figure(f"{name} on {backend}: features times weights plus bias", linear, FEATURES_BOUND)
            yield _figure(f"{name} on {backend}: mean of the class map plus bias", means, CAM_BOUND)


def _figure(name: str, value: float, bound: float) -> Figure:
    words = f"differs from the logits by {value:.1e} of the largest, 7 images"
    return Figure(name, words, f"<= {bound:.0e}", bool(value <= bound))
