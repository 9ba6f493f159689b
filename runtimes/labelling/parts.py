"""The rows of the output, and the Parquet file that holds the rows of a shard: its part.

The same rows give the same bytes: the writer's options are fixed, and nothing depends on the time or the machine.

======================  ===============  ==========================================================================
column                  type             content
======================  ===============  ==========================================================================
``uri``                 string           the image, as the listing names it
``label``               string           the name of the most probable class
``index``               int32            its position in the output of the network
``probability``         float32          its probability, 0 to 1
``top_labels``          list of string   with ``--top`` above 1: the most probable classes in order of falling
                                         probability
``top_indices``         list of int32    the same for ``index``
``top_probabilities``   list of float32  the same for ``probability``
``features``            list of float32  with ``--features``: the features of the image
``error``               string           why there is no label, else null
``error_code``          string           the stable code of the error, else null
======================  ===============  ==========================================================================
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import ArtifactError, Reason, quote
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.sources.source import ListedImage
from runtimes.labelling.stores import Store

if TYPE_CHECKING:
    import pyarrow

METADATA_KEY = b"rexport"
"""The key of the counts in the metadata of a part."""


def part_name(shard: int) -> str:
    """Return the file name of a shard."""
    return f"part-{shard:06}.parquet"


@dataclass(frozen=True)
class PartCounts:
    """The counts of a part.

    Attributes:
        images: The number of rows.
        errors: The number of rows without a label for each code.
    """

    images: int
    errors: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers for the images of a work.

    Attributes:
        indices: The most probable classes, int32 (n, top).
        probabilities: Their probabilities, float32 (n, top).
        features: The features, float32 (n, d), or ``None``.
        errors: The reason for each image without a label, else ``None``. Its other values have no meaning.
    """

    indices: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32] | None
    errors: Sequence[Reason | None]

    @classmethod
    def of_failure(cls, count: int, top: int, reason: Reason) -> Answers:
        """Return the answers for images that all have the same error.

        Args:
            count: The number of images.
            top: The number of classes for each image.
            reason: The error.
        """
        return cls(np.zeros((count, top), np.int32), np.zeros((count, top), np.float32), None, [reason] * count)

    @classmethod
    def join(cls, batches: Sequence[Answers]) -> Answers:
        """Return the answers of several batches, at least one, in order."""
        features = [batch.features for batch in batches if batch.features is not None]
        return cls(
            np.concatenate([batch.indices for batch in batches]),
            np.concatenate([batch.probabilities for batch in batches]),
            np.concatenate(features) if features else None,
            [error for batch in batches for error in batch.errors],
        )


def schema(job: LabellingJob) -> pyarrow.Schema:
    """Return the columns of the output of a job."""
    import pyarrow

    text, number, real = pyarrow.string(), pyarrow.int32(), pyarrow.float32()
    columns = [("uri", text), ("label", text), ("index", number), ("probability", real)]
    if job.top > 1:
        top = {"labels": text, "indices": number, "probabilities": real}
        columns += [(f"top_{name}", pyarrow.list_(type)) for name, type in top.items()]
    if job.features:
        columns.append(("features", pyarrow.list_(real)))
    return pyarrow.schema([*columns, ("error", text), ("error_code", text)])


def rows_table(
    job: LabellingJob, images: Sequence[ListedImage], answers: Answers, names: Sequence[str] | None
) -> pyarrow.Table:
    """Return the rows for the images of a work.

    Args:
        job: The job.
        images: The images.
        answers: The answer for each image.
        names: The name of each class, or ``None`` if unknown.
    """
    import pyarrow

    failed = np.array([error is not None for error in answers.errors], bool)
    labels = _class_names(answers.indices, names)
    columns = {
        "uri": [image.uri for image in images],
        "label": pyarrow.array(labels[:, 0], mask=failed),
        "index": pyarrow.array(answers.indices[:, 0], mask=failed),
        "probability": pyarrow.array(answers.probabilities[:, 0], mask=failed),
        "error": [None if error is None else error.sentence for error in answers.errors],
        "error_code": [None if error is None else error.code for error in answers.errors],
    }
    if job.top > 1:
        columns["top_labels"] = _lists(labels, failed)
        columns["top_indices"] = _lists(answers.indices, failed)
        columns["top_probabilities"] = _lists(answers.probabilities, failed)
    if job.features:
        features = answers.features
        columns["features"] = _lists(np.zeros((len(images), 0), np.float32) if features is None else features, failed)
    return pyarrow.table(columns, schema=schema(job))


def _class_names(indices: NDArray[np.int32], names: Sequence[str] | None) -> NDArray[Any]:
    """Return the name of each class as an array of objects with the shape of ``indices``."""
    if names is not None:
        return np.array(names, object)[indices]
    return np.array([f"class {index}" for index in indices.flat], object).reshape(indices.shape)


def _lists(values: NDArray[Any], failed: NDArray[np.bool_]) -> pyarrow.Array:
    """Return a list for each row of ``values``, and null for each failed row."""
    import pyarrow

    lengths = np.where(failed, 0, values.shape[1])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values[~failed].ravel()), mask=pyarrow.array(failed))


def count_errors(table: pyarrow.Table) -> PartCounts:
    """Return the counts of a table of rows."""
    codes = Counter(code for code in table["error_code"].to_pylist() if code is not None)
    return PartCounts(table.num_rows, dict(sorted(codes.items())))


def encode_part(table: pyarrow.Table, job_sha256: str) -> bytes:
    """Return the Parquet file for the rows of a shard.

    Args:
        table: The rows.
        job_sha256: The digest of the job, which stands in the metadata with the counts.
    """
    import pyarrow
    from pyarrow import parquet

    counts = count_errors(table)
    facts = {"job": job_sha256, "images": counts.images, "errors": counts.errors}
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(
        table.combine_chunks().replace_schema_metadata({METADATA_KEY: json.dumps(facts)}), buffer, compression="zstd"
    )
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def read_counts(file: pyarrow.NativeFile, path: str, job_sha256: str) -> PartCounts | None:
    """Return the counts of a part, or ``None`` if the part belongs to another job.

    Args:
        file: The opened part.
        path: The path of the part for messages.
        job_sha256: The digest of the job.

    Raises:
        ArtifactError: The file is damaged.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        metadata = parquet.ParquetFile(file).metadata.metadata or {}
        facts = json.loads(metadata.get(METADATA_KEY, b"{}"))
        if facts.get("job") != job_sha256:
            return None
        return PartCounts(facts["images"], facts["errors"])
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"the part is damaged: {quote(' '.join(str(error).split()))}",
            code="part-damaged",
            path=path,
            hint="remove this file; the same command writes it again",
        ) from error


def read_indices(store: Store, shard: int) -> list[int | None]:
    """Return the most probable class of each image of a part, ``None`` for an image without a label.

    Args:
        store: The output folder.
        shard: The number of the shard.

    Raises:
        ResourceError: The part cannot be read.
    """
    from pyarrow import parquet

    with store.open(part_name(shard)) as file:
        indices: list[int | None] = parquet.read_table(file, columns=["index"])["index"].to_pylist()
    return indices


def encode_rows(table: pyarrow.Table) -> bytes:
    """Return the rows of a piece as an Arrow IPC stream."""
    import pyarrow

    buffer = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def join_rows(pieces: Sequence[bytes]) -> pyarrow.Table:
    """Return the rows of several pieces, in order, as one table."""
    import pyarrow

    return pyarrow.concat_tables([pyarrow.ipc.open_stream(piece).read_all() for piece in pieces])
