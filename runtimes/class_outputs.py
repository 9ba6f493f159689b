"""From the outputs of a network to classes: probabilities, names, and the predictions that an app receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes import notices
from runtimes.artifacts.artifact import Artifact
from runtimes.errors import CheckFailedError, ModelMismatchError, Reason, UsageError, quote
from runtimes.tensors.activation import (
    Activation,
    check_activation,
    first_outside,
    guess_activation,
    require_activation,
    to_probabilities,
)

BINARY = (1, 2)
"""One output for two classes: its probability is that of the second class."""


@dataclass(frozen=True)
class Label:
    """A class and its probability.

    Attributes:
        name: The name of the class, or ``class 7`` where names are unknown.
        index: The position of the class in the network's output.
        probability: The probability of the class, 0 to 1.
    """

    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        labels: The classes in order of falling probability. At equal probability, the lower index comes first.
    """

    labels: tuple[Label, ...]

    @property
    def label(self) -> str:
        """The name of the most probable class."""
        return self.labels[0].name

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return self.labels[0].probability


@dataclass(frozen=True, eq=False)
class Answer:
    """The outputs of a network for one batch of images.

    Attributes:
        probabilities: The probability of each class, float64 (n, classes).
        features: The features, float32 (n, d), if they were asked for.
    """

    probabilities: NDArray[np.float64]
    features: NDArray[np.float32] | None

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether all numbers of an image are finite, bool (n,)."""
        finite = np.isfinite(self.probabilities).all(axis=1)
        if self.features is not None:
            finite &= np.isfinite(self.features).all(axis=1)
        return np.asarray(finite)


class ClassOutputs:
    """The outputs of a classifier, by class.

    Args:
        artifact: The artifact of the network.
        outputs: The number of outputs that the network declares; ``None`` if it varies or there are no logits.
        names: One name for each class, or ``None``. A network with one output may have two names: the output is the
            probability of the second.
        activation: The step from the outputs to probabilities. ``None`` means that of the manifest, by default the
            softmax. Without a manifest, or for one output, the first outputs decide.

    Attributes:
        names: The names of the classes, or ``None``.
        activation: The step from the outputs to probabilities, or ``None`` before the first outputs decide it.

    Raises:
        ModelMismatchError: The number of names does not fit that of the outputs.
        UsageError: The activation is unknown or does not fit the number of outputs.
    """

    def __init__(
        self, artifact: Artifact, outputs: int | None, names: tuple[str, ...] | None, activation: Activation | None
    ) -> None:
        if activation is not None:
            require_activation(activation)
        elif artifact.manifest is not None:
            activation = artifact.manifest.activation or (None if outputs == 1 else "softmax")
        self._artifact = artifact
        self.names = names
        self.activation = activation
        if outputs is not None:
            self._check_names(outputs)
            if activation is not None:
                check_activation(activation, outputs)

    def is_binary(self, outputs: int) -> bool:
        """Return whether so many outputs are one score of two named classes."""
        return self.names is not None and (outputs, len(self.names)) == BINARY

    def index_of(self, label: str | int, outputs: object) -> int:
        """Return the index of the class with this name or index.

        Args:
            label: The name or the index.
            outputs: The number of outputs. If it is no integer, the number of names counts.

        Raises:
            UsageError: No class, or more than one, has the name or the index.
        """
        count = outputs if isinstance(outputs, int) and not self.is_binary(outputs) else len(self.names or ())
        if isinstance(label, str):
            found = [index for index, name in enumerate(self.names or ()) if name == label]
        else:
            found = [label] if 0 <= label < count else []
        if len(found) > 1:
            indices = " and ".join(map(str, found))
            raise UsageError(
                f"the classes {indices} have the name {quote(str(label))!r}",
                code="class-ambiguous",
                hint="pass the index of the class",
            )
        if not found:
            raise UsageError(
                f"none of the {count} classes is {quote(str(label))!r}",
                code="class-unknown",
                hint="pass a name of Classifier.names, or the index of the class",
            )
        return found[0]

    def to_probabilities(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return probabilities (n, classes) for the outputs of one batch (n, outputs), which may be not finite.

        For one output with two names, they are those of both classes.

        Raises:
            ModelMismatchError: The number of outputs differs from the number of names.
            UsageError: The activation does not fit the number of outputs, the first outputs may be logits or
                probabilities, or the activation is ``none`` and an output is no probability.
        """
        self._check_names(outputs.shape[1])
        if self.activation is None and len(outputs):
            self.activation = self._guess_activation(outputs)
        if self.activation is not None:
            check_activation(self.activation, outputs.shape[1])
        if self.activation == "none" and (value := first_outside(outputs)) is not None:
            raise UsageError(
                f"the activation is none, but the output {value:g} of the network is no probability",
                code="output-not-probability",
                path=self._artifact.path,
                hint="--activation softmax or --activation sigmoid makes probabilities of logits",
            )
        probabilities = to_probabilities(outputs, self.activation or "softmax")
        if self.is_binary(outputs.shape[1]):
            return np.concatenate([1 - probabilities, probabilities], axis=1)
        return probabilities

    def to_finite_probabilities(self, outputs: NDArray[Any], first: int) -> NDArray[np.float64]:
        """Return probabilities as ``to_probabilities``, all of which are finite.

        Args:
            outputs: The outputs of one batch (n, outputs).
            first: The number of its first image, for messages.

        Raises:
            CheckFailedError: A number is not finite.
            RexportError: As for ``to_probabilities``.
        """
        probabilities = self.to_probabilities(outputs)
        check_finite(probabilities, first)
        return probabilities

    def predict(self, probabilities: NDArray[np.float64], top: int) -> Prediction:
        """Return the ``top`` most probable classes for the probabilities of one image."""
        best = np.argsort(-probabilities, kind="stable")[:top]
        return Prediction(tuple(Label(self._name(int(i)), int(i), float(probabilities[i])) for i in best))

    def _name(self, index: int) -> str:
        return f"class {index}" if self.names is None else self.names[index]

    def _guess_activation(self, outputs: NDArray[Any]) -> Activation:
        """Return the activation that the first outputs suggest, and announce any but the softmax."""
        activation = guess_activation(outputs)
        if activation != "softmax":
            notices.warn(activation_notice(activation, self._artifact.path.name))
        return activation

    def _check_names(self, outputs: int) -> None:
        if self.names is not None and len(self.names) != outputs and not self.is_binary(outputs):
            raise ModelMismatchError(
                f"the network has {outputs} classes, but {len(self.names)} labels were given",
                code="labels-mismatch",
                path=self._artifact.path,
                hint=f"pass {outputs} labels",
            )


def check_finite(values: NDArray[Any], first: int) -> None:
    """Check the rows of one batch, one for each image.

    Args:
        values: The rows (n, ...).
        first: The number of the first image, for the message.

    Raises:
        CheckFailedError: A row holds NaN or infinity.
    """
    broken = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if broken.size:
        raise CheckFailedError(
            f"image {first + broken[0]}: the output of the network holds NaN or infinity", code="output-not-finite"
        )


def activation_notice(activation: Activation, name: str) -> Reason:
    """Return the notice that the values of a network's outputs decided how they become probabilities.

    Args:
        activation: The activation.
        name: The name of the network or of its file.
    """
    meaning = {
        "none": "the outputs lie between 0 and 1, so they are taken as probabilities",
        "sigmoid": "the network has one output, so a sigmoid makes it a probability",
        "softmax": "a softmax makes the outputs probabilities",
    }[activation]
    return Reason("activation-assumed", f"{quote(name)}: {meaning} (activation {activation})")
