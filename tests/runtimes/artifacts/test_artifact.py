"""Artifacts on the disk: what is read, what is refused, and publishing over one another under kills and crowds."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import Artifact, codec, files
from runtimes.artifacts.artifact import manifest_path, publish
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import FileRecord, Manifest
from runtimes.backends import registry
from runtimes.errors import (
    ArtifactError,
    CompatibilityError,
    IntegrityError,
    ResourceError,
    RexportError,
    UnsafeArtifactError,
)
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.samples import SCRIPT, WIDER, copied, foreign_script, killable, manifest_for, publish_script

REPO = Path(__file__).resolve().parents[3]


def edit_manifest(artifact: Artifact, **fields: object) -> Path:
    """The artifact's path, after its manifest's fields were changed to these."""
    place = manifest_path(artifact.path)
    place.write_text(json.dumps(json.loads(place.read_bytes()) | fields), encoding="utf-8")
    return artifact.path


def test_what_was_published_is_read(fake_artifact: FakeFactory) -> None:
    made = fake_artifact()
    found = Artifact.read(made.path)
    assert found == made
    found.check_digest()
    vectors = found.vectors()
    assert vectors.inputs.shape == (7, 3, 8, 8)
    assert vectors.logits.shape == (7, 10)
    assert manifest_path(made.path).read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"\xef\xbb\xbf \r\n<HTML lang='en'>", "HTML page"),
        (b'<?xml version="1.0"?>', "XML document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (pickle.dumps({"a": 1}, 2), "a pickle"),
        (pickle.dumps({"a": 1}, 5), "a pickle"),
        (b"\x1f\x8b\x08", "gzip archive"),
        (b"\xfd7zXZ\x00", "xz archive"),
        (b"\x89PNG\r\n", "PNG image"),
        (b"\xff\xd8\xff\xe0", "JPEG image"),
        (b"junk and more of it", b"junk".hex(" ")),
        (b"\x00" * 64, bytes(8).hex(" ")),
        (b"\x08", "with 08"),
    ],
)
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_stranger_is_named(tmp_path: Path, content: bytes, kind: str, suffix: str) -> None:
    place = tmp_path / f"net.{suffix}"
    place.write_bytes(content)
    with refuses(ArtifactError, "file-not-model", kind) as caught:
        Artifact.read(place)
    assert "weights_only" not in str(caught.value)


@pytest.mark.timeout(10)
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("pipe.onnx", "folder.onnx"):
        with refuses(ResourceError, "file-not-regular"):
            Artifact.read(tmp_path / name)
    with refuses(ResourceError, "file-access-failed", "read", os.strerror(errno.ENOENT)):
        Artifact.read(tmp_path / "none.onnx")


@pytest.mark.timeout(10)
def test_a_pipe_in_place_of_the_manifest_is_refused_at_once(fake_artifact: FakeFactory) -> None:
    made = fake_artifact()
    manifest_path(made.path).unlink()
    os.mkfifo(manifest_path(made.path))
    with refuses(ResourceError, "file-not-regular"):
        Artifact.read(made.path)


def test_a_foreign_file_opens_where_its_format_runs_no_code(tmp_path: Path) -> None:
    found = foreign_script(tmp_path / "net.fake")
    assert found.manifest is None
    found.check_digest()
    with refuses(ArtifactError, "vectors-absent"):
        found.vectors()


@pytest.mark.parametrize(
    ("entries", "kind", "code", "value"),
    [
        (("net/archive_format", "net/data.pkl"), UnsafeArtifactError, "manifest-required", "pt2"),
        (("data.pkl",), ArtifactError, "file-not-model", "data.pkl"),
    ],
)
def test_a_program_without_a_manifest_never_reaches_torch(
    entries: tuple[str, ...], kind: type[RexportError], code: str, value: str, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    place = tmp_path / "net.pt2"
    with zipfile.ZipFile(place, "w") as archive:
        for name in entries:
            archive.writestr(name, f"cposix\nsystem\n(S'touch {canary}'\ntR.")
    for act in (lambda: Artifact.read(place), lambda: runtimes.open(place), lambda: runtimes.open(place, "pytorch")):
        with refuses(kind, code, value):
            act()
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("", "json-invalid", ""),
        ("<html>", "json-invalid", ""),
        ("[]", "field-type-mismatch", "'at the top'"),
        ("{}", "field-missing", "'name'"),
        ("{" * 100_000, "json-invalid", ""),
        ("[" * 100_000, "json-invalid", ""),
        ('{"name": NaN}', "json-invalid", "NaN"),
    ],
)
def test_a_broken_manifest_is_refused(fake_artifact: FakeFactory, text: str, code: str, value: str) -> None:
    made = fake_artifact()
    manifest_path(made.path).write_text(text)
    with refuses(ArtifactError, code, "manifest is invalid", value) as caught:
        Artifact.read(made.path)
    assert caught.value.path == manifest_path(made.path)


SOUND = {"resize": 8, "crop": [8, 8], "pad": 0, "mean": [0, 0, 0], "std": [1, 1, 1]}


@pytest.mark.parametrize(
    ("fields", "code", "values"),
    [
        ({"surprise": 1}, "field-unknown", ("'surprise'",)),
        ({"sha256": 7}, "field-type-mismatch", ("'sha256'", "str", 7)),
        ({"format_version": True}, "field-type-mismatch", ("'format_version'", "int")),
        ({"size_bytes": "many"}, "field-type-mismatch", ("'size_bytes'", "int")),
        ({"preprocessing": SOUND | {"std": [1, 0, 1]}}, "mean-or-std-invalid", ("'preprocessing'",)),
        ({"preprocessing": SOUND | {"crop": [0, 8]}}, "crop-or-pad-invalid", ("'preprocessing'",)),
        ({"preprocessing": SOUND | {"crop": [10**9, 10**9]}}, "input-too-large", ("'preprocessing'", 10**9)),
        (
            {"weights": {"origin": "found", "trained": True, "sha256": ""}},
            "field-type-mismatch",
            ("'weights.origin'", "one of"),
        ),
        (
            {"inputs": [{"name": "x", "dtype": "float32", "shape": [None]}]},
            "field-type-mismatch",
            ("'inputs[0].shape[0]'",),
        ),
    ],
)
def test_a_wrong_field_is_named(
    fake_artifact: FakeFactory, fields: dict[str, object], code: str, values: tuple[object, ...]
) -> None:
    with refuses(ArtifactError, code, "manifest is invalid", *values):
        Artifact.read(edit_manifest(fake_artifact(), **fields))


def test_a_newer_manifest_names_the_remedy(fake_artifact: FakeFactory) -> None:
    with refuses(CompatibilityError, "manifest-version-newer", "version 2", "up to 1", "--upgrade"):
        Artifact.read(edit_manifest(fake_artifact(), format_version=2, whatever="new"))


def test_a_manifest_of_another_format_is_refused(fake_artifact: FakeFactory) -> None:
    with refuses(IntegrityError, "manifest-format-mismatch", "onnx", "fake"):
        Artifact.read(edit_manifest(fake_artifact(), format="onnx"))


def test_a_manifest_too_large_is_not_read(fake_artifact: FakeFactory) -> None:
    made = fake_artifact()
    os.truncate(manifest_path(made.path), 17 << 20)
    with refuses(ResourceError, "file-too-large", "16,777,216"):
        Artifact.read(made.path)


@pytest.mark.parametrize("name", ["../w.bin", "/etc/passwd", "a/b", "..", "", "a\0b", "\ud800"])
def test_a_manifest_names_files_of_its_folder_only(fake_artifact: FakeFactory, name: str) -> None:
    made = fake_artifact()
    found = Artifact.read(edit_manifest(made, vectors={"name": name, "sha256": "0"}))
    with refuses(UnsafeArtifactError, "manifest-names-outside"):
        found.vectors()
    found = Artifact.read(edit_manifest(made, external=[{"name": name, "sha256": "0"}]))
    with refuses(UnsafeArtifactError, "manifest-names-outside"):
        found.check_digest()


def test_external_files_are_held_to_their_digests(fake_artifact: FakeFactory) -> None:
    made = fake_artifact()
    beside = made.path.with_name("weights.data")
    beside.write_bytes(b"weights")
    found = Artifact.read(edit_manifest(made, external=[{"name": beside.name, "sha256": files.sha256_of(beside)}]))
    found.check_digest()
    beside.write_bytes(b"Weights")
    with refuses(IntegrityError, "file-digest-mismatch", "weights.data"):
        found.check_digest()


def _vectors_path(artifact: Artifact) -> Path:
    assert artifact.manifest is not None
    assert artifact.manifest.vectors is not None
    return artifact.path.with_name(artifact.manifest.vectors.name)


def test_changed_and_missing_vectors(fake_artifact: FakeFactory) -> None:
    made = fake_artifact()
    place = _vectors_path(made)
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    with refuses(IntegrityError, "vectors-digest-mismatch"):
        made.vectors()
    place.unlink()
    with refuses(ArtifactError, "vectors-file-missing", place.name):
        made.vectors()


def _pack(**arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("inputs.npy", "logits.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    return buffer.getvalue()


IMAGES, LOGITS = np.zeros((7, 3, 8, 8), np.float32), np.zeros((7, 10), np.float32)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        _pack(inputs=IMAGES),
        _pack(inputs=IMAGES, logits=LOGITS)[:-30],
        _pack(inputs=IMAGES, logits=LOGITS[:3]),
        _pack(inputs=IMAGES[0], logits=LOGITS),
        _pack(inputs=IMAGES.astype(np.float64), logits=LOGITS),
        _pack(inputs=np.array([object()]), logits=LOGITS),
        _pack(inputs=np.zeros((300, 1 << 20), np.uint8), logits=LOGITS),
        _header(str((1 << 60, 3, 8, 8))),
        _header("(" * 90),
    ],
    ids=["empty", "junk", "one", "cut", "rows", "rank", "dtype", "pickle", "bomb", "giant", "nested"],
)
def test_broken_vectors_are_refused_despite_the_right_digest(fake_artifact: FakeFactory, content: bytes) -> None:
    made = fake_artifact()
    assert made.manifest is not None
    place = _vectors_path(made)
    place.write_bytes(content)
    record = FileRecord(place.name, hashlib.sha256(content).hexdigest())
    with refuses(ArtifactError, "vectors-unreadable"):
        replace(made, manifest=replace(made.manifest, vectors=record)).vectors()


def test_a_file_name_that_is_no_unicode_survives_publishing(tmp_path: Path) -> None:
    made = publish_script(tmp_path / "net\udcff.fake")
    assert Artifact.read(made.path) == made
    assert made.vectors().inputs.shape == (7, 3, 8, 8)


@pytest.mark.parametrize("backend", [backend.name for backend in registry.all_backends() if backend.missing() is None])
def test_a_flipped_bit_is_found_on_every_backend(
    backend: str, onnx_artifact: Artifact, pt2_artifact: Artifact, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    formats = next(row.formats for row in registry.all_backends() if row.name == backend)
    made = {"onnx": onnx_artifact, "pt2": pt2_artifact, "fake": fake_artifact()}[formats[0]]
    (tmp_path / "copy").mkdir()
    spoilt = copied(made, tmp_path / "copy")
    size = spoilt.path.stat().st_size
    for at in (0, size // 3, size - 2):
        content = bytearray(made.path.read_bytes())
        content[at] ^= 0x01
        spoilt.path.write_bytes(content)
        with refuses(IntegrityError, "file-digest-mismatch", "export the model again"):
            runtimes.open(spoilt.path, backend)


def test_another_models_file_under_the_manifest_is_found(fake_artifact: FakeFactory) -> None:
    made = fake_artifact()
    wider = replace(SCRIPT, outputs=(replace(SCRIPT.outputs[0], shape=("batch", 11)),))
    made.path.write_text(codec.dumps(wider))
    with refuses(IntegrityError, "file-digest-mismatch"):
        runtimes.open(made.path)


def test_a_disk_that_fails_under_the_digest_is_an_error(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake_artifact()

    def failing(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(files, "sha256_of", failing)
    with pytest.raises(OSError, match="Input/output error"):
        runtimes.open(made.path)


# Publishing: two artifacts over each other.

A, B = SCRIPT, WIDER

PUBLISHER = """
import os, time
from pathlib import Path
from tests.samples import SCRIPT, WIDER, publish_script
def turn(arguments, count):
    time.sleep(0.002 * (count % 4))  # without a rest, a slow reader would never see the same file twice
    which = (count + os.getpid()) % 2
    publish_script(Path(arguments[0]), (SCRIPT, WIDER)[which], which)
