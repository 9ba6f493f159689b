"""The requested precision, and the conversion of a float32 graph to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.network import ExportListener, Network
from exporter.precision import calibration_images
from exporter.precision.table import CALIBRATION_IMAGES, GATE_IMAGES, Material, Precision, Target, precision
from runtimes.artifacts.manifest import Calibration
from runtimes.errors import Reason, UsageError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class PrecisionSpec:
    """The requested precision.

    Attributes that concern only int8 have no effect in other precisions.

    Attributes:
        precision: A name in ``PRECISIONS``.
        calibration: The training images for int8, as for ``exporter.data.dataset.open_dataset``. ``None`` means the
            bundled dataset for weights trained on it, and noise for untrained weights.
        calibration_images: The largest number of images for calibration.
        target: The deployment target of int8.
        gate_images: The largest number of images for the accuracy gate.

    Raises:
        UsageError: The precision is unknown, or a number is below 1.
    """

    precision: str = "fp32"
    calibration: str | None = None
    calibration_images: int = CALIBRATION_IMAGES
    target: Target = "cpu"
    gate_images: int = GATE_IMAGES

    def __post_init__(self) -> None:
        precision(self.precision)
        if min(self.calibration_images, self.gate_images) < 1:
            raise UsageError(
                f"calibration and accuracy gate need at least 1 image, not {self.calibration_images} and "
                f"{self.gate_images}",
                code="image-count-below-one",
            )

    @property
    def row(self) -> Precision:
        """The row of ``PRECISIONS``."""
        return precision(self.precision)


FP32 = PrecisionSpec()
"""The default precision."""


def announce(precision_spec: PrecisionSpec, listener: ExportListener) -> None:
    """Notify the listener if the precision takes effect only on some devices.

    Args:
        precision_spec: The requested precision.
        listener: Receives the notice.
    """
    row = precision_spec.row
    if "cpu" not in row.devices:
        listener.notice(
            Reason(
                "precision-needs-device",
                f"{row.name} takes effect only on {' and '.join(row.devices)}; a CPU computes this file in float32",
            )
        )


def convert_precision(
    graph: onnx.ModelProto, network: Network, precision_spec: PrecisionSpec, listener: ExportListener
) -> tuple[onnx.ModelProto, Calibration | None]:
    """Convert a float32 graph to the requested precision.

    Args:
        graph: The float32 graph with folded batch norms.
        network: The network of the graph.
        precision_spec: The requested precision.
        listener: Receives the progress and notices.

    Returns:
        The converted graph, which is ``graph`` itself for fp32 and tf32, and the record of the calibration or ``None``.

    Raises:
        UsageError: int8 needs calibration images, and there are none.
        RexportError: The images cannot be read, or the graph cannot be converted.
    """
    row = precision_spec.row
    announce(precision_spec, listener)
    if not row.calibrated:
        return row.apply(graph, Material(None, precision_spec.target)), None
    listener.step("reading the calibration images")
    images = calibration_images.for_calibration(network, precision_spec.calibration, precision_spec.calibration_images)
    listener.step(f"calibrating on {images.description}")
    from exporter.precision.quantise import quantiser

    result = row.apply(graph, Material(images.floats(0, len(images)), precision_spec.target))
    return result, Calibration(quantiser(), precision_spec.target, images.description, len(images))
