"""Artifacts that move: links, copies, folders and names that change, and what is still found beside the model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import runtimes
from runtimes import Artifact
from runtimes.artifacts import moves
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import ArtifactError, IntegrityError
from tests.refusals import refuses
from tests.samples import publish_script


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An artifact of three files, alone in a folder."""
    moves._announce.cache_clear()
    folder = tmp_path / "made"
    folder.mkdir()
    return publish_script(folder / "net.fake").path


def _renamed(made: Path) -> Path:
    for file in sorted(made.parent.iterdir()):
        file.rename(file.with_name(file.name.replace("net.fake", "production.fake")))
    return made.with_name("production.fake")


def _model_and_manifest_renamed(made: Path) -> Path:
    manifest_path(made).rename(made.with_name("other.fake.json"))
    return made.rename(made.with_name("other.fake"))


def _folder_moved(made: Path) -> Path:
    return made.parent.rename(made.parent.with_name("moved")) / made.name


def _folder_linked(made: Path) -> Path:
    link = made.parent.with_name("current")
    link.symlink_to(made.parent, target_is_directory=True)
    return link / made.name


def _linked(made: Path, target: str | Path) -> Path:
    link = made.parent.parent / "elsewhere" / "net-link.fake"
    link.parent.mkdir()
    link.symlink_to(target)
    return link


def _link_to_a_link(made: Path) -> Path:
    link = made.parent.parent / "second.fake"
    link.symlink_to(_linked(made, made))
    return link


def _all_files_linked(made: Path) -> Path:
    folder = made.parent.parent / "links"
    folder.mkdir()
    for file in made.parent.iterdir():
        (folder / file.name).symlink_to(file)
    return folder / made.name


def _hard_links_of_all(made: Path) -> Path:
    folder = made.parent.parent / "hard"
    folder.mkdir()
    for file in made.parent.iterdir():
        os.link(file, folder / file.name)
    return folder / made.name


def _read_only_folder(made: Path) -> Path:
    made.parent.chmod(0o555)
    return made


HELD: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "where it was made": (lambda made: made, []),
    "all files renamed alike": (_renamed, ["artifact-file-renamed"]),
    "the vectors not renamed": (_model_and_manifest_renamed, []),
    "the folder moved": (_folder_moved, []),
    "a link to the folder": (_folder_linked, []),
    "a link to the model": (lambda made: _linked(made, made), ["artifact-link-followed"]),
    "a relative link": (lambda made: _linked(made, f"../{made.parent.name}/{made.name}"), ["artifact-link-followed"]),
    "a link to a link": (_link_to_a_link, ["artifact-link-followed"]),
    "a link to a renamed model": (
        lambda made: _linked(made, _renamed(made)), ["artifact-link-followed", "artifact-file-renamed"]
    ),
    "links to all files": (_all_files_linked, []),
    "hard links to all files": (_hard_links_of_all, []),
    "a read-only folder": (_read_only_folder, []),
}  # fmt: skip


@pytest.mark.parametrize("way", HELD)
def test_an_artifact_holds_wherever_it_is(made: Path, way: str, notice_codes: list[str]) -> None:
    digest = Artifact.read(made).manifest
    move, codes = HELD[way]
    path = move(made)
    for _ in range(2):  # each notice comes once
        artifact = Artifact.read(path)
        assert artifact.manifest == digest
        artifact.check_digest()
        assert len(artifact.vectors().inputs) == 7
    assert notice_codes == codes
    with runtimes.open(path) as runtime:
        assert runtime.artifact.manifest == digest


def _without_vectors(made: Path) -> Path:
    for file in made.parent.glob("*.npz"):
        file.unlink()
    return made


def _other_vectors(made: Path) -> Path:
    (vectors,) = made.parent.glob("*.npz")
    vectors.rename(made.parent / "other.npz").write_bytes(b"of another artifact")
    return made


def _model_alone(made: Path) -> Path:
    return Path(shutil.copy(made, made.parent.with_name("alone.fake")))


