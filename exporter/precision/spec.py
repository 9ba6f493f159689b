"""How a graph is to be typed, and the step from a float32 graph to that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.network import ExportListener, Network
from exporter.precision import calibration_images as examples
from exporter.precision.table import CALIBRATION_IMAGES, GATE_IMAGES, Material, Precision, Target, precision
from runtimes.artifacts.manifest import Calibration
from runtimes.errors import Reason, UsageError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class PrecisionSpec:
    """What the user asked for. What concerns int8 alone has no effect in other precisions.

    Attributes:
        precision: a name in ``PRECISIONS``.
        calibration: training images for int8, as ``exporter.data.dataset.open_dataset`` takes them; ``None`` takes
            what the network was trained on where it is at hand, and noise for untrained weights.
        calibration_images: how many of them.
        target: whom the int8 graph is for.
        gate_images: how many images the gate takes at most.

    Raises:
        UsageError: an unknown precision, or numbers below 1.
    """

    precision: str = "fp32"
    calibration: str | None = None
    calibration_images: int = CALIBRATION_IMAGES
    target: Target = "cpu"
    gate_images: int = GATE_IMAGES

    def __post_init__(self) -> None:
        precision(self.precision)
        if min(self.calibration_images, self.gate_images) < 1:
            raise UsageError("at least 1 image is needed for calibration and gate each", code="image-count-below-one")

    @property
    def row(self) -> Precision:
        """Of ``PRECISIONS``."""
        return precision(self.precision)


FP32 = PrecisionSpec()


def announce(precision_spec: PrecisionSpec, listener: ExportListener) -> None:
    """Says which devices alone the precision is one of, if it is not one of all."""
    row = precision_spec.row
    if "cpu" not in row.devices:
        listener.notice(
            Reason(
                "precision-needs-device",
                f"{row.name}: on {' and '.join(row.devices)} alone; a processor computes this file in float32",
            )
        )


def convert_precision(
    graph: onnx.ModelProto, network: Network, precision_spec: PrecisionSpec, listener: ExportListener
) -> tuple[onnx.ModelProto, Calibration | None]:
    """The graph in the precision asked for, and how its scales were found where it has some.

    Raises:
        UsageError: calibration is needed and no images are there for it.
        RexportError: they cannot be read; the graph cannot be converted.
    """
    row = precision_spec.row
    announce(precision_spec, listener)
    if not row.calibrated:
        return row.apply(graph, Material(None, precision_spec.target)), None
    listener.step("reading the calibration images")
    found = examples.for_calibration(network, precision_spec.calibration, precision_spec.calibration_images)
    listener.step(f"calibrating on {found.description}")
    from exporter.precision.quantise import quantiser

    result = row.apply(graph, Material(found.floats(0, len(found)), precision_spec.target))
    return result, Calibration(quantiser(), precision_spec.target, found.description, len(found))
