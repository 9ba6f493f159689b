"""``label``: a whole labelling job, from the source to the mark of success. The same request continues a job."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from runtimes.arguments import is_count
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.embedded import read_embedded
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    ResourceError,
    RexportError,
    UsageError,
    quote,
)
from runtimes.labelling.driver import Driver, JobProgress, JobWatch
from runtimes.labelling.executor import Executor
from runtimes.labelling.in_process import InProcessExecutor
from runtimes.labelling.job import MAX_COUNT, LabellingJob, SourceKind
from runtimes.labelling.labeller import artifact_digest
from runtimes.labelling.listing import write_listing
from runtimes.labelling.output import LabellingOutput, check_same, read_job
from runtimes.labelling.parts import PartCounts
from runtimes.labelling.queue import ShardQueue
from runtimes.labelling.sources.opening import SourceForm, absolute, recognise_source
from runtimes.labelling.stores import Store, open_store
from runtimes.labelling.work import WorkerSettings
from runtimes.libraries import missing_library
from runtimes.network_io import FEATURES, check_image_channels


@dataclass(frozen=True)
class ErrorLimit:
    """The largest number of images without a label, or their share.

    Attributes:
        value: The number, or the share from 0 to 1.
        is_share: Whether the value is a share.

    Raises:
        UsageError: The value is negative, not finite, or a share above 1.
    """

    value: float
    is_share: bool

    def __post_init__(self) -> None:
        if not (0 <= self.value < math.inf) or (self.is_share and self.value > 1):
            raise UsageError(
                f"{quote(self.value)} is neither a number of images nor a share of them from 0 to 1",
                code="error-limit-invalid",
            )

    def images(self, total: int) -> int:
        """Return the number for a listing of ``total`` images."""
        return int(self.value * total) if self.is_share else int(self.value)


@dataclass(frozen=True)
class LabellingRequest:
    """A request to label a source.

    Attributes:
        source: A folder, a tar archive, a Parquet file or a text file with one path or URI a line; or its URI.
        artifact: The model file.
        out: The output folder, or its URI. It is created.
        kind: The form of the source, or ``None`` to recognise it.
        top: The number of classes for each image, from 1 to ``MAX_COUNT``.
        features: Whether the features of each image are written. The network needs the output ``features``.
        shard: The number of images in a shard, the unit of work and of commit, from 1 to ``MAX_COUNT``.
        batch: The number of images in one call of the network, from 1 to ``MAX_COUNT``.
        backend: As for ``runtimes.open``.
        device: As for ``runtimes.open``.
        threads: As for ``runtimes.open``, for each worker.
        decoding_threads: The largest number of threads that read and decode images, for each worker.
        max_errors: How many images may have no label.
        retry_errors: Whether shards with errors are labelled again.
        stall_s: The seconds without any progress after which the job ends, above 0 and finite.
    """

    source: str
    artifact: Path
    out: str
    kind: SourceKind | None = None
    top: int = 1
    features: bool = False
    shard: int = 4096
    batch: int = 32
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    decoding_threads: int | None = None
    max_errors: ErrorLimit = ErrorLimit(0.1, is_share=True)
    retry_errors: bool = False
    stall_s: float = 300.0


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class JobListener:
    """Who hears of a job. By default nobody does.

    Attributes:
        listed: Receives the number of listed images, while the source is listed.
        planned: Receives the job and the progress of earlier runs, before the first image is labelled.
        progress: Receives the job and its progress, several times a second.
    """

    listed: Callable[[int], None] = _ignore
    planned: Callable[[LabellingJob, JobProgress], None] = _ignore
    progress: Callable[[LabellingJob, JobProgress], None] = _ignore


@dataclass(frozen=True)
class LabellingResult:
    """A finished job.

    Attributes:
        job: The job.
        out: The output folder: an absolute path or a URI.
        counts: The counts of the whole job.
        progress: The progress of this run.
    """

    job: LabellingJob
    out: str
    counts: PartCounts
    progress: JobProgress


def label(
    request: LabellingRequest,
    open_executor: Callable[[WorkerSettings], Executor] = InProcessExecutor,
    listener: JobListener = JobListener(),
) -> LabellingResult:
    """Label all images of a source that have no part in the output folder yet. Blocks.

    Args:
        request: The request.
        open_executor: Starts the workers, which are closed at the end. By default this process labels the images.
        listener: Who hears of the job.

    Raises:
        UsageError: The source is missing or has no images, or an argument is out of range.
        ModelMismatchError: The output folder belongs to another job: another artifact, listing or option.
        CheckFailedError: Too many images have no label, or the job does not move.
        BackendUnavailableError: pyarrow or the library of a backend is missing.
        RexportError: As for ``Classifier.open``, or the source or the output cannot be accessed.

    Example:
        Label a folder of photographs:

            request = LabellingRequest("photos/", Path("resnet20.onnx"), "labels/", top=3)
            print(label(request).counts)
    """
    missing = missing_library("pyarrow", "label")
    if missing is not None:
        raise BackendUnavailableError(missing.sentence, code=missing.code)
    artifact = Artifact.read(request.artifact)
    _check_request(request, artifact)
    form = recognise_source(request.source, request.kind)
    out = absolute(request.out)
    if out == form.root and form.kind != "list":
        raise UsageError(
            f"the output folder {quote(out)} is the source", code="output-is-source", hint="choose another"
        )
    store = open_store(out)
    with store.filling():
        job = _find_job(request, artifact, form, store, listener)
        output = LabellingOutput(out, job)
        output.write_job()
        written = read_job(store)
        if written is not None:
            check_same(written, job, out)  # another command may have begun here meanwhile
        try:
            progress = _work(request, job, form, output, open_executor, listener)
        except (CheckFailedError, ResourceError):  # the same command continues, and the listing may have taken long
            raise
        except RexportError:
            output.withdraw_job()
            raise
        counts = output.write_success()
    return LabellingResult(job, out, counts, progress)


def _work(
    request: LabellingRequest,
    job: LabellingJob,
    form: SourceForm,
    output: LabellingOutput,
    open_executor: Callable[[WorkerSettings], Executor],
    listener: JobListener,
) -> JobProgress:
    """Label the shards that have no part yet, and return the progress.

    Raises:
        CheckFailedError: As for ``label``, also where all parts are there already.
    """
    done, before = _find_done(output, request.retry_errors)
    listener.planned(job, before)
    open_shards = (shard for shard in range(job.shards) if shard not in done)
    watch = JobWatch(
        request.max_errors.images(job.images),
        request.stall_s,
        request.max_errors.images(job.images) >= job.images,
        lambda progress: listener.progress(job, progress),
    )
    artifact, out = str(request.artifact.resolve()), absolute(request.out)
    settings = WorkerSettings(job, form, artifact, out, request.threads, request.decoding_threads)
    try:
        watch.check_errors(before.images, before.errors)
        if len(done) == job.shards:
            return before
        output.retract_success()
        with closing(open_executor(settings)) as executor:
            return Driver(ShardQueue(job, open_shards), executor, output, watch, before).run()
    except CheckFailedError as error:
        output.retract_success()  # which a command with a larger limit may have written
        error.say(error.what + _reasons(output), error.hint)
        raise


def _reasons(output: LabellingOutput) -> str:
    """Return the codes of the errors in the parts that are there, the most frequent first, as the end of a message."""
    codes: Counter[str] = Counter()
    for _, counts in output.existing():
        codes.update(counts.errors)
    return f": {', '.join(f'{code} {number:,}' for code, number in codes.most_common())}" if codes else ""


def _check_request(request: LabellingRequest, artifact: Artifact) -> None:
    """Check what needs no listing, which may take long.

    Raises:
        UsageError: A number is no integer or out of range.
        ArtifactError: The network has no features.
        CompatibilityError: The network takes no images of files.
    """
    numbers = request.top, request.shard, request.batch
    if not all(is_count(number) and number <= MAX_COUNT for number in numbers):
        raise UsageError(
            f"top, shard and batch must be integers from 1 to {MAX_COUNT:,}, not "
            f"{quote(', '.join(map(repr, numbers)))}",
            code="labelling-number-invalid",
        )
    if not 0 < request.stall_s < math.inf:
        raise UsageError(
            f"stall_s must be a number of seconds above 0, not {quote(request.stall_s)}", code="stall-invalid"
        )
    manifest = artifact.manifest
    if request.features and manifest is not None and FEATURES not in [spec.name for spec in manifest.outputs]:
        raise ArtifactError(
            "the network has no output features",
            code="features-absent",
            path=artifact.path,
            hint="rexport onnx --output logits,features exports it",
        )
    known = manifest or read_embedded(artifact)
    check_image_channels(None if known is None else known.channels, artifact.path)


def _find_job(
    request: LabellingRequest, artifact: Artifact, form: SourceForm, store: Store, listener: JobListener
) -> LabellingJob:
    """List the source and return the job.

    Raises:
        ModelMismatchError: The output folder belongs to another job.
    """
    old = read_job(store)
    job = LabellingJob(
        artifact=request.artifact.name,
        artifact_sha256=artifact_digest(artifact),
        source=absolute(request.source),
        root=form.root,
        kind=form.kind,
        images=0,
        listing_sha256="",
        chunks=(),
        shard=request.shard,
        batch=request.batch,
        top=request.top,
        features=request.features,
        backend=request.backend,
        device=request.device,
    )
    if old is not None:
        listed = replace(job, images=old.images, listing_sha256=old.listing_sha256, chunks=old.chunks)
        check_same(old, listed, store.root)  # before the source is listed, which may take long
    with closing(form.open()) as source:
        listing = write_listing(source, store, request.shard, old, listener.listed)
    job = replace(job, images=listing.images, listing_sha256=listing.sha256, chunks=listing.chunks)
    return job if old is None else old


def _find_done(output: LabellingOutput, retry_errors: bool) -> tuple[set[int], JobProgress]:
    """Return the shards that need no work, and their counts."""
    done, images, errors = set(), 0, 0
    for shard, counts in output.existing():
        failed = sum(counts.errors.values())
        if not (retry_errors and failed):
            done.add(shard)
            images, errors = images + counts.images, errors + failed
    return done, JobProgress(images, errors, 0, 0)
