"""``ShardLabeller``: the work of one worker, which opens the artifact once and labels shard after shard."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import chain, repeat
from types import TracebackType

import numpy as np

from runtimes import codec, files
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.embedded import read_embedded
from runtimes.class_outputs import Answer
from runtimes.classifier import Classifier
from runtimes.errors import InputError, ModelMismatchError, Reason, ResourceError
from runtimes.images import prefetch
from runtimes.images.preprocessing import Pixels, fit_image
from runtimes.labelling.listing import ListingReader
from runtimes.labelling.output import LabellingOutput
from runtimes.labelling.parts import Answers, count_errors, encode_rows, rows_table
from runtimes.labelling.sources.source import ListedImage
from runtimes.labelling.stores import open_store
from runtimes.labelling.work import ShardReport, ShardWork, WorkerSettings

REMOTE_THREADS = 16
"""The number of threads that read images from an object store, where reading is waiting."""

_TRANSIENT = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""The errors of reading that say nothing about the image."""

_TRANSIENT_CODES = ("image-out-of-memory", "store-unreachable")
"""The codes of such errors without a number of the system. They end the job, and the same command continues it."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""The part of a message of Pillow that differs from run to run."""


def artifact_digest(artifact: Artifact) -> str:
    """Return the digest of all that determines the labels: the model, its class names and its preprocessing.

    Raises:
        ResourceError: The model file cannot be read.
    """
    known = artifact.manifest or read_embedded(artifact)
    model = files.sha256_of(artifact.path) if artifact.manifest is None else artifact.manifest.sha256
    facts = {
        "model": model,
        "external": [] if artifact.manifest is None else [record.sha256 for record in artifact.manifest.external],
        "labels": None if known is None else known.labels,
        "preprocessing": None if known is None else codec.encode(known.preprocessing),
    }
    return hashlib.sha256(codec.dumps(facts).encode("utf-8", "backslashreplace")).hexdigest()


class ShardLabeller:
    """An opened artifact, source and listing of a job. ``close`` frees them; so does a ``with`` statement.

    Args:
        settings: The settings.
        classifier: The opened artifact, which the labeller owns.
    """

    def __init__(self, settings: WorkerSettings, classifier: Classifier) -> None:
        self._job = settings.job
        self._threads = settings.decoding_threads
        self._classifier = classifier
        self._source = settings.source.open()
        self._listing = ListingReader(open_store(settings.out), settings.job)
        self._output = LabellingOutput(settings.out, settings.job)

    @classmethod
    def open(cls, settings: WorkerSettings) -> ShardLabeller:
        """Open the artifact of a job and compare its digest with that of the job.

        Raises:
            ModelMismatchError: The artifact is not the one that the job began with.
            RexportError: As for ``Classifier.open``.
        """
        job = settings.job
        classifier = Classifier.open(settings.artifact, job.backend, job.device, settings.threads)
        try:
            if artifact_digest(classifier.runtime.artifact) != job.artifact_sha256:
                raise ModelMismatchError(
                    "the artifact is not the one that the job began with",
                    code="artifact-changed",
                    path=settings.artifact,
                    hint="choose another output folder, or restore the artifact",
                )
            return cls(settings, classifier)
        except BaseException:
            classifier.close()
            raise

    def label(self, work: ShardWork, progress: Callable[[int], None]) -> ShardReport:
        """Label the images of a work, and write the part if it is a whole shard. Blocks.

        Args:
            work: The work.
            progress: Receives the number of images done, after each batch.

        Raises:
            ResourceError: The part cannot be written, or memory is lacking.
            RexportError: As for ``Classifier.answer`` and ``ImageSource.contents``.
        """
        images = self._listing.images(work.shard)[work.start : work.stop]
        answers = self._answers(work, images, progress)
        table = rows_table(self._job, images, answers, self._classifier.names)
        errors = sum(count_errors(table).errors.values())
        if work.whole:
            self._output.write_part(work.shard, table)
            return ShardReport(work, errors)
        return ShardReport(work, errors, encode_rows(table))

    def _answers(self, work: ShardWork, images: Sequence[ListedImage], progress: Callable[[int], None]) -> Answers:
        batches: list[Answers] = []
        done = 0
        with closing(self._prepare_batches(work, images)) as prepared:
            for first, results in prepared:
                skip = max(0, work.start - first)
                answer = self._classifier.answer(self._stack(work, first, results), self._job.features)
                batches.append(_best(answer, results, skip, self._job.top))
                done += len(results) - skip
                progress(done)
        return Answers.join(batches)

    def _prepare_batches(
        self, work: ShardWork, images: Sequence[ListedImage]
    ) -> Generator[tuple[int, list[Pixels | Reason | None]], None, None]:
        """Yield each batch: the row of its first slot, and for each slot the pixels, an error, or nothing.

        Batches begin at multiples of their size from the start of the shard, also for a piece of it, whose first slots
        may be empty. So an image is always computed in the same slot of the same batch, and has the same numbers.
        """
        size = self._classifier.batch or self._job.batch
        empty = work.start % size
        contents = chain(repeat(None, empty), self._source.contents(images))
        threads = self._threads
        if "://" in self._source.root:
            threads = max(REMOTE_THREADS, threads or 0)

        def prepare(number: int, content: str | bytes | None) -> Pixels | Reason | None:
            return None if content is None else self._prepare(images[number - empty], content)

        first = work.start - empty
        with closing(prefetch.prefetch(contents, size, prepare, threads)) as batches:
            for results in batches:
                yield first, results
                first += len(results)

    def _prepare(self, image: ListedImage, content: str | bytes) -> Pixels | Reason:
        try:
            return fit_image(self._source.read(image, content), self._classifier.preprocessing)
        except InputError as error:
            return _reason(error)
        except ResourceError as error:
            if error.errno in _TRANSIENT or error.code in _TRANSIENT_CODES:
                raise
            return _reason(error)

    def _stack(self, work: ShardWork, first: int, results: Sequence[Pixels | Reason | None]) -> Pixels:
        """Return one batch. Slots without an image are black, so that its size does not depend on broken images."""
        preprocessing = self._classifier.preprocessing
        size = self._classifier.batch or self._job.batch
        slots = min(size, self._job.shard_images(work.shard) - first)
        pixels = np.zeros((slots, *preprocessing.size, preprocessing.channels), np.uint8)
        for slot, result in enumerate(results):
            if isinstance(result, np.ndarray):
                pixels[slot] = result
        return pixels

    def close(self) -> None:
        """Free the model and close the source."""
        self._classifier.close()
        self._source.close()

    def __enter__(self) -> ShardLabeller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _best(answer: Answer, results: Sequence[Pixels | Reason | None], skip: int, top: int) -> Answers:
    """Return the ``top`` classes for the slots from ``skip`` on that have a result."""
    chosen = slice(skip, len(results))
    probabilities = answer.probabilities[chosen]
    if top == 1:
        indices = probabilities.argmax(axis=1)[:, None]
    else:
        indices = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    finite = answer.finite[chosen]
    errors = [
        result if isinstance(result, Reason) else None if finite[slot] else _NOT_FINITE
        for slot, result in enumerate(results[skip:])
    ]
    return Answers(
        indices.astype(np.int32),
        np.take_along_axis(probabilities, indices, axis=1).astype(np.float32),
        None if answer.features is None else answer.features[chosen],
        errors,
    )


_NOT_FINITE = Reason("answer-not-finite", "the output of the network holds NaN or infinity")


def _reason(error: InputError | ResourceError) -> Reason:
    """Return the code and the sentence of an error, which are the same in every run."""
    return Reason(error.code, _ADDRESS.sub("", error.what))
