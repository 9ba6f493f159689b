"""``LabellingJob``: what determines the content of each part. Another job cannot continue in the same output folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SourceKind: TypeAlias = Literal["folder", "tar", "parquet", "list"]
"""The form of a source of images."""

SCHEMA_VERSION = 1

MAX_COUNT = 1_000_000
"""The largest number of images in a shard or a batch, and of classes for an image. A worker holds a shard in memory."""


@dataclass(frozen=True)
class LabellingJob:
    """The identity of a job, which ``_job.json`` holds.

    Attributes:
        artifact: The name of the model file.
        artifact_sha256: The digest of the model, its labels and its preprocessing, as from ``artifact_digest``.
        source: The source: an absolute path or a URI. Relative URIs of the listing are below ``root``.
        root: The folder that relative URIs start from.
        kind: The form of the source.
        images: The number of images in the listing.
        listing_sha256: The digest of the listing.
        chunks: The digests of the chunks of the listing, in order.
        shard: The number of images in a shard, from 1 to ``MAX_COUNT``; the last shard may have fewer.
        batch: The number of images in one call of the network, from 1 to ``MAX_COUNT``.
        top: The number of classes for each image, from 1 to ``MAX_COUNT``.
        features: Whether the features of each image are written.
        backend: The backend that was asked for, or ``None`` for the one that the artifact prefers.
        device: The device that was asked for, or ``None``.
        schema_version: The version of this file and of the columns.
    """

    artifact: str
    artifact_sha256: str
    source: str
    root: str
    kind: SourceKind
    images: int
    listing_sha256: str
    chunks: tuple[str, ...]
    shard: int
    batch: int
    top: int
    features: bool
    backend: str | None = None
    device: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.images // self.shard)

    def shard_images(self, shard: int) -> int:
        """Return the number of images in the shard with this number."""
        return min(self.shard, self.images - shard * self.shard)
