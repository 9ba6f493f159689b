"""Archives that are broken, hostile or none at all, each against its error."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from exporter.data import archives
from exporter.data.dataset import open_dataset
from runtimes.errors import ArtifactError, ResourceError, UnsafeArtifactError
from tests.exporter.datasets import png, tar_of


@pytest.mark.parametrize("compression", ["", "gz", "xz", "bz2"])
def test_truncated_archives_are_refused(compression: str, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).bytes(6000)
    contents = {"a/1.png": noisy[:3000], "b/2.png": noisy[3000:]}
    whole = tar_of(tmp_path / "set.tar", contents, f"w:{compression}").read_bytes()
    place = tmp_path / "cut.tar"
    lengths = [1, 100, 512, 512 + 3072, 4096 + 100, len(whole) // 2, len(whole) - 30]
    for length in [length for length in lengths if compression or length < 512 * 14 + 1]:
        place.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"cut.tar: (a truncated or damaged tar archive|no folder and no tar)"):
            open_dataset(str(place))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = bytearray(tar_of(tmp_path / "set.tar", {"a/1.png": png(1), "b/2.png": png(2)}).read_bytes())
    whole[1024 + 10] ^= 0xFF  # in the second header: reading would otherwise end there in silence
    (tmp_path / "set.tar").write_bytes(whole)
    with pytest.raises(ArtifactError, match="a truncated or damaged tar archive: "):
        open_dataset(str(tmp_path / "set.tar"))
    packed = bytearray(tar_of(tmp_path / "set.tgz", {"a/1.png": png(1)}, "w:gz").read_bytes())
    packed[-8] ^= 0xFF  # the checksum of what was packed
    (tmp_path / "set.tgz").write_bytes(packed)
    with pytest.raises(ArtifactError, match="a truncated or damaged tar archive: CRC check failed"):
        open_dataset(str(tmp_path / "set.tgz"))


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png"])
def test_members_that_lead_outside_are_refused(name: str, tmp_path: Path) -> None:
    place = tar_of(tmp_path / "set.tar", {"a/0.png": png(0), name: png(1)})
    with pytest.raises(UnsafeArtifactError, match=r"set.tar: its member '.*1\.png' leads outside"):
        open_dataset(str(place))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_plain_files_are_refused(kind: bytes, tmp_path: Path) -> None:
    place = tar_of(tmp_path / "set.tar", {"a/1.png": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(UnsafeArtifactError, match=r"its member 'a/1\.png' is a link, a device or a sparse file; exp"):
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
    with pytest.raises(UnsafeArtifactError, match="is a link, a device or a sparse file"):
        open_dataset(str(tmp_path / "set.tar"))


def test_a_bomb_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tar_of(tmp_path / "bomb.tar.xz", {"a/1.png": bytes(1 << 20)}, "w:xz")
    assert place.stat().st_size < 2000
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1 << 19)
    with pytest.raises(ResourceError, match=r"bomb.tar.xz: more than 524,288 bytes when unpacked \(unpack it and name"):
        open_dataset(str(place))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no folder and no tar archive: it is empty"),
        (b"<!DOCTYPE html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git-LFS pointer, .*git lfs pull"),
        (b"PK\x03\x04 some zip", "it is a file that begins with 50 4b 03 04"),
    ],
)
def test_files_that_are_no_archives(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(content)
    with pytest.raises(ArtifactError, match=f"data.tar: no folder and no tar archive: {message.split(': ')[-1]}"):
        open_dataset(str(tmp_path / "data.tar"))
