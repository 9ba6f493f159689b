"""Networks small enough to be exported in a second, with every feature of the large ones; and how they are exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exporter.export_request import ExportListener, ExportRequest
from exporter.models.variants import Variant
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.preprocessing.options import NOTHING_CHOSEN, PreprocessingOptions
from exporter.targets import onnx_file
from runtimes import Artifact
from runtimes.errors import Reason

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)


def recording() -> tuple[list[str | Reason], ExportListener]:
    """A listener, and the list of the notices that it gets."""
    notices: list[str | Reason] = []
    return notices, ExportListener(step=lambda _: None, notice=notices.append)


def reason_codes(notices: list[str | Reason]) -> list[str]:
    """The codes of the notices that warn of something."""
    return [notice.code for notice in notices if isinstance(notice, Reason)]


BASIC = Variant("small-basic", "basic", (1, 1, 1), (4, 8, 16), "cifar", "A", classes=10, size=(16, 16))
BOTTLENECK = Variant("small-bottleneck", "bottleneck", (2, 1), (4, 8), "imagenet", "B", classes=10, size=(32, 32))

_LATER = Variant("", "bottleneck", (1, 1), (16, 32), "imagenet", "B", classes=10, size=(32, 32))

LATER = {
    row.name: row
    for row in (
        replace(_LATER, name="small-grouped", groups=4, base_width=16),
        replace(
            _LATER,
            name="small-rs",
            stem="deep",
            stem_widths=(8, 8, 16),
            pool="conv",
            down="avg",
            attention="se",
            reduction=4,
        ),
        replace(_LATER, name="small-eca", block="basic", down="avg", attention="eca", blur="average"),
        replace(_LATER, name="small-blur", blur="binomial"),
        replace(_LATER, name="small-group-norm", widths=(32, 64), norm="group"),
        replace(_LATER, name="small-preactivation", depths=(2, 1), order="pre"),
        replace(_LATER, name="small-wide", block="basic", stem="cifar", stem_widths=(8,), order="pre"),
        replace(_LATER, name="small-bare", block="basic", stem="cifar", order="pre", final_norm=False),
    )
}
"""Small networks with all options that came after He et al. 2015, by name."""


LARGE = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
"""The table's networks for ImageNet, which test_engines exports in every precision, and no other test all of them."""


def export(
    variant: Variant,
    folder: Path,
    opset: int | None = None,
    batch: int | None = None,
    precision_spec: PrecisionSpec = FP32,
    raw: bool = False,
    preprocessing: PreprocessingOptions = NOTHING_CHOSEN,
) -> Artifact:
    """The variant with random weights as ``folder/NAME.onnx``, over what is there."""
    request = ExportRequest(variant, f"{folder}/", batch=batch, force=True, raw=raw, preprocessing=preprocessing)
    return onnx_file.export(request, SILENT, opset, precision_spec)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the folder, hidden ones too."""
    return {place.name: place.read_bytes() for place in sorted(folder.iterdir())}