"""


def _observed(target: Path) -> int:
    """The number of classes of what opens there, which is whole: digest, manifest and answers fit."""
    with runtimes.open(target) as runtime:
        classes = runtime.outputs[0].shape[1]
        assert isinstance(classes, int)
        answer = runtime.infer({"input": np.ones((1, 3, 8, 8), np.float32)})["logits"]
        scale = {10: 1.0, 12: 2.0}[classes]
        np.testing.assert_array_equal(answer[0], np.arange(1, classes + 1) * scale)
        return classes


def test_a_reader_sees_the_old_artifact_or_the_new(tmp_path: Path) -> None:
    target, dice = tmp_path / "net.fake", random.Random(2)
    publish_script(target, A, 0)
    seen: list[int] = []
    with killable(PUBLISHER, target) as start:
        for _ in range(25):
            publisher = start()
            try:
                deadline = time.monotonic() + dice.uniform(0.0, 0.25)
                while time.monotonic() < deadline:
                    seen.append(_observed(target))
                    time.sleep(0.001)
            finally:
                os.kill(publisher, signal.SIGKILL)
            seen.append(_observed(target))
            found = Artifact.read(target)
            found.check_digest()
            assert found.vectors().logits.shape == (7, seen[-1])
    assert set(seen) == {10, 12}
    last = publish_script(target, A, 0)
    assert sorted(os.listdir(tmp_path)) == sorted((target.name, f"{target.name}.json", _vectors_path(last).name))


def test_eight_publishers_of_one_target_leave_one_whole_artifact(tmp_path: Path) -> None:
    target = tmp_path / "net.fake"
    code = (
        PUBLISHER
        + """
