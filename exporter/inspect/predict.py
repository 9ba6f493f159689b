"""Labels for image files, where one bad file does not spoil the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes import Classifier, Label, codec
from runtimes.errors import InputError, Reason, ResourceError


@dataclass(frozen=True)
class ImagePrediction:
    """One image's labels, best first, or the reason why there are none."""

    image: str
    labels: tuple[Label, ...]
    error: Reason | None


def predict(
    path: Path, images: Sequence[Path], top: int, backend: str | None, device: str | None, threads: int | None
) -> tuple[ImagePrediction, ...]:
    """One answer an image, in their order.

    Raises:
        RexportError: as ``Classifier.open``.
    """
    with Classifier.open(path, backend, device, threads) as classifier:
        return tuple(_predict_image(classifier, image, top) for image in images)


def _predict_image(classifier: Classifier, image: Path, top: int) -> ImagePrediction:
    try:
        (prediction,) = classifier.predict([image], top)
    except (InputError, ResourceError) as error:
        return ImagePrediction(str(image), (), Reason(error.code, str(error)))
    return ImagePrediction(str(image), prediction.labels, None)


def as_json(answers: Sequence[ImagePrediction]) -> str:
    """A JSON list; the reason for an image without labels is its sentence, and its code stands beside it."""
    rows = [
        codec.encode(answer)
        | {"error": answer.error and answer.error.sentence, "error_code": answer.error and answer.error.code}
        for answer in answers
    ]
    return codec.dumps(rows, indent=2)


def as_text(answers: Sequence[ImagePrediction]) -> str:
    """``path: label 97.1 %, label 2.0 %`` for each image that could be read."""
    return "\n".join(
        f"{answer.image}: " + ", ".join(f"{label.name} {label.probability:.1%}" for label in answer.labels)
        for answer in answers
        if answer.error is None
    )
