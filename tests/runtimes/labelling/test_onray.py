"""Workers on a real Ray cluster of this machine: their labels, deaths, errors, and what they wait for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes.errors import ArtifactError, BackendUnavailableError, CheckFailedError, CompatibilityError
from runtimes.labelling import onray
from runtimes.labelling.driver import JobProgress
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.onray import RayExecutor
from runtimes.labelling.rayaddress import RayAddress
from runtimes.labelling.raycluster import RaySettings, connect
from runtimes.labelling.work import WorkerSettings
from scripts.figures.process_tree import descendants
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import digests, request, run, slow, write_images

LOCAL = RayAddress(None, None, local=True)

CRASH = """
import os, sys

def crash(event, arguments):
    if event == "open" and "deadly" in str(arguments[0]):
        os.abort()

sys.addaudithook(crash)
"""
"""A fault of native code, in every process of the cluster: a file whose name holds "deadly" is a crash."""


@pytest.fixture(scope="module", autouse=True)
def earlier_sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[frozenset[str]]:
    """A cluster for two workers. The driver's process does not crash, as it does not load ``sitecustomize`` again.

    Gives the sockets that this process, and those that other tests have started, had before.
    """
    earlier = [os.getpid(), *descendants(os.getpid())]
    before = frozenset(inode for pid in earlier for inode in sockets(pid))
    hooks = tmp_path_factory.mktemp("hooks")
    (hooks / "sitecustomize.py").write_text(CRASH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{hooks}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        with connect(RaySettings(LOCAL, 2), 1):
            yield before


def two(settings: WorkerSettings) -> RayExecutor:
    return RayExecutor.start(settings, RaySettings(LOCAL, 2))


def actors() -> list[int]:
    """The processes of the workers that are labelling."""
    below = descendants(os.getpid())
    return sorted(pid for pid, command in below.items() if command.startswith("ray::LabellingActor.label"))


def test_labels_are_those_of_one_process(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 55), fake_artifact().path
    (source / "bee" / "cut.png").write_bytes((source / "bee" / "0001.png").read_bytes()[:60])
    run(request(source, artifact, tmp_path / "whole"))
    result = run(request(source, artifact, tmp_path / "out"), two)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert (result.progress.executed, result.progress.deaths) == (56, 0)
    assert run(request(source, artifact, tmp_path / "out"), two).progress.executed == 0


def test_a_killed_worker_loses_nothing(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 60), fake_artifact(slow(0.05)).path
    run(request(source, artifact, tmp_path / "whole"))
    killed: list[int] = []

    def kill(_: LabellingJob, progress: JobProgress) -> None:
        if progress.images >= 10 and not killed and (busy := actors()):
            os.kill(busy[0], signal.SIGKILL)
            killed.append(busy[0])

    result = run(request(source, artifact, tmp_path / "out"), two, kill)
    assert len(killed) == result.progress.deaths == 1
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_workers_that_never_open_end_the_job(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 7), fake_artifact(name="deadly.fake").path
    with refuses(BackendUnavailableError, "ray-workers-die", 3):
        run(request(source, artifact, tmp_path / "out"), lambda settings: start(settings, workers=1))


def start(settings: WorkerSettings, workers: int, gpus: float = 0) -> RayExecutor:
    return RayExecutor.start(settings, RaySettings(LOCAL, workers, gpus))


RAY_SAYS = {
    "lost": "The actor died because its node has died. Node Id: 96",
    "memory": "Task was killed due to the node running low on memory.",
    "No module 'x'": "error raised in its creation task\n\nModuleNotFoundError: No module 'x'\n",
    "unexpectedly": "The actor is dead because its worker process has died. Worker ID: 07",
}
"""What Ray writes about a death, by the last words of the cause that is printed."""


@pytest.mark.parametrize("cause", RAY_SAYS)
def test_the_cause_of_a_death_has_no_ids(cause: str) -> None:
    assert onray._reason(RuntimeError(RAY_SAYS[cause])).endswith(cause)


def test_a_stalled_job_names_what_is_wanted(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 7), fake_artifact().path
    asked = request(source, artifact, tmp_path / "out", stall_s=1.0)
    with refuses(CheckFailedError, "labelling-stalled", "needs 1 CPU and 0.5 GPUs", "has 2 CPUs and 0 GPUs"):
        run(asked, lambda settings: start(settings, workers=3, gpus=0.5))


def test_an_error_of_a_worker_is_that_of_the_job(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 7), fake_artifact().path

    def spoil(settings: WorkerSettings) -> RayExecutor:
        artifact.write_bytes(artifact.read_bytes() + b" ")
        return start(settings, workers=1)

    with pytest.raises(ArtifactError) as caught:
        run(request(source, artifact, tmp_path / "out"), spoil)
    assert (caught.value.code, caught.value.path) == ("file-digest-mismatch", artifact)


def test_another_version_on_a_node_is_refused(
    fake_artifact: FakeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, artifact = write_images(tmp_path / "photos", 7), fake_artifact().path
    monkeypatch.setattr(onray, "version", lambda _: "0.0.7")
    with refuses(CompatibilityError, "ray-worker-version", "0.0.7"):
        run(request(source, artifact, tmp_path / "out"), lambda settings: start(settings, workers=1))


LISTENING = 4
"""The fewest programs of a local cluster that listen. Ray starts its agents after the call that starts the cluster."""

START_S = 60.0


def test_a_local_cluster_listens_on_loopback_alone(earlier_sockets: frozenset[str]) -> None:
    end = time.monotonic() + START_S
    while len(listening := listening_sockets(earlier_sockets)) < LISTENING and time.monotonic() < end:
        time.sleep(0.1)
    assert len(listening) >= LISTENING
    assert {pair for pair in listening if pair[0] not in ("0100007F", "0000000000000000FFFF00000100007F")} == set()


def listening_sockets(earlier: frozenset[str]) -> set[tuple[str, str]]:
    """The addresses on which this process and its children listen, with commands, without the ``earlier`` sockets."""
    processes = {os.getpid(): "this process"} | descendants(os.getpid())
    owners = {inode: command for pid, command in processes.items() for inode in sockets(pid)}
    return {
        (address, owners[inode]) for inode, address in listeners().items() if inode in owners and inode not in earlier
    }


def sockets(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets."""
    try:
        names = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended
        return
    yield from (name.removeprefix("socket:[").removesuffix("]") for name in names if name.startswith("socket:["))


def listeners() -> dict[str, str]:
    """The local address of each listening TCP socket by its inode, as the kernel writes them."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A":
                found[columns[9]] = columns[1].partition(":")[0]
    return found