import os, sys
children = []
for number in range(8):
    pid = os.fork()
    if pid == 0:
        for count in range(number, number + 6):
            turn(sys.argv[1:], count)
        os._exit(0)
    children.append(pid)
print([os.waitpid(pid, 0)[1] for pid in children])
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=REPO, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == f"{[0] * 8}\n", done.stderr
    classes = _observed(target)
    assert Artifact.read(target).vectors().logits.shape == (7, classes)
    assert len(os.listdir(tmp_path)) == 3


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("then", ["read", "publish A", "publish B", "killed again"])
def test_each_rename_may_be_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, then: str) -> None:
    """The process ends before its ``step``-th rename. What a kill leaves is what is there when no rename follows."""
    target = tmp_path / "net.fake"
    publish_script(target, A, 0)
    rename = os.replace

    def dying(limit: int) -> None:
        left = limit

        def replace_or_die(source: Path, destination: Path) -> None:
            nonlocal left
            if left == 0:
                raise _Killed
            left -= 1
            rename(source, destination)

        monkeypatch.setattr(os, "replace", replace_or_die)

    dying(step)
    try:
        publish_script(target, B, 1)
        expected = {12}
    except _Killed:
        # vectors, manifest in waiting, model, manifest: the model's rename decides
        expected = {10} if step < 3 else {12}
    monkeypatch.setattr(os, "replace", rename)
    assert {_observed(target)} == expected
    if then == "killed again":
        for again in range(5):
            before = _observed(target)
            dying(again)
            with contextlib.suppress(_Killed):
                publish_script(target, A if before == 12 else B, 0 if before == 12 else 1)
            monkeypatch.setattr(os, "replace", rename)
            assert _observed(target) in (10, 12)
            assert Artifact.read(target).vectors().logits.shape == (7, _observed(target))
    elif then != "read":
        publish_script(target, A if then == "publish A" else B, 0)
        assert _observed(target) == (10 if then == "publish A" else 12)
        assert len([name for name in os.listdir(tmp_path) if not name.endswith(".tmp")]) == 3