def _hard_link_alone(made: Path) -> Path:
    link = made.parent.with_name("hard.fake")
    os.link(made, link)
    return link


@pytest.mark.parametrize(
    ("lose", "code"),
    [
        (_without_vectors, "vectors-file-missing"),
        (_other_vectors, "vectors-file-missing"),
        (_model_alone, "vectors-absent"),
        (_hard_link_alone, "vectors-absent"),
    ],
)
def test_what_is_lost_is_named(made: Path, lose: Callable[[Path], Path], code: str) -> None:
    with refuses(ArtifactError, code, "copy"):
        Artifact.read(lose(made)).vectors()


def test_the_manifest_beside_the_link_comes_first(made: Path) -> None:
    link = _linked(made, made)
    manifest_path(link).write_text(manifest_path(made).read_text().replace('"scripted"', '"other"'))
    artifact = Artifact.read(link)
    assert artifact.path == link
    assert artifact.manifest is not None
    assert artifact.manifest.name == "other"


def test_a_link_to_a_foreign_file_stays_foreign(made: Path) -> None:
    manifest_path(made).unlink()
    artifact = Artifact.read(_linked(made, made))
    assert (artifact.manifest, artifact.path.name) == (None, "net-link.fake")


def test_an_engine_finds_its_renamed_onnx_file(made: Path) -> None:
    source = made.with_name("renamed.onnx")
    source.write_bytes(b"the weights")
    artifact = Artifact.read(made)
    digest = hashlib.sha256(b"the weights").hexdigest()
    assert artifact.sibling("old.onnx", digest) == source
    assert artifact.sibling("old.onnx", "0" * 64) == made.with_name("old.onnx")
    made.with_name("old.onnx").write_bytes(b"another file")
    assert artifact.sibling("old.onnx", digest) == made.with_name("old.onnx")


def test_no_folder_is_searched_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(moves.MOST_CANDIDATES + 9):
        (tmp_path / f"{number}.npz").write_bytes(bytes([number]))
    looked: list[Path] = []
    monkeypatch.setattr(moves, "_has_digest", lambda path, _: looked.append(path))
    assert moves.search_by_digest(tmp_path / "gone.npz", "0" * 64) is None
    assert len(looked) == moves.MOST_CANDIDATES


@pytest.fixture
def external(tmp_path: Path, onnx_artifact: Artifact) -> Path:
    """An ONNX artifact whose weights are in a file of their own."""
    path = tmp_path / "net.onnx"
    graph = onnx.load(onnx_artifact.path)
    onnx.save(graph, path, save_as_external_data=True, location="net.onnx.data")
    manifest: dict[str, Any] = json.loads(manifest_path(onnx_artifact.path).read_text())
    data = (tmp_path / "net.onnx.data").read_bytes()
    manifest |= {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size_bytes": path.stat().st_size,
        "external": [{"name": "net.onnx.data", "sha256": hashlib.sha256(data).hexdigest()}],
    }
    manifest_path(path).write_text(json.dumps(manifest))
    return path


def test_renamed_external_data_has_the_command(external: Path) -> None:
    external.with_name("net.onnx.data").rename(external.with_name("new.onnx.data"))
    with refuses(ArtifactError, "external-data-missing", "mv ", "new.onnx.data", "net.onnx.data"):
        Artifact.read(external)
    external.with_name("new.onnx.data").write_bytes(b"")
    with refuses(ArtifactError, "external-data-missing", "copy"):
        Artifact.read(external)


def test_a_link_finds_external_data(external: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "link.onnx"
    link.parent.mkdir()
    link.symlink_to(external)
    with runtimes.open(link, "onnxruntime", threads=1) as runtime:
        assert runtime.infer({"input": np.zeros((1, 3, 32, 32), np.float32)})["logits"].shape == (1, 10)


def test_damaged_external_data_is_an_integrity_error(external: Path) -> None:
    data = external.with_name("net.onnx.data")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with refuses(IntegrityError, "file-digest-mismatch", "net.onnx.data"):
        runtimes.open(external, "onnxruntime", threads=1)
