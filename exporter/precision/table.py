"""The precisions that a graph can be typed in, one row each: how it is made, and what it must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtimes.artifacts.manifest import TF32
from runtimes.errors import UsageError

if TYPE_CHECKING:
    import onnx


Target: TypeAlias = Literal["cpu", "tensorrt"]


@dataclass(frozen=True)
class Material:
    """What a conversion may need: images (n, c, h, w) as they go into the network, for those that are ``calibrated``,
    and whom the graph is for."""

    images: NDArray[np.float32] | None
    target: Target


Apply: TypeAlias = "Callable[[onnx.ModelProto, Material], onnx.ModelProto]"


@dataclass(frozen=True)
class Bounds:
    """What a precision may cost against fp32, by the names of ``runtimes.artifacts.manifest.Gate``.

    Attributes:
        error: the largest allowed root mean square of the logits' differences over that of fp32's logits.
        agreement: the least allowed share of images without a real flip; it fails where all of its interval is below.
        drop: the largest allowed drop of top-1, a fraction; it fails where all of its interval is above.
    """

    error: float
    agreement: float
    drop: float


@dataclass(frozen=True)
class Precision:
    """A row of ``PRECISIONS``.

    Attributes:
        name: as users type it.
        tolerance: of the parity gate: the largest difference of a logit from fp32 PyTorch over the largest absolute
            logit of the test vectors.
        opset: the least that has the operators in this type.
        apply: gives the typed copy of a float32 graph whose batch-norms are folded.
        bounds: of the gate over many images; ``None`` for fp32, whose parity says more than any bound.
        calibrated: whether images are needed to make it.
        element: the float that a PyTorch program in it computes in, by PyTorch's name; ``None`` where there is none.
        devices: on which it is a precision of its own; on others it computes as float32.
    """

    name: str
    tolerance: float
    opset: int
    apply: Apply
    bounds: Bounds | None = None
    calibrated: bool = False
    element: str | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")


def _as_it_is(graph: onnx.ModelProto, _: Material) -> onnx.ModelProto:
    return graph


def _cast_to(element: str) -> Apply:
    def apply(graph: onnx.ModelProto, _: Material) -> onnx.ModelProto:
        from exporter.precision.cast import cast

        return cast(graph, element)

    return apply


def _quantise(graph: onnx.ModelProto, material: Material) -> onnx.ModelProto:
    from exporter.precision.quantise import quantise_graph

    if material.images is None:
        raise UsageError(
            "int8 needs images to calibrate with", code="int8-needs-images", hint="--calibration names them"
        )
    return quantise_graph(graph, material.images, signed=material.target == "tensorrt")


HALF = Bounds(error=5e-3, agreement=0.995, drop=0.001)
"""What 10 bits behind the point may cost."""

PRECISIONS: dict[str, Precision] = {
    row.name: row
    for row in (
        # Folding batch-norm and summing in another order cost 1e-7 to 1e-6, at 152 and 1202 layers as well, and 5e-6
        # in plain110, whose differences no shortcut bounds.
        Precision("fp32", tolerance=5e-5, opset=18, apply=_as_it_is, element="float32"),
        # TensorFloat-32 rounds to fp16's 10 bits behind the point, with float32's range: fp16's bounds are wide enough.
        # Only a GPU has it, and only where the manifest names it: the graph is fp32's.
        Precision(TF32, 1e-2, 18, _as_it_is, HALF, element="float32", devices=("cuda",)),
        # The largest errors seen over 13 untrained variants: fp16 2e-3 and bf16 2e-2 in plain110, elsewhere below 6e-4
        # and 6e-3; int8 5e-2 in resnet110. int8 of trained networks for 10 classes: 0.11, at most 0.1 points of top-1.
        Precision("fp16", 1e-2, 18, _cast_to("float16"), HALF, element="float16"),
        Precision("bf16", 8e-2, 22, _cast_to("bfloat16"), Bounds(5e-2, agreement=0.98, drop=0.003), element="bfloat16"),
        Precision("int8", 5e-1, 18, _quantise, Bounds(error=2e-1, agreement=0.95, drop=0.005), calibrated=True),
    )
}


def precision(name: str) -> Precision:
    """The row of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PRECISIONS:
        raise UsageError(f"no precision {name!r}", code="precision-unknown", hint=f"one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
