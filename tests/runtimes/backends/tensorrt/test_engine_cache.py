"""The cache of engines, with real processes, kills and forks, and engines that TensorRT-RTX builds for real."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from runtimes import Artifact
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt import engine_cache
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.engine_cache import Key, default_folder, entry
from runtimes.errors import CheckFailedError, IntegrityError, Reason, ResourceError, RexportError, UnsafeArtifactError
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cached import KEY, publish_engine

REPO = Path(__file__).resolve().parents[4]

OTHER: dict[str, Any] = {
    "flavor": "tensorrt",
    "version": "1.7.2.1",
    "gpu": "NVIDIA H200",
    "compute_capability": "9.0",
    "driver": "13.0",
    "onnx_sha256": "cd" * 32,
    "settings": Settings(opt_level=4),
}

OTHER_SETTINGS: dict[str, Any] = {
    "profiles": (Profile(1, 2, 3),),
    "tf32": True,
    "opt_level": 2,
    "workspace_bytes": 1 << 30,
    "hardware_compat": "ampere+",
    "version_compat": True,
    "strip_weights": True,
    "targets": ("8.6",),
    "aux_streams": 0,
    "tiling": "full",
    "avg_timing": 4,
    "sparse_weights": True,
    "refit": True,
}


def _silent(reason: Reason) -> None:
    raise AssertionError(f"told for no reason: {reason}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where engines are kept; not made yet."""
    return tmp_path / "cache" / "engines"


def test_the_same_key_has_the_same_digest() -> None:
    assert KEY.digest == replace(KEY).digest
    assert len(KEY.digest) == 64


@pytest.mark.parametrize("field", [field.name for field in fields(Key)])
def test_every_field_makes_another_key(field: str) -> None:
    assert replace(KEY, **{field: OTHER[field]}).digest != KEY.digest


@pytest.mark.parametrize("field", [field.name for field in fields(Settings) if field.name != "timing_cache"])
def test_every_setting_makes_another_key(field: str) -> None:
    other = replace(KEY, settings=Settings(**{field: OTHER_SETTINGS[field]}))
    assert other.digest != KEY.digest


def test_the_timing_cache_is_no_part_of_the_key() -> None:
    assert replace(KEY, settings=Settings(timing_cache=Path("x"))).digest == KEY.digest


def test_another_way_of_building_makes_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = KEY.digest
    monkeypatch.setattr(engine_cache, "KEY_VERSION", engine_cache.KEY_VERSION + 1)
    assert KEY.digest != before


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"REXPORT_CACHE": "/a/b", "XDG_CACHE_HOME": "/c", "HOME": "/d"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/d"}, "/c/rexport/engines"),
        ({"HOME": "/d", "REXPORT_CACHE": "", "XDG_CACHE_HOME": ""}, "/d/.cache/rexport/engines"),
    ],
)
def test_the_default_folder(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REXPORT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_folder() == Path(expected)


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("REXPORT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with refuses(ResourceError, "engine-cache-without-home", "set REXPORT_CACHE"):
        default_folder()


def test_an_engine_is_made_once(folder: Path) -> None:
    path = entry(KEY, folder, publish_engine, _silent)
    assert path == folder / f"{KEY.digest}.engine"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def never(_: Path) -> None:
        raise AssertionError("made again")

    assert entry(KEY, folder, never, _silent) == path


def test_another_key_has_its_own(folder: Path) -> None:
    other = replace(KEY, gpu="NVIDIA H200")
    assert entry(KEY, folder, publish_engine, _silent) != entry(other, folder, publish_engine, _silent)


def _spoil_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        _spoil_bit,
        lambda path: path.write_bytes(path.read_bytes()[:8]),
        lambda path: path.write_bytes(b""),
        lambda path: manifest_path(path).unlink(),
        lambda path: manifest_path(path).write_bytes(b"{"),
    ],
    ids=["bit", "cut", "empty", "no manifest", "broken manifest"],
)
def test_a_damaged_engine_is_made_again(spoil: Callable[[Path], object], folder: Path) -> None:
    path = entry(KEY, folder, publish_engine, _silent)
    spoil(path)
    with pytest.raises(RexportError) as caught:
        Artifact.read(path).check_digest()
    reasons: list[Reason] = []
    assert entry(KEY, folder, publish_engine, reasons.append) == path
    (reason,) = reasons
    assert (reason.code, caught.value.what in reason.sentence) == ("engine-cache-damaged", True)
    Artifact.read(path).check_digest()


