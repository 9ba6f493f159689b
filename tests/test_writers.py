"""What every writer has to hold: only regular files are replaced, and only when that was asked for."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.commands import outputs
from benchmarks.compare.merge import merge
from exporter.export_request import ExportRequest, target_file
from exporter.inspect.overlay import write_picture
from exporter.models.variants import variant
from exporter.targets import onnx_file, publish, torch_program
from runtimes import Artifact, codec, files
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.artifact import publish as publish_artifact
from runtimes.backends.fake import Script
from runtimes.backends.tensorrt import engine_cache
from runtimes.errors import Reason, ResourceError, RexportError, UsageError
from tests.conftest import SILENT, FakeFactory
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cached import KEY
from tests.samples import SCRIPT, WIDER, manifest_for, publish_script

PICTURE = Image.fromarray(np.zeros((2, 2, 3), np.uint8))

Writer = Callable[[Path], object]


def _publish(target: Path, script: Script = SCRIPT) -> None:
    with files.temporary_file(target) as model:
        model.write_text(codec.dumps(script), encoding="utf-8")
        publish_artifact(model, target, manifest_for(script, model, None), None)


def _export(path: Path) -> None:
    with target_file(str(path), "", force=True):
        pass


WRITERS: dict[str, Writer] = {
    "a model": _publish,
    "a report": lambda path: outputs.put(path, "text"),
    "merged results": lambda path: merge([], path, force=True),
    "a picture": lambda path: write_picture(path, PICTURE),
    "an export": _export,
}


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


PLANTS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": _device,
    "a link to a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("writer", WRITERS)
def test_only_regular_files_are_replaced(tmp_path: Path, writer: str, plant: str) -> None:
    if plant == "a device" and os.geteuid() != 0:
        pytest.skip("only root makes a device")
    target = tmp_path / "net.fake"
    PLANTS[plant](target)
    before = target.lstat()
    with refuses(ResourceError, "target-not-regular", "net.fake"):
        WRITERS[writer](target)
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert os.listdir(tmp_path) == ["net.fake"]


def test_the_check_comes_again_before_the_rename(tmp_path: Path) -> None:
    target = tmp_path / "report.md"
    with refuses(ResourceError, "target-not-regular"), files.write_atomically(target) as temporary:
        temporary.write_text("new")
        os.mkfifo(target)
    assert stat.S_ISFIFO(target.stat().st_mode)


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "all.jsonl"
    with refuses(UsageError, "target-exists"), files.write_atomically(target, replace=False) as temporary:
        temporary.write_text("new")
        target.write_text("a stranger's")
    assert target.read_text() == "a stranger's"
    assert os.listdir(tmp_path) == ["all.jsonl"]


def test_without_hard_links_it_stays_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with files.write_atomically(tmp_path / "a", replace=False) as temporary:
        temporary.write_text("new")
    with refuses(UsageError, "target-exists"), files.write_atomically(tmp_path / "a", replace=False) as temporary:
        temporary.write_text("newer")
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("stranger", ["net", "net.json"])
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_an_export_loses_no_file_of_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, stranger: str
) -> None:
    target = tmp_path / f"net{suffix}"
    foreign = target if stranger == "net" else manifest_path(target)
    finish = publish.finish

    def finish_late(*arguments: object) -> Artifact:
        foreign.write_text("a stranger's")
        return finish(*arguments)  # type: ignore[arg-type]

    module = onnx_file if suffix == ".onnx" else torch_program
    monkeypatch.setattr(module, "finish", finish_late)
    with refuses(UsageError, "target-exists", foreign.name):
        module.export(ExportRequest(variant("resnet20"), str(target)), SILENT)
    assert os.listdir(tmp_path) == [foreign.name]
    assert foreign.read_text() == "a stranger's"


def test_a_manifest_alone_is_seen_before_the_work(tmp_path: Path) -> None:
    manifest_path(tmp_path / "net.onnx").write_text("{}")
    with (
        refuses(UsageError, "target-exists", "net.onnx.json"),
        target_file(str(tmp_path / "net.onnx"), "", force=False),
    ):
        pass


def test_one_of_several_exports_at_once_succeeds(tmp_path: Path, fake_artifact: FakeFactory) -> None:
    source, outcomes = fake_artifact(), list[str]()
    manifest = source.manifest
    assert manifest is not None
    start = threading.Barrier(4)

    def export(number: int) -> None:
        model = tmp_path / f"temporary{number}"
        model.write_bytes(source.path.read_bytes())
        start.wait()
        try:
            publish_artifact(model, tmp_path / "net.fake", manifest, None, False)
            outcomes.append("done")
        except RexportError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=export, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done", "target-exists", "target-exists", "target-exists"]


def test_a_strangers_lock_is_named_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(files, "_ANNOUNCED_WAIT_S", 0.05)
    monkeypatch.setattr(logging.getLogger("rexport"), "info", lambda *_, extra: said.append(extra["code"]))
    code = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(tmp_path / files.LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with refuses(ResourceError, "folder-locked", f"process {holder.pid}"), files.folder_lock(tmp_path, 0.3):
            pass
        holder.kill()
    assert said == ["lock-awaited"]
    with files.folder_lock(tmp_path, 0.1):
        assert (tmp_path / files.LOCK).stat().st_mode & 0o077 == 0
    assert os.listdir(tmp_path) == []


def test_who_reads_the_folder_locks_nobody_out(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with files.folder_lock(tmp_path, 0.1):
            pass
    finally:
        os.close(descriptor)


def test_only_one_thread_holds_the_lock(tmp_path: Path) -> None:
    inside, most, guard = 0, 0, threading.Lock()

    def hold() -> None:
        nonlocal inside, most
        for _ in range(25):
            with files.folder_lock(tmp_path):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_left_over_of_nobody_blocks_nothing(tmp_path: Path) -> None:
    left_over = tmp_path / ".net.onnx.99999999999999999999-00000000.tmp"
    left_over.touch()
    with files.write_atomically(tmp_path / "net.onnx") as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_a_probe_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, _: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)
    with refuses(ResourceError, "file-access-failed", "No space left"):
        files.check_writable(tmp_path)
    assert os.listdir(tmp_path) == []


def test_who_waits_for_an_engine_gives_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Reason] = []
    monkeypatch.setattr(files, "_ANNOUNCED_WAIT_S", 0.05)
    monkeypatch.setattr(files, "LONG_PATIENCE_S", 0.3)
    (tmp_path / "engines").mkdir(mode=0o700)
    descriptor = os.open(tmp_path / "engines" / f".{KEY.digest}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with refuses(ResourceError, "folder-locked", f"process {os.getpid()}"):
            engine_cache.entry(KEY, tmp_path / "engines", lambda _: None, said.append)
    finally:
        os.close(descriptor)
    assert [reason.code for reason in said] == ["engine-build-awaited"]


STRANGE_NAMES = (
    ".net.onnx.99999999999999999999-00000000.tmp",
    ".net.onnx.0-00000000.tmp",
    ".net.onnx.4194304999-00000000.tmp",
    ".net.onnx.\u0663-00000000.tmp",
    ".net.onnx.1-0000000g.tmp",
    ".net.onnx.-1-00000000.tmp",
    ".net.onnx." + "9" * 200 + "-00000000.tmp",
    os.fsdecode(b".net.onnx.\xff-00000000.tmp"),
    "..tmp",
    "net\n.onnx",
)


@pytest.mark.parametrize("kind", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_no_name_in_a_folder_breaks_a_write(tmp_path: Path, kind: Callable[[Path], object]) -> None:
    for name in STRANGE_NAMES:
        kind(tmp_path / name)
    with files.write_atomically(tmp_path / "net.onnx") as temporary:
        temporary.write_text("new")
    _publish(tmp_path / "net.fake")
    assert (tmp_path / "net.onnx").read_text() == "new"


def test_a_left_over_goes_whatever_its_target_is_named(tmp_path: Path) -> None:
    target = tmp_path / "two\nlines"
    left_over = tmp_path / f".{target.name}.4194304999-00000000.tmp"
    left_over.touch()
    with files.write_atomically(target) as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [target.name]


def test_an_error_names_the_file_and_no_temporary_one(tmp_path: Path) -> None:
    def fail() -> None:
        with files.write_atomically(tmp_path / "net.onnx") as temporary:
            raise ResourceError(f"{temporary} is full", code="stated", path=temporary, hint=f"df {temporary}")

    with refuses(ResourceError, "stated", str(tmp_path / "net.onnx")) as caught:
        fail()
    assert ".tmp" not in str(caught.value)


def test_an_interrupt_settles_a_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_script(tmp_path / "net.fake")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = os.replace

    def interrupt(source: Path, target: Path) -> None:
        if Path(target).name == "net.fake":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _publish(tmp_path / "net.fake", WIDER)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before
