"""Files that are never half there, with real kills, full disks, refused folders and pipes."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtimes import files
from runtimes.errors import ResourceError, UsageError
from tests.refusals import refuses
from tests.samples import killable

REPO = Path(__file__).resolve().parents[2]


def _child(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", code, *map(str, arguments)], cwd=REPO, text=True, stdout=subprocess.PIPE, **options
    )


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _temporaries(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_a_write_replaces_the_old_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with files.write_atomically(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == target.parent
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def broken() -> None:
        with files.write_atomically(target) as temporary:
            temporary.write_text("half")
            raise KeyError("own error")

    with pytest.raises(KeyError, match="own error"):
        broken()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("missing/a.txt", errno.ENOENT),
        ("file/a.txt", errno.ENOTDIR),
        ("x" * 250, errno.ENAMETOOLONG),
        ("folder", errno.EISDIR),
    ],
)
def test_a_target_that_cannot_be_is_a_resource_error(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with (
        refuses(ResourceError, "file-access-failed", "write", os.strerror(number)),
        files.write_atomically(tmp_path / name) as place,
    ):
        place.write_text("new")


WRITER = """
from runtimes import files
def turn(arguments, count):
    with files.write_atomically(arguments[0]) as temporary:
        temporary.write_bytes((b"A", b"B")[count % 2] * (1000, 200_000)[count % 2])
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    target, dice = tmp_path / "a.bin", random.Random(1)
    whole = {hashlib.sha256(letter * size).hexdigest() for letter, size in ((b"A", 1000), (b"B", 200_000))}
    target.write_bytes(b"A" * 1000)
    left = 0
    with killable(WRITER, target) as start:
        for _ in range(60):
            writer = start()
            try:
                deadline = time.monotonic() + dice.uniform(0.0, 0.02)
                while time.monotonic() < deadline:
                    assert files.sha256_of(target) in whole
            finally:
                os.kill(writer, signal.SIGKILL)
            assert files.sha256_of(target) in whole
            left += bool(_temporaries(tmp_path))
    assert left > 0  # else no kill fell into a write, and the test proves nothing
    with files.write_atomically(target) as temporary:
        temporary.write_bytes(b"C")
    assert os.listdir(tmp_path) == ["a.bin"]


def test_temporaries_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = tmp_path / f".a.bin.{_dead_pid()}-00c0ffee.tmp"
    living = tmp_path / f".a.bin.{os.getppid()}-00c0ffee.tmp"
    others = tmp_path / f".b.bin.{_dead_pid()}-00c0ffee.tmp"
    folder = tmp_path / f".a.bin.{_dead_pid()}-00c0ffef.tmp"
    for place in (dead, living, others):
        place.touch()
    (folder / "inner").mkdir(parents=True)
    files.remove_stale(tmp_path / "a.bin")
    assert not dead.exists()
    assert not folder.exists()
    assert living.exists()
    assert others.exists()