def test_a_manifest_in_waiting_goes_with_the_model_it_describes(fake_artifact: FakeFactory) -> None:
    made = fake_artifact()
    waiting = made.path.with_name(made.path.name + ".json.next")
    manifest_path(made.path).rename(waiting)
    assert Artifact.read(made.path) == made
    publish_script(made.path.with_name("other.fake"), B)
    manifest_path(made.path.with_name("other.fake")).replace(waiting)
    assert Artifact.read(made.path).manifest is None


def test_a_failed_publish_leaves_the_old_artifact_alone(tmp_path: Path) -> None:
    target = tmp_path / "net.fake"
    publish_script(target, A, 0)
    before = {place.name: place.read_bytes() for place in tmp_path.iterdir()}
    code = """
import sys
from dataclasses import replace
from pathlib import Path
from runtimes import codec, files
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.manifest import FileRecord
from runtimes.errors import ResourceError
from tests.samples import WIDER, manifest_for
target = Path(sys.argv[1])
model, vectors = files.temporary_for(target), files.temporary_for(target)
try:
    model.write_text(codec.dumps(WIDER))
    vectors.write_bytes(b"vectors")
    digest = files.sha256_of(vectors)
    manifest = manifest_for(WIDER, model, FileRecord(vectors_name(target, digest), digest))
    try:
        publish(model, target, replace(manifest, labels=("x" * 100_000,)), vectors)
    except ResourceError as error:
        print(error.errno, error.code, error)
finally:
    model.unlink()
    vectors.unlink()
"""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=REPO,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = f"{errno.EFBIG} file-access-failed {target}.json: cannot write: {os.strerror(errno.EFBIG)}\n"
    assert done.stdout == printed, done.stderr
    assert {place.name: place.read_bytes() for place in tmp_path.iterdir()} == before


