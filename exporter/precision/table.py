"""The table of precisions: how a graph is converted to each, and which accuracy is required.

This module imports nothing heavy, because the ``--help`` of commands lists the names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from exporter.precision.recipes import RECIPES, CalibrationRecipe
from runtimes.artifacts.manifest import DEFAULT_RECIPE, TF32
from runtimes.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray


Target: TypeAlias = Literal["cpu", "tensorrt"]
"""The deployment target of a quantised graph."""

TARGETS: tuple[Target, ...] = get_args(Target)
"""All deployment targets."""

CALIBRATION_IMAGES = 300
"""The default number of images for calibration. A dataset may have fewer."""

GATE_IMAGES = 1000
"""The default number of images for the accuracy gate. A dataset may have fewer."""

TOLERANCE_PP = 0.5
"""The default of the largest difference from an expected top-1 accuracy, in percentage points."""


@dataclass(frozen=True)
class Material:
    """The inputs of a conversion besides the graph.

    Attributes:
        images: The calibration images as the network takes them, float32 (n, c, h, w), or ``None`` for a precision that
            is not calibrated.
        target: The deployment target.
        recipe: The recipe of a calibrated precision.
        float_layers: The names of nodes that are not quantised.
    """

    images: NDArray[np.float32] | None
    target: Target
    recipe: CalibrationRecipe = RECIPES[DEFAULT_RECIPE]
    float_layers: tuple[str, ...] = ()


Apply: TypeAlias = "Callable[[onnx.ModelProto, Material], onnx.ModelProto]"
"""A function that returns the converted graph."""

Keep: TypeAlias = "Callable[[onnx.ModelProto], tuple[str, ...]]"
"""A function that returns the names of the nodes in a float32 graph that a precision never quantises."""


@dataclass(frozen=True)
class Bounds:
    """The limits of the accuracy gate against fp32. The names are those of ``runtimes.artifacts.manifest.Gate``.

    Attributes:
        error: The largest root mean square of the differences of the logits, divided by that of the fp32 logits.
        agreement: The smallest share of images without a confident change. The check fails if the entire interval is
            below.
        drop: The largest drop of top-1 accuracy, 0 to 1, by the rule of ``exporter.precision.acceptance``.
    """

    error: float
    agreement: float
    drop: float


@dataclass(frozen=True)
class Precision:
    """A row of ``PRECISIONS``.

    Attributes:
        name: The name for users.
        tolerance: The limit of the parity check: the largest difference of a logit from PyTorch in fp32, divided by the
            largest absolute logit of the test vectors.
        opset: The lowest opset whose operators support the type.
        apply: Converts a float32 graph with folded batch norms.
        bounds: The limits of the accuracy gate, or ``None`` for fp32, whose parity check is stricter.
        calibrated: Whether the conversion needs images.
        element: The float type of a PyTorch program by its PyTorch name, or ``None`` if there is no such program.
        devices: The devices on which the precision takes effect. Other devices compute in float32.
        target: The only deployment target, or ``None`` for each of them.
        keep: The layers that are never quantised, or ``None`` if there are none.
    """

    name: str
    tolerance: float
    opset: int
    apply: Apply
    bounds: Bounds | None = None
    calibrated: bool = False
    element: str | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")
    target: Target | None = None
    keep: Keep | None = None


def _keep(graph: onnx.ModelProto, _: Material) -> onnx.ModelProto:
    return graph


def _cast_to(element: str) -> Apply:
    def apply(graph: onnx.ModelProto, _: Material) -> onnx.ModelProto:
        from exporter.precision.cast import cast

        return cast(graph, element)

    return apply


def _quantise(graph: onnx.ModelProto, material: Material) -> onnx.ModelProto:
    images = _images("int8", material)
    if material.recipe.quantiser == "modelopt":
        from exporter.precision.modelopt import quantise_with_modelopt

        return quantise_with_modelopt(graph, images, "int8", material.float_layers)
    from exporter.precision.quantise import quantise_graph

    return quantise_graph(graph, images, material.target == "tensorrt", material.recipe, material.float_layers)


def _quantise_to_float8(graph: onnx.ModelProto, material: Material) -> onnx.ModelProto:
    images = _images("fp8", material)
    if material.recipe.quantiser == "modelopt":
        from exporter.precision.modelopt import quantise_with_modelopt

        return quantise_with_modelopt(graph, images, "fp8", (*material.float_layers, *_without_gain(graph)))
    from exporter.precision.float8 import quantise_to_float8

    return quantise_to_float8(graph, images, material.recipe, material.float_layers)


def _images(name: str, material: Material) -> NDArray[np.float32]:
    if material.images is None:
        raise UsageError(
            f"{name} needs calibration images",
            code="int8-needs-images",
            hint="--calibration DIR names a folder of training images",
        )
    return material.images


def _without_gain(graph: onnx.ModelProto) -> tuple[str, ...]:
    from exporter.precision.float8 import layers_without_gain

    return layers_without_gain(graph)


HALF = Bounds(error=5e-3, agreement=0.995, drop=0.001)
"""The limits of precisions with 10 mantissa bits."""

INT8_BOUNDS = Bounds(error=2e-1, agreement=0.95, drop=0.005)
"""The limits of int8 and fp8."""

PRECISIONS: dict[str, Precision] = {
    row.name: row
    for row in (
        # Folded batch norms and another order of sums change logits by 1e-7 to 1e-6, even with 152 and 1202 layers,
        # and by 5e-6 in plain110, which has no shortcuts to limit the differences.
        Precision("fp32", tolerance=5e-5, opset=18, apply=_keep, element="float32"),
        # TensorFloat-32 has 10 mantissa bits, as fp16, and the range of float32, so the limits of fp16 suffice. Only
        # GPUs have it, and use it only if the manifest names it. The graph is that of fp32.
        Precision(TF32, 1e-2, 18, _keep, HALF, element="float32", devices=("cuda",)),
        # The largest errors measured over 13 untrained variants are 2e-3 for fp16 and 2e-2 for bf16 in plain110 (6e-4
        # and 6e-3 elsewhere), and 5e-2 for int8 in resnet110. For int8 of trained networks with 10 classes, the error
        # is 0.11 and the change in top-1 accuracy at most 0.1 pp.
        Precision("fp16", 1e-2, 18, _cast_to("float16"), HALF, element="float16"),
        Precision("bf16", 8e-2, 22, _cast_to("bfloat16"), Bounds(5e-2, agreement=0.98, drop=0.003), element="bfloat16"),
        Precision("int8", 5e-1, 18, _quantise, INT8_BOUNDS, calibrated=True),
        # The 8-bit floats of Ada, Hopper and Blackwell, E4M3. A CPU computes the same values in float32. The opset is
        # the first whose Q/DQ nodes have them.
        Precision(
            "fp8",
            5e-1,
            19,
            _quantise_to_float8,
            INT8_BOUNDS,
            calibrated=True,
            devices=("cuda",),
            target="tensorrt",
            keep=_without_gain,
        ),
    )
}
"""All precisions by name."""


def precision(name: str) -> Precision:
    """Return the precision with this name.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in PRECISIONS:
        raise UsageError(
            f"unknown precision {name!r}", code="precision-unknown", hint=f"choose one of {', '.join(PRECISIONS)}"
        )
    return PRECISIONS[name]