def test_a_file_size_limit_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_text("old")
    code = """
import sys
from runtimes import errors, files
try:
    with files.write_atomically(sys.argv[1]) as temporary:
        temporary.write_bytes(bytes(100_000))
except errors.ResourceError as error:
    print(error.errno, error.code, error)
"""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    with _child(code, target, preexec_fn=limit) as child:
        out, _ = child.communicate()
    assert out == f"{errno.EFBIG} file-access-failed {target}: cannot write: {os.strerror(errno.EFBIG)}\n"
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_full_disk_is_said_as_such() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def write() -> None:
        try:
            with open("/dev/full", "wb", buffering=0) as file:
                file.write(b"x")
        except OSError as error:
            raise ResourceError.from_os(error, "a.bin", "write") from error

    with refuses(ResourceError, "file-access-failed", "a.bin", "write", os.strerror(errno.ENOSPC)):
        write()


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents):  # let the other user in, for reading, as far as it is pytest's own
        if place.owner() == "root" and "pytest" in place.name:
            place.chmod(0o755)
    (tmp_path / "a.bin").write_text("old")
    code = """
import os, sys
from pathlib import Path
from runtimes import errors, files
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def attempt(act):
    try:
        act()
    except errors.ResourceError as error:
        print(error.errno, error.code, error)
def write():
    with files.write_atomically(sys.argv[1]) as temporary:
        temporary.write_text("new")
attempt(write)
attempt(lambda: files.check_writable(Path(sys.argv[1]).parent))
attempt(lambda: files.check_writable(Path(sys.argv[1]).parent / "new"))
"""
    with _child(code, tmp_path / "a.bin") as child:
        out, _ = child.communicate()
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines] == [[str(errno.EACCES), "file-access-failed"]] * 3, out
    assert f" {tmp_path / 'a.bin'}: " in lines[0]
    assert f" {tmp_path}: " in lines[1]
    assert [line for line in lines if f"{os.strerror(errno.EACCES)} (ls -ld {tmp_path.parent}" not in line] == []
    assert os.listdir(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_text() == "old"


def test_check_writable_makes_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    with refuses(ResourceError, "file-access-failed", "write into"):
        files.check_writable(tmp_path / "file")


def test_a_missing_folder_is_named_with_its_command(tmp_path: Path) -> None:
    files.require_folder(tmp_path)
    with refuses(ResourceError, "folder-missing", f"(mkdir -p '{tmp_path}/a b')"):
        files.require_folder(tmp_path / "a b")
    (tmp_path / "file").touch()
    files.require_folder(tmp_path / "file" / "below")  # no command makes that; writing says why
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.timeout(10)
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with refuses(ResourceError, "file-not-regular"):
            files.open_regular(place)


@pytest.mark.parametrize(
    ("name", "number"),
    [("none", errno.ENOENT), ("x" * 300, errno.ENAMETOOLONG)],
)
def test_a_file_that_is_not_there(tmp_path: Path, name: str, number: int) -> None:
    with refuses(ResourceError, "file-access-failed", "read", os.strerror(number)):
        files.open_regular(tmp_path / name)


def test_small_files_are_read_within_their_bound(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_bytes(b"12345")
    assert files.read_bounded(place, 5) == b"12345"
    with refuses(ResourceError, "file-too-large", "5 bytes", "at most 4"):
        files.read_bounded(place, 4)


@pytest.mark.parametrize("size", [0, 1, files.CHUNK_BYTES - 1, files.CHUNK_BYTES, files.CHUNK_BYTES + 1])
def test_the_digest_is_sha256(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "a").write_bytes(content)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_disk_that_fails_while_reading_is_a_resource_error() -> None:
    place = Path("/proc/self/mem")  # a regular file whose first page cannot be read
    with refuses(ResourceError, "file-access-failed", "read", os.strerror(errno.EIO)):
        files.sha256_of(place)
    with refuses(ResourceError, "file-access-failed", "read", os.strerror(errno.EIO)):
        files.read_bounded(place, 10)


def test_a_dead_holder_lets_go_of_the_lock(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from runtimes import files
with files.folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
    with _child(code, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
        with files.folder_lock(tmp_path):
            pass


def test_the_lock_of_a_missing_folder(tmp_path: Path) -> None:
    with (
        refuses(ResourceError, "file-access-failed", "lock", os.strerror(errno.ENOENT)),
        files.folder_lock(tmp_path / "none"),
    ):
        pass


def test_another_file_in_its_place_has_another_identity(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_bytes(b"same")
    before = files.identity(place)
    assert files.identity(place) == before
    with files.write_atomically(place) as temporary:
        temporary.write_bytes(b"same")
    assert files.identity(place) != before
    with refuses(ResourceError, "file-access-failed", "read", os.strerror(errno.ENOENT)):
        files.identity(tmp_path / "none")


@pytest.mark.parametrize(("name", "reason"), [("a\0b", "embedded null byte"), ("\ud800", "can't encode")])
def test_what_is_no_path_is_a_wrong_request(name: str, reason: str) -> None:
    for act in (files.open_regular, files.identity):
        with refuses(UsageError, "path-invalid", reason):
            act(name)


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    files.require_utf8(tmp_path / "café")
    with refuses(UsageError, "path-not-utf8", "b\\udce9d"):
        files.require_utf8(tmp_path / os.fsdecode(b"b\xe9d"))
