"""The top-1 accuracy of labelled images, from the output of ``runtimes.labelling``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, takewhile
from pathlib import Path, PurePosixPath

import numpy as np

from exporter.data.class_folders import first_names
from exporter.data.class_matching import are_foreign, check_class_order, map_classes, position_example
from exporter.data.splits import PREFERENCE, parts_of
from exporter.proportions import Interval, wilson
from runtimes import Artifact
from runtimes.artifacts.embedded import read_embedded
from runtimes.class_outputs import BINARY
from runtimes.errors import ModelMismatchError, Reason, quote
from runtimes.escaping import shell_word
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


class LabelEvaluation:
    """Compares the labels of a job with the classes of its images.

    ``match`` finds the classes before the images are labelled, and ``measure`` counts afterwards.

    Args:
        out: The output folder.
        artifact: The model file, for the names of its classes.
        notify: Receives what is guessed about the classes.
    """

    def __init__(self, out: str, artifact: Path, notify: Callable[[str | Reason], None]) -> None:
        self._out = out
        self._artifact = artifact
        self._notify = notify
        self._outputs: dict[str, int] = {}

    def match(self, job: LabellingJob) -> None:
        """Find the output of the network for each class of the listed images.

        Args:
            job: The job, whose listing is read once.

        Raises:
            ModelMismatchError: An image has no class, or the classes cannot be matched to those of the network.
            RexportError: The artifact or the listing cannot be read.
        """
        classes = _read_classes(self._out, job)
        parts = _parts_notice(job, classes.places)
        if parts is not None:
            self._notify(parts)
        self._outputs = _outputs_of(classes, job, self._artifact, self._notify)

    def measure(self, job: LabellingJob) -> LabelledAccuracy:
        """Compare the labels of a finished job with the classes. Images without a label do not count.

        Args:
            job: The job, as for ``match``.

        Raises:
            ModelMismatchError: No image has a label.
            RexportError: The output cannot be read.
        """
        store = open_store(self._out)
        listing = ListingReader(store, job)
        right = images = 0
        for shard in range(job.shards):
            for image, index in zip(listing.images(shard), read_indices(store, shard), strict=True):
                if index is not None:
                    images += 1
                    right += self._outputs[_target_of(image)] == index
        if not images:
            raise ModelMismatchError(
                "no image has a label, so there is no accuracy", code="accuracy-without-labels", path=self._out
            )
        return LabelledAccuracy(right, images, wilson(right, images))


@dataclass(frozen=True)
class _ListedClasses:
    """The classes of a listing.

    Attributes:
        folders: The names of folders that are classes.
        columns: The classes in the columns of tables.
        places: The path of each folder that holds folders of classes.
    """

    folders: set[str]
    columns: set[str]
    places: set[tuple[str, ...]]

    @property
    def names(self) -> set[str]:
        """All classes."""
        return self.folders | self.columns


@lru_cache(1024)
def _class_folder(folder: str) -> PurePosixPath:
    return PurePosixPath(folder)


def _target_of(image: ListedImage) -> str:
    """Return the class of a listed image: that of its table, else the name of its folder. Unknown classes are empty."""
    return _class_folder(image.uri.rpartition("/")[0]).name if image.target is None else image.target


def _read_classes(out: str, job: LabellingJob) -> _ListedClasses:
    """Return the classes of all listed images, also of those that turn out to be broken.

    Raises:
        ModelMismatchError: An image has no class.
    """
    listing = ListingReader(open_store(out), job)
    classes = _ListedClasses(set(), set(), set())
    for image in chain.from_iterable(map(listing.images, range(job.shards))):
        target = _target_of(image)
        if not target:
            raise ModelMismatchError(
                f"the class of {quote(image.uri)!r} is not known",
                code="image-class-unknown",
                path=job.source,
                hint="put the images of each class into a folder of its own, or add a column label",
            )
        if image.target is None:
            classes.folders.add(target)
            classes.places.add(_class_folder(image.uri.rpartition("/")[0]).parts[:-1])
        else:
            classes.columns.add(target)
    return classes


def _parts_notice(job: LabellingJob, places: set[tuple[str, ...]]) -> Reason | None:
    """Return the notice that images of all parts of a dataset count, if the folders around the classes are parts."""
    first, last = min(places, default=()), max(places, default=())
    depth = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))))
    parts = parts_of({place[depth] for place in places if len(place) > depth})
    if len(parts) < 2:
        return None
    chosen = min(parts, key=lambda name: (PREFERENCE["test"].index(parts[name]), name))
    path = "/".join((job.source, *first[:depth], chosen))
    one = f"rexport label {shell_word(path)} ..." if job.kind == "folder" else "a source with the images of one part"
    return Reason(
        "dataset-parts-together",
        f"{quote(job.source)}: {first_names(sorted(parts))}: taken as parts of the dataset, whose images all count; "
        f"{one} labels one part",
    )


def _outputs_of(
    classes: _ListedClasses, job: LabellingJob, path: Path, notify: Callable[[str | Reason], None]
) -> dict[str, int]:
    """Return the output of the network for each class of the images.

    Classes are matched by name if all are labels. Numbers that are no labels are the outputs themselves.

    Raises:
        ModelMismatchError: The classes cannot be matched.
    """
    artifact = Artifact.read(path)
    known = artifact.manifest or read_embedded(artifact)
    labels = None if known is None else known.labels
    names = sorted(classes.names)
    if labels is not None and classes.names <= set(labels) and len(set(labels)) == len(labels):
        return {name: labels.index(name) for name in names}
    outputs = _classes_of(artifact) if labels is None else len(labels)
    if all(name.isdecimal() for name in names):
        _check_numbers(names, outputs)
        if labels is None:
            _check_folder_order(classes.folders, outputs)
        elif classes.folders:
            first = min(classes.folders, key=int)
            notify(
                Reason(
                    "class-folders-by-number",
                    f"the folders are numbers and no labels, so they are taken as outputs: {quote(first)} is "
                    f"{quote(labels[int(first)])}; folders with the names of the labels are matched by name",
                )
            )
        return {name: int(name) for name in names}
    if outputs is None:
        raise ModelMismatchError(
            "the artifact has neither labels nor a manifest with the number of its classes, so the classes of the "
            "images cannot be matched",
            code="label-classes-unknown",
            path=artifact.path,
            hint="name the folders by the numbers of the outputs, or export with --labels FILE",
        )
    positions = np.asarray(map_classes(names, labels, outputs)).tolist()
    if are_foreign(names, labels or ()):
        reason = Reason(
            "artifact-classes-by-position",
            f"{quote(path.name)}: not every class of {quote(job.source)} has the name of a label, so classes are "
            f"matched by position: {position_example(names, labels or ())}",
        )
        notify(reason)
    return dict(zip(names, positions, strict=True))


def _check_numbers(names: Sequence[str], outputs: int | None) -> None:
    """Check that numbers of classes are outputs of the network.

    Raises:
        ModelMismatchError: The network has fewer outputs.
    """
    largest = max(map(int, names))
    if outputs is not None and largest >= outputs:
        raise ModelMismatchError(
            f"the class {largest} of the images is no output of the network, whose outputs are 0 to {outputs - 1}",
            code="label-number-too-large",
            hint="number the classes from 0, or export with --labels FILE",
        )


def _check_folder_order(folders: set[str], outputs: int | None) -> None:
    """Check that folders with numbers are the same outputs where all such folders of a dataset are sorted as text.

    ``torchvision.datasets.ImageFolder`` sorts so, and a network without labels may be trained with it.

    Raises:
        ModelMismatchError: They are other outputs.
    """
    numbers = sorted(map(str, range(outputs or 0)))
    if not folders <= set(numbers):
        check_class_order(sorted(folders))
    elif any(numbers[int(folder)] != folder for folder in folders):
        check_class_order(numbers)


def _classes_of(artifact: Artifact) -> int | None:
    """Return the number of classes of an artifact without labels, if its manifest has it. One output is two classes."""
    specs = () if artifact.manifest is None else artifact.manifest.outputs
    outputs = next((spec.shape[-1] for spec in specs if spec.name == LOGITS), None)
    if not isinstance(outputs, int):
        return None
    return BINARY[1] if outputs == BINARY[0] else outputs
