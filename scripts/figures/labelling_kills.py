"""Kills at random moments while ``rexport label`` works on Ray, and the output after the same command has run again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.figures.labelled_images import export_bundled, write_images
from scripts.figures.process_tree import descendants
from scripts.figures.setting import Figure, FigureSettings, console_script

SHARD, IMAGES, WORKERS, KILLS = 64, 4096, 2, 30
KINDS = (["worker", "driver", "raylet"], ["raylet", "worker", "driver"], ["driver", "worker", "worker", "raylet"])
"""The kills of a job. A job whose last raylet dies may still finish with the workers that it has."""

PROCESS_KINDS = (["process", "driver"], ["driver", "process", "driver"])
"""The kills of a job without Ray."""

SURVIVED = ("worker", "process")
"""The kills after which the command goes on."""

LIMIT_S = 300.0
"""The longest time that a run may take to reach a moment or to end."""

TRACE = """
import os, sys
_images, _trace = os.environ["TRACED_IMAGES"], os.open(os.environ["TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def _record(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        path = os.fsdecode(arguments[0])
        if path.startswith(_images):
            os.write(_trace, (os.path.basename(path) + chr(10)).encode())

sys.addaudithook(_record)
"""
"""Python's audit hook, which every process of a run installs at its start: a line for each image that is opened."""


@dataclass(frozen=True)
class Trace:
    """What the processes of a job record: the images that they opened.

    Attributes:
        folder: The folder of the record and of the hook.
        images: The folder of the images.
    """

    folder: Path
    images: Path

    def environment(self) -> dict[str, str]:
        """The variables that a process needs to record, as do those that it starts."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "sitecustomize.py").write_text(TRACE)
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        return {"PYTHONPATH": path, "TRACE": str(self.record), "TRACED_IMAGES": f"{self.images}/"}

    @property
    def record(self) -> Path:
        return self.folder / "trace"


@dataclass
class TracedJob:
    """A labelling job in a folder of its own, whose processes record each image that they open."""

    folder: Path
    trace: Trace
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._environment = os.environ | self.trace.environment() | self.environment
        self.trace.record.write_bytes(b"")

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "stderr").open("ab") as stderr:
            return subprocess.Popen(
                [*self.command, "-o", str(self.out)],
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def opened(self) -> int:
        """How many images were opened by now; each line of the trace has the same length."""
        return self.trace.record.stat().st_size // len("00000.png\n")

    def files(self) -> dict[str, str]:
        """The digests of all files of the output, temporary ones included."""
        return {
            str(path.relative_to(self.out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.out.rglob("*"))
            if path.is_file()
        }

    def repeated_shards(self) -> float:
        """The images that were opened again, in shards."""
        return (self.opened() - IMAGES) / SHARD

    def await_opened(self, count: int, process: subprocess.Popen[bytes]) -> bool:
        """Wait until so many images were opened. Whether that was before the end of the process."""
        end = time.monotonic() + LIMIT_S
        while self.opened() < count and process.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.opened()} of {count} images were opened in {LIMIT_S:g} s: {self.errors()}")
            time.sleep(0.002)
        return process.poll() is None

    def errors(self) -> str:
        return (self.folder / "stderr").read_text()[-2000:]


def kill_once(job: TracedJob, kind: str, chance: random.Random, process: subprocess.Popen[bytes]) -> bool:
    """Kill a process of a run at a random moment of its work. Whether there was one to kill."""
    if not job.await_opened(job.opened() + chance.randrange(1, IMAGES // 4), process):
        return False
    if kind == "driver":
        process.kill()
        return True
    mark = {"worker": "ray::LabellingActor", "raylet": "/raylet/raylet ", "process": "runtimes.labelling.worker"}[kind]
    below = [pid for pid, command in descendants(process.pid).items() if mark in command.partition("--")[0]]
    if not below:
        return False
    os.kill(chance.choice(below), signal.SIGKILL)
    return True


def run_with_kills(job: TracedJob, kinds: list[str], chance: random.Random) -> list[str]:
    """Run the command until it ends well, with these kills on the way. Returns the kills that took place."""
    killed: list[str] = []
    for _ in range(len(kinds) + 1):
        process = job.start()
        while len(killed) < len(kinds) and kill_once(job, kind := kinds[len(killed)], chance, process):
            killed.append(kind)
            if kind not in SURVIVED:
                break
        code = process.wait(LIMIT_S)
        if code == 0:
            return killed
        if not killed or killed[-1] in SURVIVED:
            raise RuntimeError(f"the command ended with {code}: {job.errors()}")
    raise RuntimeError(f"the command did not end after its last kill: {job.errors()}")


def label_command(images: Path, artifact: Path, ray: str | None) -> tuple[str, ...]:
    options = ("--workers", str(WORKERS), "--threads", "1", "--shard", str(SHARD), "--stall", "120")
    place = () if ray is None else ("--ray", ray)
    return (console_script("rexport"), "label", str(images), "--artifact", str(artifact), *options, *place)


def differences(job: TracedJob, expected: dict[str, str], rows: list[dict[str, Any]]) -> tuple[int, int, int, int]:
    """The rows that are lost, doubled or different, and the files that differ or are left over."""
    found = output_rows(job.out)
    counts = Counter(row["uri"] for row in found)
    right = {row["uri"]: row for row in rows}
    lost = len(right.keys() - counts.keys())
    doubled = sum(count - 1 for count in counts.values())
    different = sum(row != right.get(row["uri"]) for row in found)
    files = job.files()
    return lost, doubled, different, sum(files.get(name) != expected.get(name) for name in files.keys() | expected)


def output_rows(out: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return [row for path in sorted(out.glob("part-*")) for row in pyarrow.parquet.read_table(path).to_pylist()]


def measure_kills(setting: FigureSettings) -> Iterator[Figure]:
    """Workers, raylets and drivers on a local cluster, then nodes of a cluster of three."""
    artifact, images = export_bundled(setting.folder), write_images(setting.folder, IMAGES)
    trace = Trace(setting.folder / "trace", images)
    calm = TracedJob(setting.folder / "calm", trace, label_command(images, artifact, "local"))
    if calm.start().wait(LIMIT_S):
        raise RuntimeError(calm.errors())
    kills = setting.limit or KILLS

    def local(number: int, chance: random.Random) -> tuple[TracedJob, list[str]]:
        job = TracedJob(setting.folder / f"local{number}", trace, label_command(images, artifact, "local"))
        return job, run_with_kills(job, KINDS[number % len(KINDS)], chance)

    yield _summary("kills of worker, raylet and driver", calm, kills, local)
    with Nodes(Trace(setting.folder / "nodes", images)) as nodes:

        def clustered(number: int, chance: random.Random) -> tuple[TracedJob, list[str]]:
            return nodes.run_with_kill(setting.folder / f"nodes{number}", artifact, chance)

        yield _summary("kills of one of 3 nodes", calm, max(1, kills // 5), clustered)


def measure_process_kills(setting: FigureSettings) -> Iterator[Figure]:
    """Worker processes and drivers, without Ray."""
    artifact, images = export_bundled(setting.folder), write_images(setting.folder, IMAGES)
    trace = Trace(setting.folder / "trace", images)
    command = label_command(images, artifact, None)
    calm = TracedJob(setting.folder / "calm", trace, command)
    if calm.start().wait(LIMIT_S):
        raise RuntimeError(calm.errors())

    def disturb(number: int, chance: random.Random) -> tuple[TracedJob, list[str]]:
        job = TracedJob(setting.folder / f"job{number}", trace, command)
        return job, run_with_kills(job, PROCESS_KINDS[number % len(PROCESS_KINDS)], chance)

    yield _summary("kills of worker process and driver, without Ray", calm, setting.limit or KILLS, disturb)


def _summary(
    name: str, calm: TracedJob, kills: int, run: Callable[[int, random.Random], tuple[TracedJob, list[str]]]
) -> Figure:
    """Disturb one job after the other until there were so many kills."""
    expected, rows = calm.files(), output_rows(calm.out)
    killed, repeated, notes, wrong = Counter[str](), 0.0, list[str](), Counter[str]()
    while killed.total() < kills and len(notes) < 2 * kills:
        job, kinds = run(len(notes), random.Random(len(notes)))
        killed.update(kinds)
        repeated += job.repeated_shards()
        for what, count in zip(
            ("lost", "doubled", "different", "files"), differences(job, expected, rows), strict=True
        ):
            wrong[what] += count
        notes.append(f"job {len(notes)}: {', '.join(kinds) or 'no kill'}; {job.repeated_shards():.2f} shards repeated")
    each = repeated / max(1, killed.total())
    value = (
        f"{killed.total()} kills ({', '.join(f'{count} {kind}' for kind, count in sorted(killed.items()))}) in "
        f"{len(notes)} jobs of {len(rows):,} rows: {wrong['lost']} lost, {wrong['doubled']} doubled, "
        f"{wrong['different']} different, {wrong['files']} files differ; {each:.2f} shards repeated a kill"
    )
    holds = killed.total() >= kills and not wrong.total() and 0 <= each <= 1
    return Figure(name, value, "0, 0, 0, 0, <= 1 shard", holds, tuple(notes))


class Nodes:
    """Three raylets of one CPU each and a head without any, on the loopback address of this machine.

    Their workers have the variables of the raylets, so all jobs share one trace.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._environment = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": hashlib.sha256(os.urandom(32)).hexdigest(),
        }

    def __enter__(self) -> Nodes:
        before = dict(os.environ)
        os.environ.update(self._environment | self._trace.environment())  # Ray reads them while it is imported
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._add() for _ in range(3)]
        self._before = before
        return self

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=96 << 20)

    def run_with_kill(self, folder: Path, artifact: Path, chance: random.Random) -> tuple[TracedJob, list[str]]:
        """Run a job with a node killed on the way. Another node takes its place."""
        command = label_command(self._trace.images, artifact, self._cluster.address)
        job = TracedJob(folder, self._trace, command, self._environment)
        process, killed = job.start(), list[str]()
        if job.await_opened(chance.randrange(1, IMAGES // 2), process):
            node = self._nodes.pop(chance.randrange(len(self._nodes)))
            raylet = node.all_processes["raylet"][0].process.pid
            for pid in (raylet, *descendants(raylet)):  # all that a machine without power loses
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.append("node")
            self._nodes.append(self._add())
        if process.wait(LIMIT_S):
            raise RuntimeError(job.errors())
        return job, killed

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()
        os.environ.clear()
        os.environ.update(self._before)
