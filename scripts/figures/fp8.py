"""fp8: what it loses on the bundled network, by each recipe, and engines of TensorRT-RTX of networks of all depths.

Accuracy is that of the graph as it is written, on the CPU: E4M3 values in float32 arithmetic. No GPU is needed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.precision import modelopt
from exporter.precision.gate import describe_gate
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets import onnx_file
from runtimes import Artifact
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.flavors import flavor
from runtimes.errors import BackendUnavailableError, CheckFailedError
from scripts.figures.engines import LIMIT_S
from scripts.figures.setting import SILENT, Figure, FigureSettings

NETWORKS = ("resnet18", "resnet50", "resnet152")
BUNDLED = "resnet20"
TARGETS = ("8.9", "12.0")
"""The compute capabilities of Ada and Blackwell. TensorRT-RTX does not build for Hopper."""

SIZE_BOUND = 0.30
"""The largest size of an fp8 file, as a share of the fp32 file. Some layers stay in float16."""


def measure_fp8(setting: FigureSettings) -> Iterator[Figure]:
    """The gate of the bundled network on all its test images, and the size and the engine of each network."""
    limit = PRECISIONS["fp8"].bounds
    assert limit is not None
    for precision, recipe in (("int8", None), ("int8", "modelopt"), ("fp8", None), ("fp8", "modelopt")):
        if recipe == "modelopt" and not _has_modelopt():
            continue
        title = f"top-1 drop, bundled {BUNDLED}, {precision} for TensorRT, recipe {recipe or 'default'}"
        bound = f"<= {100 * limit.drop:g} pp"
        try:
            artifact = _export(setting, BUNDLED, precision, recipe, setting.limit or 10_000)
        except CheckFailedError as error:
            yield Figure(title, str(error), bound, False)
            continue
        gate = None if artifact.manifest is None else artifact.manifest.gate
        assert gate is not None
        assert gate.drop is not None
        yield Figure(title, describe_gate(gate), bound, gate.drop <= limit.drop)
    for name in (BUNDLED, *NETWORKS):
        yield from _measure_engine(setting, name)


def _has_modelopt() -> bool:
    try:
        modelopt.quantiser()
    except BackendUnavailableError:
        return False
    return True


def _measure_engine(setting: FigureSettings, name: str) -> Iterator[Figure]:
    """The size of a network's file in fp8, and the build of its engine for each target."""
    small = _export(setting, name, "fp8", None, 16).path.stat().st_size
    whole = _export(setting, name, "fp32", None, 16).path.stat().st_size
    share = small / whole
    size = f"{share:.3f} x, {small / 1e6:.1f} MB of {whole / 1e6:.1f} MB"
    yield Figure(f"size of fp8 {name} against fp32", size, f"<= {SIZE_BOUND} x", share <= SIZE_BOUND)
    rtx, source = flavor("rtx"), setting.folder / f"{name}-fp8-None.onnx"
    for target in TARGETS:
        builds = [build(source, Settings(targets=(target,)), rtx) for _ in range(max(3, setting.rounds // 3))]
        times = [built.duration_s for built in builds]
        value = (
            f"{statistics.median(times):.1f} s, from {min(times):.1f} to {max(times):.1f} in {len(times)} builds; "
            f"{builds[0].plan.nbytes / 1e6:.1f} MB"
        )
        title = f"fp8 {name} built by {rtx.title} {rtx.version()} for compute capability {target}"
        yield Figure(title, value, f"< {LIMIT_S:.0f} s", max(times) < LIMIT_S)


def _export(setting: FigureSettings, name: str, precision: str, recipe: str | None, gate_images: int) -> Artifact:
    """A network as an ONNX file; of the bundled one with its weights, of others with random weights."""
    request = ExportRequest(
        VARIANTS[name],
        f"{setting.folder}/{name}-{precision}-{recipe}.onnx",
        weights="bundled" if name == BUNDLED else "random",
        force=True,
    )
    spec = FP32
    if PRECISIONS[precision].calibrated:
        spec = PrecisionSpec(precision, recipe=recipe, target="tensorrt", gate_images=gate_images)
    return onnx_file.export(request, SILENT, precision_spec=spec)
