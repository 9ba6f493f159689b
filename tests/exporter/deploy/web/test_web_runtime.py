"""Where ONNX Runtime Web comes from. A script stands for npm, because the tests use no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from exporter.deploy import web_runtime
from exporter.deploy.web_runtime import CODE, PACKAGE, VERSION, WASM, find_runtime
from runtimes.errors import ArtifactError, BackendUnavailableError, IntegrityError, Reason, ResourceError
from tests.exporter.small import reason_codes
from tests.refusals import refuses

CONTENTS = {CODE: b"export {};", WASM: b"\0asm"}


def archive_of(contents: dict[str, bytes], version: str = VERSION) -> bytes:
    """What ``npm pack`` writes of a package with these files."""
    buffer = io.BytesIO()
    description = json.dumps({"version": version}).encode()
    named = {f"package/dist/{name}": content for name, content in contents.items()}
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in {"package/package.json": description, **named}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def notices() -> list[str | Reason]:
    return []


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands with an ``npm`` that packs the file ``archive`` there, or fails without it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    archive = folder / "archive"
    (folder / "npm").write_text(
        f"#!{sys.executable}\nimport pathlib, shutil, sys\nassert sys.argv[1:3] == ['pack', '{PACKAGE}@{VERSION}']\n"
        f"source = pathlib.Path({str(archive)!r})\n"
        "if not source.exists():\n    sys.exit('npm error code ENOTFOUND')\n"
        "shutil.copy(source, pathlib.Path(sys.argv[4]) / 'package.tgz')\n"
    )
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def published(npm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``npm`` that packs the pinned archive, which is a small one here."""
    content = archive_of(CONTENTS)
    (npm / "archive").write_bytes(content)
    monkeypatch.setattr(web_runtime, "INTEGRITY", base64.b64encode(hashlib.sha512(content).digest()).decode())
    digests = {name: hashlib.sha256(value).hexdigest() for name, value in CONTENTS.items()}
    monkeypatch.setattr(web_runtime, "DIGESTS", digests)
    return npm


def test_npm_fills_the_cache_once(published: Path, notices: list[str | Reason]) -> None:
    assert find_runtime(None, notices.append).contents == CONTENTS
    (published / "npm").unlink()
    assert find_runtime(None, notices.append) == web_runtime.WebRuntime(VERSION, CONTENTS)
    assert len(notices) == 1
    assert VERSION in str(notices[0])


@pytest.mark.usefixtures("published")
def test_a_damaged_cache_is_filled_again(tmp_path: Path, notices: list[str | Reason]) -> None:
    find_runtime(None, notices.append)
    damaged = tmp_path / "cache" / f"{PACKAGE}-{VERSION}" / WASM
    damaged.write_bytes(b"half")
    assert find_runtime(None, notices.append).contents == CONTENTS
    assert damaged.read_bytes() == CONTENTS[WASM]


def test_another_archive_from_npm_is_refused(published: Path, tmp_path: Path, notices: list[str | Reason]) -> None:
    (published / "archive").write_bytes(archive_of({**CONTENTS, CODE: b"steal();"}))
    with refuses(IntegrityError, "npm-digest-mismatch", VERSION):
        find_runtime(None, notices.append)
    assert not (tmp_path / "cache" / f"{PACKAGE}-{VERSION}" / CODE).exists()


def test_npm_that_fails_gives_its_reason(npm: Path, notices: list[str | Reason]) -> None:
    with refuses(ResourceError, "npm-failed", "ENOTFOUND", "--onnxruntime-web"):
        find_runtime(None, notices.append)
    (npm / "npm").unlink()
    with refuses(BackendUnavailableError, "npm-missing", "--onnxruntime-web"):
        find_runtime(None, notices.append)


def test_an_archive_and_a_package_give_their_version(tmp_path: Path, notices: list[str | Reason]) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(archive_of(CONTENTS, "1.2.3"))
    assert find_runtime(archive, notices.append).version == "1.2.3"
    dist = tmp_path / "node_modules" / PACKAGE / "dist"
    dist.mkdir(parents=True)
    (dist.parent / "package.json").write_text('{"version": "4.5.6"}')
    for name, content in CONTENTS.items():
        (dist / name).write_bytes(content)
    versions = [find_runtime(place, notices.append).version for place in (tmp_path, dist.parent, dist)]
    assert versions == ["4.5.6"] * 3
    (dist.parent / "package.json").write_text("[]")
    assert find_runtime(dist, notices.append).version == "unknown"
    assert set(reason_codes(notices)) == {"web-runtime-version"}


@pytest.mark.parametrize(
    "content", [b"no archive", archive_of({CODE: b""}), archive_of(CONTENTS)[:60]], ids=["text", "without wasm", "half"]
)
def test_a_broken_archive_is_refused(tmp_path: Path, notices: list[str | Reason], content: bytes) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    with refuses(ArtifactError, "web-runtime-archive-broken", path):
        find_runtime(path, notices.append)


def test_a_folder_without_the_files_is_refused(tmp_path: Path, notices: list[str | Reason]) -> None:
    with refuses(ResourceError, "web-runtime-missing", tmp_path, CODE):
        find_runtime(tmp_path, notices.append)