def test_a_maker_that_fails_leaves_nothing_to_the_next(folder: Path) -> None:
    def fail(target: Path) -> None:
        raise CheckFailedError(f"no parity for {target.name}", code="parity-failed")

    with refuses(CheckFailedError, "parity-failed"):
        entry(KEY, folder, fail, _silent)
    assert not list(folder.glob("*.engine*"))
    assert entry(KEY, folder, publish_engine, _silent).exists()


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.write_bytes(b"vtrt without a manifest")])
def test_a_maker_that_publishes_no_whole_engine_is_found_out(make: Callable[[Path], object], folder: Path) -> None:
    with refuses(IntegrityError, "engine-cache-incomplete"):
        entry(KEY, folder, make, _silent)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720])
def test_a_folder_that_others_can_write_into_is_refused(mode: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with refuses(UnsafeArtifactError, "engine-folder-writable", f"chmod 700 {folder}"):
        entry(KEY, folder, publish_engine, _silent)
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_only_read_is_taken(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert entry(KEY, folder, publish_engine, _silent).exists()


def test_another_users_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with refuses(UnsafeArtifactError, "engine-folder-foreign"):
        entry(KEY, folder, publish_engine, _silent)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refuses(ResourceError, "file-access-failed", "cache engines", os.strerror(errno.ENOTDIR)):
        entry(KEY, tmp_path / "file" / "engines", publish_engine, _silent)


def test_a_lock_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    (folder / f".{KEY.digest}.lock").symlink_to(tmp_path / "elsewhere")
    with refuses(ResourceError, "file-access-failed", "lock"):
        entry(KEY, folder, publish_engine, _silent)
    assert not (tmp_path / "elsewhere").exists()


def test_threads_take_turns_and_say_whom_they_wait_for(folder: Path) -> None:
    made: list[int] = []
    said: list[Reason] = []
    all_wait = threading.Event()

    def make(path: Path) -> None:
        made.append(threading.get_ident())
        all_wait.wait(30)
        publish_engine(path)

    def tell(reason: Reason) -> None:
        said.append(reason)
        if len(said) == 7:
            all_wait.set()

    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(entry(KEY, folder, make, tell))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 1
    assert len(set(paths)) == 1
    assert len(paths) == 8
    assert [reason.code for reason in said] == ["engine-build-awaited"] * 7
    assert all(str(os.getpid()) in reason.sentence.split() for reason in said)


@contextlib.contextmanager
def _askers(count: int, mode: str, folder: Path, onnx: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that ask for the same engine from the same moment on; what is left of them is killed."""
    command = [sys.executable, "-m", "tests.runtimes.backends.tensorrt.cached", str(folder), str(onnx), mode]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, cwd=REPO, text=True, **pipes) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _wait_for_content(path: Path) -> str:
    """The content of a file that another process is about to write."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} was never written"
        time.sleep(0.01)
    return path.read_text()


def _outputs_of(processes: list[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """What the processes said on stdout and stderr; none waits for ever."""
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), results
    return results


def test_eight_builders_of_one_key_of_whom_one_is_killed(folder: Path, tmp_path: Path, onnx_artifact: Artifact) -> None:
    with _askers(8, "stuck", folder, onnx_artifact.path) as processes:
        first = int(_wait_for_content(tmp_path / "cache" / "makers").split()[0])
        killed = next(process for process in processes if process.pid == first)
        _wait_for_half_a_file(folder)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        results = _outputs_of([process for process in processes if process is not killed])
    path = folder / f"{KEY.digest}.engine"
    assert [out for out, _ in results] == [f"{path}\n"] * 7
    assert len((tmp_path / "cache" / "makers").read_text().split()) == 2
    artifact = Artifact.read(path)
    artifact.check_digest()
    assert path.stat().st_size > 200_000
    assert sorted(place.name for place in folder.iterdir()) == sorted([path.name, manifest_path(path).name])


def _wait_for_half_a_file(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(folder.glob(".*.tmp")):
        assert time.monotonic() < deadline  # else the first maker wrote nothing
        time.sleep(0.01)


def test_without_turns_all_would_build(folder: Path, tmp_path: Path, onnx_artifact: Artifact) -> None:
    """The count of makers tells a cache without a lock from one with it. Some of them find their engine broken."""
    with _askers(3, "unlocked", folder, onnx_artifact.path) as processes:
        for process in processes:
            process.communicate(timeout=120)
    assert len((tmp_path / "cache" / "makers").read_text().split()) > 1


def test_a_child_of_a_dead_builder_holds_nobody_up(folder: Path, tmp_path: Path, onnx_artifact: Artifact) -> None:
    with _askers(1, "forking", folder, onnx_artifact.path) as processes:
        child = int(_wait_for_content(tmp_path / "cache" / "child"))
        try:
            processes[0].kill()
            processes[0].wait()
            os.kill(child, 0)  # it lives
            waiter = threading.Thread(target=entry, args=(KEY, folder, publish_engine, _silent), daemon=True)
            waiter.start()
            waiter.join(60)
            assert not waiter.is_alive()
        finally:
            os.kill(child, signal.SIGKILL)
