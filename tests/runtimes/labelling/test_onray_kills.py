"""Longer tests on Ray: the command killed in many ways, a node of several lost, and an image that crashes its workers.

They need no environment of their own, and run with those that do, because Ray's processes take tens of seconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.figures.labelled_images import export_bundled, write_images
from scripts.figures.labelling_kills import (
    IMAGES,
    LIMIT_S,
    Nodes,
    Trace,
    TracedJob,
    differences,
    label_command,
    output_rows,
    run_with_kills,
)
from scripts.figures.process_tree import descendants
from tests.processes import default_interrupt
from tests.refusals import error_codes

pytestmark = pytest.mark.peers


class Scene:
    """Images, a model, and an undisturbed job with them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.artifact = folder, export_bundled(folder)
        self.trace = Trace(folder / "trace", write_images(folder, IMAGES))
        self.calm = self.job("calm")
        assert self.calm.start().wait(LIMIT_S) == 0, self.calm.errors()
        self.files, self.rows = self.calm.files(), output_rows(self.calm.out)

    def job(self, name: str) -> TracedJob:
        return TracedJob(self.folder / name, self.trace, label_command(self.trace.images, self.artifact, "local"))

    def differences(self, job: TracedJob) -> tuple[int, int, int, int]:
        return differences(job, self.files, self.rows)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("labelling"))


def test_worker_driver_and_raylet_are_killed(scene: Scene) -> None:
    job = scene.job("killed")
    kinds = ["worker", "driver", "raylet"]
    assert run_with_kills(job, kinds, random.Random(3)) == kinds
    assert scene.differences(job) == (0, 0, 0, 0)
    assert 0 <= job.repeated_shards() <= 1 + 2 + 2  # the shard of a worker, or those of two


def test_a_node_of_three_is_lost(scene: Scene) -> None:
    with Nodes(Trace(scene.folder / "nodes", scene.trace.images)) as nodes:
        job, killed = nodes.run_with_kill(scene.folder / "lost", scene.artifact, random.Random(3))
    assert killed == ["node"]
    assert scene.differences(job) == (0, 0, 0, 0)
    assert 0 <= job.repeated_shards() <= 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_job_and_its_cluster(scene: Scene, number: int, code: int) -> None:
    job = scene.job(f"signal{number}")
    with default_interrupt():
        process = job.start()
    assert job.await_opened(200, process)
    below = [*descendants(process.pid)]
    os.killpg(process.pid, number)  # as a terminal does
    assert process.wait(60) == code
    deadline_s = time.monotonic() + 30
    while left := [pid for pid in below if Path(f"/proc/{pid}").exists()]:  # they end on their own, a moment later
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)
    assert error_codes(job.errors()) == []
    assert "Traceback" not in job.errors()
    assert not list(Path("/tmp").glob(f"rexport-ray-{process.pid}-*"))
    assert job.start().wait(LIMIT_S) == 0
    assert scene.differences(job) == (0, 0, 0, 0)


def test_broken_output_is_seen(scene: Scene, tmp_path: Path) -> None:
    import pyarrow.parquet

    job = TracedJob(tmp_path / "job", scene.trace, ())
    subprocess.run(["cp", "-r", str(scene.calm.out), str(job.out)], check=True)
    assert scene.differences(job) == (0, 0, 0, 0)
    first, second, third = sorted(job.out.glob("part-*"))[:3]
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(first).to_pylist()
    rows[0]["index"] = 99
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), first)
    twice = pyarrow.parquet.read_table(second)
    pyarrow.parquet.write_table(pyarrow.concat_tables([twice, twice]), second)
    third.rename(job.out / ".part.tmp")
    assert scene.differences(job) == (64, 64, 1, 4)


CRASH = """
import os, sys

def crash(event, arguments):
    if event == "open" and "deadly" in str(arguments[0]):
        os.abort()

sys.addaudithook(crash)
"""
"""A fault of native code, in every process of a job: a file whose name holds "deadly" is a crash."""


def test_an_image_that_kills_its_workers_is_one_row(scene: Scene, tmp_path: Path) -> None:
    source, hooks = tmp_path / "photos", tmp_path / "hooks"
    for folder in (source, hooks):
        folder.mkdir()
    (hooks / "sitecustomize.py").write_text(CRASH)
    for number in range(12):
        name = f"{number:05}.png"
        shutil.copy(scene.trace.images / name, source / (f"{number:05}-deadly.png" if number == 5 else name))
    command = label_command(source, scene.artifact, "local")
    path = f"{hooks}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*command, "--shard", "8", "--batch", "4", "--json", "-o", str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["errors"] == {"image-kills-worker": 1}
    assert result["worker_deaths"] > 6  # three of the shard, some of its halves, and three of the image
    found = {row["uri"]: row["index"] for row in output_rows(tmp_path / "out")}
    assert found.pop("00005-deadly.png") is None
    assert found == {row["uri"]: row["index"] for row in scene.rows[:12] if row["uri"] != "00005.png"}
