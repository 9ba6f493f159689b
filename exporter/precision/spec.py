"""The requested precision, with its limits and, if it is calibrated, its recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exporter.export_request import ExportListener
from exporter.models.outputs import LOGITS
from exporter.network import Network
from exporter.precision.recipes import RECIPES, recipe, recipes_for
from exporter.precision.table import CALIBRATION_IMAGES, GATE_IMAGES, Bounds, Precision, Target, precision
from runtimes.arguments import require_not_too_large
from runtimes.artifacts.manifest import DEFAULT_RECIPE
from runtimes.errors import Reason, UsageError, suggest


@dataclass(frozen=True)
class PrecisionSpec:
    """The requested precision.

    Attributes that concern only calibrated precisions have no effect in others.

    Attributes:
        precision: A name in ``PRECISIONS``.
        calibration: The training images for int8 and fp8, as for ``exporter.data.opening.open_dataset``. ``None``
            means the bundled dataset for weights trained on it, and noise for untrained weights.
        calibration_images: The largest number of images for calibration. Some recipes take a multiple of it.
        target: The deployment target of int8. fp8 has one target; see ``deployment``.
        gate_images: The largest number of images for the accuracy gate.
        max_drop: The largest loss of top-1 accuracy in percentage points, or ``None`` for the default of the precision.
        recipe: The only recipe to try, a key of ``RECIPES``. ``None`` means a search if the default fails.
        float_layers: The nodes of the graph that are not quantised. There is no search if any are named.

    Raises:
        UsageError: The precision or the recipe is unknown, the recipe is not one of the precision or of the target, or
            a number is out of range.
    """

    precision: str = "fp32"
    calibration: str | None = None
    calibration_images: int = CALIBRATION_IMAGES
    target: Target = "cpu"
    gate_images: int = GATE_IMAGES
    max_drop: float | None = None
    recipe: str | None = None
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        precision(self.precision)
        if self.recipe is not None:
            self._check_recipe(recipe(self.recipe).name)
        if min(self.calibration_images, self.gate_images) < 1:
            raise UsageError(
                f"calibration and accuracy gate need at least 1 image, not {self.calibration_images} and "
                f"{self.gate_images}",
                code="image-count-below-one",
            )
        require_not_too_large(calibration_images=self.calibration_images, gate_images=self.gate_images)
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(f"the accuracy limit is {self.max_drop:g} pp, expected 0 to 100", code="drop-out-of-range")

    def _check_recipe(self, name: str) -> None:
        if not self.row.calibrated or name in recipes_for(self.precision, self.deployment):
            return
        if name in recipes_for(self.precision, "tensorrt"):
            raise UsageError(
                f"recipe {name} writes graphs for TensorRT, and the deployment target is {self.deployment}",
                code="recipe-needs-target",
                hint="--target tensorrt",
            )
        raise UsageError(
            f"{self.precision} has no recipe {name!r}",
            code="recipe-of-other-precision",
            hint=suggest(name, recipes_for(self.precision, self.deployment)),
        )

    @property
    def row(self) -> Precision:
        """The row of ``PRECISIONS``."""
        return precision(self.precision)

    @property
    def deployment(self) -> Target:
        """The deployment target: the one of the precision if it has only one, otherwise the requested one."""
        return self.row.target or self.target

    @property
    def bounds(self) -> Bounds | None:
        """The limits of the accuracy gate, with the one that the user asked for, or ``None`` without a gate."""
        bounds = self.row.bounds
        return bounds if bounds is None or self.max_drop is None else replace(bounds, drop=self.max_drop / 100)

    @property
    def pinned(self) -> bool:
        """Whether the graph is made in one way only, without a search."""
        return self.recipe is not None or bool(self.float_layers)

    @property
    def calibration_count(self) -> int:
        """The largest number of images that the requested recipe is calibrated on; for a search, its first recipe."""
        return self.calibration_images * RECIPES[self.recipe or DEFAULT_RECIPE].times


FP32 = PrecisionSpec()
"""The default precision."""


def check_limit(precision_spec: PrecisionSpec, network: Network) -> None:
    """Check that the loss of accuracy can be measured if the user asked for a limit.

    Args:
        precision_spec: The requested precision.
        network: The network.

    Raises:
        UsageError: A limit is asked for, and there are no labelled images or no logits.
    """
    if precision_spec.max_drop is None or precision_spec.row.bounds is None:
        return
    if LOGITS not in network.outputs:
        raise UsageError(
            f"--max-drop {precision_spec.max_drop:g} is for the accuracy of logits, which were not chosen as an output",
            code="max-drop-needs-logits",
            hint="--output logits adds them, or omit --max-drop",
        )
    if network.data is None:
        raise UsageError(
            f"--max-drop {precision_spec.max_drop:g} needs labelled images, on which the loss of accuracy is measured",
            code="max-drop-needs-data",
            hint="--data DIR names them",
        )


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
