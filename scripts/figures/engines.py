"""How long it takes to build an engine with TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.network import Network, prepare
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets import onnx_file
from exporter.targets.publish import ExportTarget
from runtimes import Artifact
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.flavors import flavor
from scripts.figures.setting import SILENT, VARIANT, Figure, FigureSettings

LIMIT_S = 10.0


def engines(setting: FigureSettings) -> Iterator[Figure]:
    """Parsing and building ResNet-50 for 224 x 224 pixels, in each precision, for the default batches and GPUs."""
    rtx = flavor("rtx")
    network = prepare(ExportRequest(VARIANTS[VARIANT], "unused"), SILENT)
    for name in PRECISIONS:
        source = _export_network(network, setting, name)
        settings = Settings(tf32=source.allows_tf32)
        built = [build(source.path, settings, rtx) for _ in range(max(3, setting.rounds // 3))]
        taken = [one.duration_s for one in built]
        value = (
            f"{statistics.median(taken):.1f} s, from {min(taken):.1f} to {max(taken):.1f} in {len(taken)} builds; "
            f"{built[0].plan.nbytes / 1e6:.1f} MB of {source.path.stat().st_size / 1e6:.1f} MB"
        )
        title = f"{name} {VARIANT} parsed and built by {rtx.title} {rtx.version()}"
        yield Figure(title, value, f"< {LIMIT_S:.0f} s", max(taken) < LIMIT_S)


def _export_network(network: Network, setting: FigureSettings, precision: str) -> Artifact:
    precision_spec = PrecisionSpec(precision)
    if precision_spec.row.calibrated:
        precision_spec = replace(precision_spec, target="tensorrt")
    return onnx_file.export_network(network, ExportTarget(setting.folder / f"{precision}.onnx"), precision_spec, SILENT)
