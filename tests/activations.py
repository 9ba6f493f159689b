"""Outputs of networks, and the probabilities that every runtime makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtimes.tensors.activation import Activation


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network for one image.

    Attributes:
        values: The outputs.
        activation: The step that the manifest records.
        labels: The names of the classes.
        expected: The probabilities.
    """

    values: tuple[float, ...]
    activation: Activation
    labels: tuple[str, ...] | None
    expected: tuple[float, ...]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


CASES = {
    "logits": Outputs((1.0, 3.0), "softmax", ("cat", "dog"), (sigmoid(-2), sigmoid(2))),
    "large logits": Outputs((-1e30, 1e30, 0.0), "softmax", None, (0.0, 1.0, 0.0)),
    "logits that look like probabilities": Outputs((0.25, 0.75), "softmax", None, (sigmoid(-0.5), sigmoid(0.5))),
    "one logit, two names": Outputs((3.0,), "sigmoid", ("cat", "dog"), (sigmoid(-3), sigmoid(3))),
    "one logit below 0": Outputs((-90.0,), "sigmoid", ("cat", "dog"), (1.0, sigmoid(-90))),
    "one logit, one name": Outputs((3.0,), "sigmoid", ("defect",), (sigmoid(3),)),
    "one logit, no name": Outputs((-3.0,), "sigmoid", None, (sigmoid(-3),)),
    "one probability": Outputs((0.25,), "none", ("cat", "dog"), (0.75, 0.25)),
    "several labels an image": Outputs((2.0, -2.0, 0.0), "sigmoid", ("a", "b", "c"), (sigmoid(2), sigmoid(-2), 0.5)),
    "probabilities": Outputs((0.25, 0.75), "none", ("cat", "dog"), (0.25, 0.75)),
}
"""The outputs by what they are."""