def test_publishing_into_a_missing_folder(tmp_path: Path) -> None:
    model = tmp_path / "model.tmp"
    model.write_text(codec.dumps(SCRIPT))
    with refuses(ResourceError, "file-access-failed", os.strerror(errno.ENOENT)):
        publish(model, tmp_path / "none" / "net.fake", manifest_for(SCRIPT, model, None), None)
    assert model.exists()


def test_only_its_own_old_vectors_are_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("net.fake.mybackup.vectors.npz", "net2.fake.00000000.vectors.npz", "x.npz")]
    old = tmp_path / "net.fake.00000000.vectors.npz"
    for place in (*kept, old):
        place.touch()
    publish_script(tmp_path / "net.fake")
    assert all(place.exists() for place in kept)
    assert not old.exists()


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_ends_in_declared_errors(tmp_path: Path, seed: int) -> None:
    made = publish_script(tmp_path / "net.fake")
    dice = random.Random(seed)
    files_of = sorted(tmp_path.iterdir())
    for _ in range(40):
        place = dice.choice(files_of)
        sound = place.read_bytes()
        content = bytearray(sound)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        place.write_bytes(content[: dice.randint(0, len(content))] if dice.random() < 0.3 else content)
        try:
            Artifact.read(made.path).vectors()
            runtimes.open(made.path).close()
        except RexportError as error:
            assert error.exit_code in (3, 4, 6), f"seed {seed}: {error!r}"  # noqa: PT017
        finally:
            place.write_bytes(sound)


def test_every_format_has_a_backend() -> None:
    opened = {name for backend in registry.all_backends() for name in backend.formats}
    assert opened == set(FORMATS)
    assert Manifest.__dataclass_fields__["format_version"].default == 1
