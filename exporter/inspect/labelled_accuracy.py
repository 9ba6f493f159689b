"""The top-1 accuracy of labelled images, from the output of ``runtimes.labelling``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from exporter.data.dataset import are_foreign, map_classes, position_example
from exporter.proportions import Interval, wilson
from runtimes import Artifact
from runtimes.artifacts.embedded import read_embedded
from runtimes.class_outputs import BINARY
from runtimes.errors import ModelMismatchError, Reason, quote
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.listing import ListingReader
from runtimes.labelling.parts import read_indices
from runtimes.labelling.sources.source import ListedImage
from runtimes.labelling.stores import open_store
from runtimes.network_io import LOGITS


@dataclass(frozen=True)
class LabelledAccuracy:
    """The share of images whose most probable class is the right one.

    Attributes:
        right: The number of images with the right class.
        images: The number of images with a label and a known class.
        interval: The 95 % interval of the share.
    """

    right: int
    images: int
    interval: Interval

    @property
    def share(self) -> float:
        """The share, 0 to 1."""
        return self.right / self.images


def target_of(image: ListedImage) -> str:
    """Return the class of a listed image: that of its table, else the name of its folder. Unknown classes are empty."""
    return PurePosixPath(image.uri).parent.name if image.target is None else image.target


def check_targets(out: str, job: LabellingJob) -> None:
    """Check that the classes of the first images are known, before long work.

    Args:
        out: The output folder.
        job: The job.

    Raises:
        ModelMismatchError: An image of the first shard has no class.
    """
    for image in ListingReader(open_store(out), job).images(0):
        if not target_of(image):
            raise ModelMismatchError(
                f"the class of {quote(image.uri)!r} is not known",
                code="image-class-unknown",
                path=job.source,
                hint="put the images of each class into a folder of its own, or add a column label",
            )


def measure_accuracy(
    out: str, job: LabellingJob, artifact: Path, notify: Callable[[str | Reason], None]
) -> LabelledAccuracy:
    """Compare the labels of a finished job with the classes of its images. Images without a label do not count.

    Args:
        out: The output folder.
        job: The job.
        artifact: The model file, for the names of its classes.
        notify: Receives a notice if classes are matched by position.

    Raises:
        ModelMismatchError: The classes of the images cannot be matched to those of the network.
        RexportError: The output cannot be read.
    """
    store = open_store(out)
    listing = ListingReader(store, job)
    pairs: Counter[tuple[str, int]] = Counter()
    for shard in range(job.shards):
        targets = map(target_of, listing.images(shard))
        indices = read_indices(store, shard)
        pairs.update((target, index) for target, index in zip(targets, indices, strict=True) if index is not None)
    images = sum(pairs.values())
    if not images:
        raise ModelMismatchError(
            "no image has a label, so there is no accuracy", code="accuracy-without-labels", path=out
        )
    outputs = _outputs_of({target for target, _ in pairs}, job, artifact, notify)
    right = sum(count for (target, index), count in pairs.items() if outputs[target] == index)
    return LabelledAccuracy(right, images, wilson(right, images))


def _outputs_of(
    targets: set[str], job: LabellingJob, path: Path, notify: Callable[[str | Reason], None]
) -> dict[str, int]:
    """Return the output of the network for each class of the images.

    Classes are matched by name if all are labels. Numbers that are no labels are the outputs themselves.

    Raises:
        ModelMismatchError: The classes cannot be matched.
    """
    artifact = Artifact.read(path)
    known = artifact.manifest or read_embedded(artifact)
    labels = None if known is None else known.labels
    names = sorted(targets)
    if labels is not None and targets <= set(labels) and len(set(labels)) == len(labels):
        return {name: labels.index(name) for name in names}
    classes = _classes_of(artifact) if labels is None else len(labels)
    if all(target.isdecimal() for target in targets):
        return _check_numbers({target: int(target) for target in targets}, classes)
    if classes is None:
        raise ModelMismatchError(
            "the artifact has neither labels nor a manifest with the number of its classes, so the classes of the "
            "images cannot be matched",
            code="label-classes-unknown",
            path=artifact.path,
            hint="name the folders by the numbers of the outputs, or export with --labels FILE",
        )
    outputs = np.asarray(map_classes(names, labels, classes)).tolist()
    if are_foreign(names, labels or ()):
        reason = Reason(
            "artifact-classes-by-position",
            f"{quote(path.name)}: not every class of {quote(job.source)} has the name of a label, so classes are "
            f"matched by position: {position_example(names, labels or ())}",
        )
        notify(reason)
    return dict(zip(names, outputs, strict=True))


def _check_numbers(outputs: dict[str, int], classes: int | None) -> dict[str, int]:
    """Return the outputs that the classes of the images name by numbers.

    Raises:
        ModelMismatchError: The network has fewer outputs.
    """
    largest = max(outputs.values())
    if classes is not None and largest >= classes:
        raise ModelMismatchError(
            f"the class {largest} of the images is no output of the network, whose outputs are 0 to {classes - 1}",
            code="label-number-too-large",
            hint="number the classes from 0, or export with --labels FILE",
        )
    return outputs


def _classes_of(artifact: Artifact) -> int | None:
    """Return the number of classes of an artifact without labels, if its manifest has it. One output is two classes."""
    specs = () if artifact.manifest is None else artifact.manifest.outputs
    outputs = next((spec.shape[-1] for spec in specs if spec.name == LOGITS), None)
    if not isinstance(outputs, int):
        return None
    return BINARY[1] if outputs == BINARY[0] else outputs
