"""Whether decoding on a GPU changes the predictions of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtimes.classifier import Classifier
from runtimes.errors import CheckFailedError, UsageError
from runtimes.images.preprocessing import Image


@dataclass(frozen=True)
class DecoderAgreement:
    """A comparison of a decoder with Pillow on the same images and network.

    Attributes:
        decoder: The decoder and its version, for example ``nvimgcodec 0.9.0``.
        images: The number of images.
        changed: The numbers of the images whose most probable class changed, from 0.
        largest_change: The largest change of a probability of a most probable class.
    """

    decoder: str
    images: int
    changed: tuple[int, ...]
    largest_change: float

    @property
    def share(self) -> float:
        """The share of images with the same most probable class, 0 to 1."""
        return 1.0 - len(self.changed) / self.images

    def require(self, share: float) -> None:
        """Raise an error if fewer images than this share have the same most probable class.

        Raises:
            CheckFailedError: Too many predictions changed.
        """
        if self.share < share:
            shown = ", ".join(map(str, self.changed[:5]))
            raise CheckFailedError(
                f"{self.decoder} changes the predictions of {len(self.changed)} of {self.images} images "
                f"({shown}{', ...' if len(self.changed) > 5 else ''}): the agreement is {self.share:.2%}, and at least "
                f"{share:.2%} was asked for",
                code="decoder-changes-predictions",
                hint="leave out decoder=, so that Pillow decodes",
            )


def compare_decoders(classifier: Classifier, images: Sequence[Image], batch: int = 32) -> DecoderAgreement:
    """Classify images twice, decoded by the classifier's decoder and by Pillow, and return the agreement.

    Args:
        classifier: A classifier that was opened with a decoder.
        images: The images. About 400 resolve 1 %.
        batch: The number of images in one call of the network.

    Raises:
        UsageError: There are no images.
        RexportError: As for ``Classifier.predict``.
    """
    if not images:
        raise UsageError("no images to compare decoders on", code="decoder-without-images", hint="pass 400 or more")
    host = Classifier(classifier.runtime, classifier.preprocessing, classifier.names, activation=classifier.activation)
    found = classifier.predict(images, batch=batch)
    expected = host.predict(images, batch=batch)
    pairs = [(left.labels[0], right.labels[0]) for left, right in zip(found, expected, strict=True)]
    changed = tuple(number for number, (left, right) in enumerate(pairs) if left.index != right.index)
    largest = max(abs(left.probability - right.probability) for left, right in pairs)
    return DecoderAgreement(classifier.decoder, len(images), changed, largest)
