"""The step from a classifier's output to probabilities. NumPy is imported by the functions that compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from runtimes.errors import UsageError, quote

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

Activation: TypeAlias = Literal["softmax", "sigmoid", "none"]
"""The step: ``softmax`` over the classes, ``sigmoid`` for each class alone, or ``none`` for probabilities."""

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
"""All values of ``Activation``."""

SUM_TOLERANCE = 1e-3
"""The largest difference of a sum of probabilities from 1."""

LEAST_VALUES = 8
"""The smallest number of values between 0 and 1 that count as scores of a sigmoid, and not as logits by chance."""


_CHOICE = "--activation sigmoid if the output is a logit, --activation none if it is a probability"


def require_activation(value: str) -> None:
    """Check that a value is an ``Activation``.

    Args:
        value: The value.

    Raises:
        UsageError: It is none.
    """
    if value not in ACTIVATIONS:
        raise UsageError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, not {quote(value)!r}", code="activation-unknown"
        )


def guess_activation(outputs: NDArray[Any]) -> Activation:
    """Return the step that the values of some outputs suggest.

    Rows of probabilities sum to 1. Scores of a sigmoid lie between 0 and 1. Anything else is logits, whose step is
    the sigmoid for one class and the softmax for several. Logits of a multi-label network look like those of others.

    Args:
        outputs: The outputs (n, classes), n at least 1.

    Raises:
        UsageError: The few values may be logits or scores.
    """
    import numpy as np

    rows = outputs.astype(np.float64)
    within = bool(((rows >= 0) & (rows <= 1 + SUM_TOLERANCE)).all())
    single = rows.shape[1] == 1
    if within and not single and bool((np.abs(rows.sum(axis=1) - 1) < SUM_TOLERANCE).all()):
        return "none"
    if within and rows.size >= LEAST_VALUES:
        return "none"
    if within and single:
        raise UsageError(
            f"the output has one class, and {rows[0, 0]:g} may be a logit or a probability",
            code="activation-unclear",
            hint=_CHOICE,
        )
    return "sigmoid" if single else "softmax"


def first_outside(outputs: NDArray[Any]) -> float | None:
    """Return the first output that is no probability, or ``None`` if all finite ones lie between 0 and 1.

    Args:
        outputs: The outputs (n, classes). Rounding may exceed 0 and 1 by ``SUM_TOLERANCE``.
    """
    import numpy as np

    rows = outputs.astype(np.float64)
    outside = rows[np.isfinite(rows) & ((rows < -SUM_TOLERANCE) | (rows > 1 + SUM_TOLERANCE))]
    return float(outside[0]) if outside.size else None


def to_probabilities(outputs: NDArray[Any], activation: Activation) -> NDArray[np.float64]:
    """Return probabilities for the outputs of a classifier. Rows with NaN stay NaN, and so do others without a value.

    Args:
        outputs: The outputs (n, classes).
        activation: The step.

    Returns:
        A fresh float64 array (n, classes).
    """
    import numpy as np

    rows = outputs.astype(np.float64)
    if activation == "softmax":
        return softmax(rows)
    if activation == "sigmoid":
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-rows)), np.float64)
    return rows


def class_probabilities(outputs: NDArray[Any], activation: Activation | None) -> NDArray[np.float64]:
    """Return the probability of each class, where one output means that of the second of two classes.

    Args:
        outputs: The outputs (n, classes).
        activation: The step. ``None`` means the sigmoid for one output, and the softmax for several.

    Returns:
        A fresh float64 array (n, classes), or (n, 2) for one output.
    """
    import numpy as np

    single = outputs.shape[1] == 1
    probabilities = to_probabilities(outputs, activation or ("sigmoid" if single else "softmax"))
    return np.concatenate([1 - probabilities, probabilities], axis=1) if single else probabilities


def top_classes(outputs: NDArray[Any], activation: Activation | None) -> NDArray[np.intp]:
    """Return the most probable class of each row; for one output, 1 if its probability exceeds one half, else 0.

    Args:
        outputs: The outputs (n, classes).
        activation: As for ``class_probabilities``.
    """
    scores = class_probabilities(outputs, activation) if outputs.shape[1] == 1 else outputs
    best: NDArray[np.intp] = scores.argmax(axis=1)
    return best


def check_activation(activation: Activation, classes: int) -> None:
    """Check that a step makes probabilities of an output with so many classes.

    Args:
        activation: The step.
        classes: The number of classes.

    Raises:
        UsageError: It is the softmax of one output, which is always 1.
    """
    if activation == "softmax" and classes == 1:
        raise UsageError(
            "the network has one output, and a softmax over one output is always 1",
            code="softmax-of-one",
            hint=_CHOICE,
        )


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities (n, classes) for logits (n, classes). A row with NaN or +inf becomes NaN."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result
