"""Archives that are broken, hostile or none at all, each against its error."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from exporter.data import archives
from exporter.data.opening import open_dataset
from runtimes.errors import ArtifactError, ResourceError, UnsafeArtifactError
from tests.exporter.datasets import png, tar_of
from tests.refusals import refuses


@pytest.mark.parametrize("compression", ["", "gz", "xz", "bz2"])
def test_truncated_archives_are_refused(compression: str, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).bytes(6000)
    contents = {"a/1.png": noisy[:3000], "b/2.png": noisy[3000:]}
    whole = tar_of(tmp_path / "set.tar", contents, f"w:{compression}").read_bytes()
    place = tmp_path / "cut.tar"
    lengths = [1, 100, 512, 512 + 3072, 4096 + 100, len(whole) // 2, len(whole) - 30]
    for length in [length for length in lengths if compression or length < 512 * 14 + 1]:
        place.write_bytes(whole[:length])
        with pytest.raises(ArtifactError) as caught:
            open_dataset(str(place))
        assert caught.value.code in ("archive-damaged", "archive-expected")
        assert caught.value.path == place


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = bytearray(tar_of(tmp_path / "set.tar", {"a/1.png": png(1), "b/2.png": png(2)}).read_bytes())
    whole[1024 + 10] ^= 0xFF  # in the second header: reading would otherwise end there in silence
    (tmp_path / "set.tar").write_bytes(whole)
    with refuses(ArtifactError, "archive-damaged"):
        open_dataset(str(tmp_path / "set.tar"))
    packed = bytearray(tar_of(tmp_path / "set.tgz", {"a/1.png": png(1)}, "w:gz").read_bytes())
    packed[-8] ^= 0xFF  # the checksum of what was packed
    (tmp_path / "set.tgz").write_bytes(packed)
    with refuses(ArtifactError, "archive-damaged", "CRC check failed"):
        open_dataset(str(tmp_path / "set.tgz"))


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png"])
def test_members_that_lead_outside_are_refused(name: str, tmp_path: Path) -> None:
    place = tar_of(tmp_path / "set.tar", {"a/0.png": png(0), name: png(1)})
    with refuses(UnsafeArtifactError, "member-outside-archive", place, name):
        open_dataset(str(place))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_plain_files_are_refused(kind: bytes, tmp_path: Path) -> None:
    place = tar_of(tmp_path / "set.tar", {"a/1.png": b""}, type=kind, linkname="/etc/passwd")
    with refuses(UnsafeArtifactError, "member-not-plain", "a/1.png"):
        open_dataset(str(place))


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    """A kilobyte that claims to be a terabyte of zeros."""
    headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 40),
    }
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a/1.png")
        member.pax_headers = headers
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with refuses(UnsafeArtifactError, "member-not-plain"):
        open_dataset(str(tmp_path / "set.tar"))


def test_a_bomb_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tar_of(tmp_path / "bomb.tar.xz", {"a/1.png": bytes(1 << 20)}, "w:xz")
    assert place.stat().st_size < 2000
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1 << 19)
    with refuses(ResourceError, "archive-too-large", "bomb.tar.xz", "524,288"):
        open_dataset(str(place))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04 some zip", "unzip "),
    ],
)
def test_files_that_are_no_archives(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(content)
    with refuses(ArtifactError, "archive-expected", "data.tar", kind):
        open_dataset(str(tmp_path / "data.tar"))
