"""A zip archive is a program only if it has a program's entries; any other one is named."""

from __future__ import annotations

import io
import lzma
import zipfile
from pathlib import Path

import pytest

from runtimes import Artifact
from runtimes.errors import ArtifactError, UnsafeArtifactError
from tests.refusals import refuses

PROGRAM = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "artifacts" / "small-basic.pt2.xz"


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("inputs.npy", "NumPy arrays"),
        ("archive/data.pkl", "weights of torch.save"),
        ("[Content_Types].xml", "office"),
        ("META-INF/MANIFEST.MF", "Java"),
        ("a/b\n.txt", "a/b"),
    ],
)
def test_a_stranger_is_named(tmp_path: Path, entry: str, named: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, b"x")
    (tmp_path / "net.pt2").write_bytes(buffer.getvalue())
    with refuses(ArtifactError, "file-not-model", named, "net.pt2"):
        Artifact.read(tmp_path / "net.pt2")


def test_a_program_needs_its_manifest(tmp_path: Path) -> None:
    content = lzma.decompress(PROGRAM.read_bytes())
    (tmp_path / "net.pt2").write_bytes(content)
    with refuses(UnsafeArtifactError, "manifest-required"):
        Artifact.read(tmp_path / "net.pt2")
    (tmp_path / "net.pt2").write_bytes(content[:5000])
    with refuses(ArtifactError, "file-not-model", "truncated"):
        Artifact.read(tmp_path / "net.pt2")
