"""The outputs that an exported network can have. No framework is imported."""

from __future__ import annotations

from collections.abc import Collection

from exporter.models.custom import AnyNetwork
from exporter.models.variants import Variant
from runtimes.errors import CompatibilityError, ModelMismatchError, UsageError, quote

LOGITS, FEATURES, STAGES, CAM = "logits", "features", "stages", "cam"

OUTPUTS = (LOGITS, FEATURES, STAGES, CAM)
"""All outputs, in the order of a graph's outputs. ``stages`` means one output for each stage."""

DEFAULT_OUTPUTS = (LOGITS,)
"""The outputs of an export without a choice."""

OF_CLASSIFIER = frozenset((LOGITS, CAM))
"""The outputs that need the linear layer."""


def needs_classifier(outputs: Collection[str]) -> bool:
    """Return whether one of the outputs needs the linear layer, so that a trunk without one does not have it."""
    return not OF_CLASSIFIER.isdisjoint(outputs)


def check_outputs(outputs: Collection[str]) -> None:
    """Check the names that a user gave.

    Raises:
        UsageError: A name is unknown, or there is none.
    """
    for name in outputs:
        if name not in OUTPUTS:
            raise UsageError(
                f"unknown output {quote(name)!r}", code="output-unknown", hint=f"choose from {', '.join(OUTPUTS)}"
            )
    if not outputs:
        raise UsageError("no output was chosen", code="outputs-empty", hint=f"choose from {', '.join(OUTPUTS)}")


def output_names(outputs: Collection[str], network: AnyNetwork) -> tuple[str, ...]:
    """Return the names of a graph's outputs in their fixed order: logits, features, stage1 and so on, cam.

    Args:
        outputs: The outputs that were asked for, of ``OUTPUTS``.
        network: The network.

    Raises:
        UsageError: As for ``check_outputs``.
        ModelMismatchError: The network has no classifier, and an output needs it.
        CompatibilityError: The network is a module that is no variant, whose inner values are unknown.
    """
    check_outputs(outputs)
    if not isinstance(network, Variant):
        if {*outputs} != {*DEFAULT_OUTPUTS}:
            raise CompatibilityError(
                f"the module {network.name} is not a variant, so only its logits can be exported",
                code="outputs-need-variant",
                hint="omit --output",
            )
        return DEFAULT_OUTPUTS
    lacking = [name for name in OUTPUTS if name in outputs and name in OF_CLASSIFIER and not network.classes]
    if lacking:
        raise ModelMismatchError(
            f"{network.name} has no classifier here, so it has no output {' or '.join(lacking)}",
            code="output-needs-classifier",
            hint=f"--output {FEATURES} exports the pooled features, --output {STAGES} the maps",
        )
    stages = tuple(f"stage{number}" for number, _ in enumerate(network.depths, start=1))
    rows = {LOGITS: (LOGITS,), FEATURES: (FEATURES,), STAGES: stages, CAM: (CAM,)}
    return tuple(name for output in OUTPUTS if output in outputs for name in rows[output])
