"""``LabellingOutput``: the output folder of a job, which is all that remembers how far the job is.

=======================  ===========================================================================================
``part-000000.parquet``  the rows of a shard
``_job.json``            what the job is; another job is refused
``_listing/``            the listing of the source
``_SUCCESS``             the counts, when all parts are there
=======================  ===========================================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING

from runtimes import codec
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, ResourceError, RexportError, quote
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.listing import ListingReader, delete_listing
from runtimes.labelling.parts import (
    Answers,
    PartCounts,
    encode_part,
    encode_rows,
    join_rows,
    part_name,
    read_counts,
    rows_table,
)
from runtimes.labelling.stores import Store, open_store
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath

if TYPE_CHECKING:
    import pyarrow

JOB, SUCCESS = "_job.json", "_SUCCESS"

_PART = re.compile(r"part-\d{6,}\.parquet")

_READERS = 16
"""The number of threads that read the counts of existing parts."""


def read_job(store: Store) -> LabellingJob | None:
    """Return the job that an output folder belongs to, or ``None`` if there is none.

    Raises:
        ArtifactError: The file of the job is damaged.
        ResourceError: The file cannot be read.
    """
    if store.kind(JOB) == "missing":
        return None
    try:
        return codec.loads(LabellingJob, store.read(JOB))
    except ArtifactError as error:
        raise ArtifactError(f"the job is invalid: {error.what}", code=error.code, path=f"{store.root}/{JOB}") from error


def check_same(old: LabellingJob, new: LabellingJob, out: str) -> None:
    """Check that a command continues the job of its output folder.

    Args:
        old: The job of the folder.
        new: The job that the command asks for.
        out: The folder.

    Raises:
        ModelMismatchError: The artifact, the listing or an option differs.
    """
    for field in fields(LabellingJob):
        before, now = getattr(old, field.name), getattr(new, field.name)
        if before == now or field.name in _NOT_COMPARED:
            continue
        hint = "choose another output folder, or repeat the first command"
        change = f"{quote(before)}, and now it is {quote(now)}"
        if field.name == "artifact_sha256":
            raise ModelMismatchError(
                f"the output was begun with the artifact {change}", code="job-artifact-differs", path=out, hint=hint
            )
        if field.name == "listing_sha256":
            raise ModelMismatchError(
                f"the output was begun with the listing {change}", code="job-listing-differs", path=out, hint=hint
            )
        raise ModelMismatchError(
            f"the output was begun with the {field.name} {change}", code="job-option-differs", path=out, hint=hint
        )


_NOT_COMPARED = ("artifact", "source", "root")
"""The fields that may differ between two runs of a job: where its files lie."""


class LabellingOutput:
    """The output folder of a job. All methods but ``write_part`` are for the driver.

    Args:
        root: An absolute path or a URI.
        job: The job.
    """

    def __init__(self, root: str, job: LabellingJob) -> None:
        self._store = open_store(root)
        self._job = job
        self._sha256 = hashlib.sha256(codec.dumps(_comparable(job)).encode()).hexdigest()

    def write_job(self) -> None:
        """Write the job, if it is not there yet."""
        if self._store.kind(JOB) == "missing":
            self._store.write(JOB, codec.dumps(self._job, indent=1).encode() + b"\n")

    def withdraw_job(self) -> None:
        """Delete the job and its listing if it has no part of its own. A command with other options may begin here."""
        with suppress(RexportError):  # the caller has an error of its own to raise
            if not any(self._is_own(name) for name in self._part_names()):
                self._store.delete(JOB)
                delete_listing(self._store, self._job.chunks)

    def _is_own(self, name: str) -> bool:
        """Return whether a file is a whole part of this job."""
        try:
            self._counts(name)
        except (ModelMismatchError, ArtifactError):
            return False
        return True

    def write_part(self, shard: int, table: pyarrow.Table) -> None:
        """Write the rows of a shard. A part that exists is replaced by the same bytes.

        Args:
            shard: The number of the shard.
            table: Its rows, as from ``rows_table``.

        Raises:
            ResourceError: The part cannot be written.
        """
        self._store.write(part_name(shard), encode_part(table, self._sha256))

    def write_pieces(self, shard: int, pieces: list[ShardReport]) -> None:
        """Write the part of a shard.

        Args:
            shard: The number of the shard.
            pieces: All its pieces, in order.
        """
        self.write_part(shard, join_rows([piece.rows or b"" for piece in pieces]))

    def error_rows(self, work: ShardWork, death: WorkerDeath) -> bytes:
        """Return the rows of a piece whose images end the process that labels them.

        Args:
            work: The piece.
            death: The last death that it caused.
        """
        images = ListingReader(self._store, self._job).images(work.shard)[work.start : work.stop]
        reason = Reason("image-kills-worker", f"the image ends the process that labels it: {death.reason}")
        return encode_rows(rows_table(self._job, images, Answers.of_failure(len(images), self._job.top, reason), None))

    def existing(self) -> Iterator[tuple[int, PartCounts]]:
        """Yield the number and the counts of each part that is there.

        Raises:
            ModelMismatchError: A part belongs to another job, or to a shard that this job does not have.
            ArtifactError: A part is damaged.
            ResourceError: A part cannot be read.
        """
        with ThreadPoolExecutor(_READERS, thread_name_prefix="parts") as threads:
            yield from threads.map(self._counts, self._part_names())

    def _part_names(self) -> list[str]:
        """Return the names of the files that are parts of some job, in order."""
        return [entry.name for entry in self._store.entries() if _PART.fullmatch(entry.name)]

    def _counts(self, name: str) -> tuple[int, PartCounts]:
        """Return the number and the counts of a part.

        Raises:
            ModelMismatchError: The part belongs to another job, or no shard of this one has this name.
            ArtifactError: The part is damaged.
            ResourceError: The part cannot be read.
        """
        path = f"{self._store.root}/{name}"
        shard, counts = int(name.removeprefix("part-").removesuffix(".parquet")), None
        if shard < self._job.shards and name == part_name(shard):
            with self._store.open(name) as file:
                counts = read_counts(file, path, self._sha256)
        if counts is None or counts.images != self._job.shard_images(shard):
            raise ModelMismatchError(
                "the part belongs to another job than this output folder",
                code="part-of-another-job",
                path=path,
                hint="remove this file, or choose another output folder",
            )
        return shard, counts

    def write_success(self) -> PartCounts:
        """Check that all parts are there, and write the counts of the whole job.

        Raises:
            ResourceError: A part is missing, or as for ``existing``.
        """
        images, errors, parts = 0, Counter[str](), 0
        for _, counts in self.existing():
            images, parts = images + counts.images, parts + 1
            errors.update(counts.errors)
        if parts != self._job.shards:
            raise ResourceError(
                f"{self._job.shards - parts} of {self._job.shards} parts disappeared while the job ran",
                code="parts-missing",
                path=self._store.root,
                hint="the same command writes them again",
            )
        total = PartCounts(images, dict(sorted(errors.items())))
        content = codec.dumps(total, indent=1).encode() + b"\n"
        if self._store.kind(SUCCESS) == "missing" or self._store.read(SUCCESS) != content:
            self._store.write(SUCCESS, content)
        return total

    def retract_success(self) -> None:
        """Delete the mark of success, because parts are written again."""
        self._store.delete(SUCCESS)


def _comparable(job: LabellingJob) -> dict[str, object]:
    return {name: value for name, value in codec.encode(job).items() if name not in _NOT_COMPARED}
