"""``rexport label`` on the command line: its output, its exit codes, and that a kill at any moment loses nothing."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from exporter.cli import main
from runtimes.labelling.parts import part_name
from tests.conftest import FakeFactory
from tests.exporter.command_line import LIMIT_S, environment, here
from tests.processes import default_interrupt
from tests.refusals import error_codes
from tests.runtimes.labelling.jobs import digests, slow, write_images

COMMAND = (sys.executable, "-m", "exporter.cli", "label")


def start(*arguments: str | Path, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    """Starts the command, with a limit for the size of its files if asked."""

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    with default_interrupt():
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
        )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Waits for the command."""
    out, errors = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in errors, errors
    return process.returncode, out, errors


def wait_for_part(out: Path, number: int, process: subprocess.Popen[str]) -> None:
    """Waits until a part is written."""
    limit_s = time.monotonic() + LIMIT_S
    while not (out / part_name(number)).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit_s
        time.sleep(0.01)


def job(source: Path, artifact: Path, out: Path, *options: str) -> Sequence[str | Path]:
    """The arguments of a job of small shards."""
    return source, "--artifact", artifact, "-o", out, "--shard", "10", "--batch", "5", "--threads", "1", *options


def test_the_result_is_the_folder_and_the_accuracy(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 24, ("class 9", "class 1", "class 0"))
    (source / "class 9" / "broken.png").write_bytes(b"broken")
    arguments = job(source, fake_artifact().path, tmp_path / "out")
    done = here(main, "label", *arguments, "--evaluate", "--top", "3")
    assert done.code == 0
    assert done.stdout.splitlines()[0] == str(tmp_path / "out")
    assert done.stdout.splitlines()[1].startswith("top-1 accuracy ")
    assert "24 images" in done.stdout
    assert "[images-without-label]" in done.stderr
    again = here(main, "label", *arguments, "--evaluate", "--top", "3", "--json")
    facts = json.loads(again.stdout)
    assert (facts["images"], facts["errors"], facts["executed_images"]) == (25, {"image-format-unknown": 1}, 0)
    assert facts["top1"]["low"] < facts["top1"]["value"] < facts["top1"]["high"]
    assert facts["top1"]["images"] == 24
    assert here(main, "label", *arguments).code == 4


def test_classes_that_are_not_known_are_refused_first(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 3, (".",))
    refused = here(main, "label", *job(source, fake_artifact().path, tmp_path / "out"), "--evaluate")
    assert (refused.code, error_codes(refused.stderr)) == (4, ["image-class-unknown"])
    assert not (tmp_path / "out" / part_name(0)).exists()


def test_classes_that_do_not_fit_are_refused_before_the_work(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 30, ("a", "b"))  # two classes, and the network has ten
    refused = here(main, "label", *job(source, fake_artifact().path, tmp_path / "out"), "--evaluate")
    assert (refused.code, error_codes(refused.stderr)) == (4, ["class-count-mismatch"])
    assert not list((tmp_path / "out").glob("part-*"))
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_parts_of_a_dataset_that_count_together_are_named(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    parts = [f"{part}/class {number}" for part in ("train", "test") for number in range(2)]
    source = write_images(tmp_path / "photos", 8, tuple(parts))
    done = here(main, "label", *job(source, fake_artifact().path, tmp_path / "out"), "--evaluate")
    assert "8 images" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "[dataset-parts-together]" in line]
    assert f"rexport label {source}/test" in line


@pytest.mark.parametrize("wrong", [("--backend", "tensorrt"), ("--evaluate",)])
def test_a_job_that_fails_before_its_first_part_may_begin_again(
    fake_artifact: FakeFactory, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    source = write_images(tmp_path / "photos", 3, (".",))
    command = job(source, fake_artifact().path, tmp_path / "out")
    assert here(main, "label", *command, *wrong).code in (2, 4)
    assert not (tmp_path / "out").exists()
    assert here(main, "label", *command, "--top", "2").code == 0
    assert len(list((tmp_path / "out" / "_listing").iterdir())) == 1


def test_a_refused_job_leaves_what_others_wrote(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 3, (".",))
    foreign = tmp_path / "out" / "_listing" / "00000-0123456789abcdef.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"of another job")
    assert here(main, "label", *job(source, fake_artifact().path, tmp_path / "out"), "--evaluate").code == 4
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [foreign]


@pytest.mark.parametrize("text", ["x", "-1", "101%", "1.5", "%", "nan%"])
def test_a_wrong_limit_of_errors_is_a_usage_error(text: str, tmp_path: Path) -> None:
    refused = here(main, "label", *job(tmp_path, tmp_path, tmp_path / "out"), "--max-errors", text)
    assert (refused.code, error_codes(refused.stderr)) == (2, ["usage"])


def test_a_broken_share_of_images_ends_with_1(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 8)
    for number in range(2):
        (source / f"{number}.png").write_bytes(b"broken")
    arguments = job(source, fake_artifact().path, tmp_path / "out")
    ended = here(main, "label", *arguments)
    assert (ended.code, ended.stdout, error_codes(ended.stderr)) == (1, "", ["too-many-errors"])
    assert here(main, "label", *arguments, "--max-errors", "2").code == 0


def test_killed_drivers_lose_nothing(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    """SIGKILL at random moments, each time the same command again."""
    source = write_images(tmp_path / "photos", 60)
    arguments = job(source, fake_artifact(slow(0.02)).path, tmp_path / "out")
    moments = random.Random(0)
    for number in range(3):
        process = start(*arguments)
        wait_for_part(tmp_path / "out", number, process)
        time.sleep(moments.random() * 0.05)  # the moment is the point of the test, not a wait for something
        process.kill()
        process.communicate()
    assert finish(start(*arguments))[0] == 0
    _assert_as_undisturbed(arguments, tmp_path)


def _assert_as_undisturbed(arguments: Sequence[str | Path], folder: Path) -> None:
    undisturbed = [folder / "whole" if argument == folder / "out" else argument for argument in arguments]
    assert here(main, "label", *undisturbed).code == 0
    assert digests(folder / "out") == digests(folder / "whole")


def test_two_drivers_on_one_output_write_the_same_bytes(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 60)
    arguments = job(source, fake_artifact(slow(0.02)).path, tmp_path / "out")
    drivers = [start(*arguments), start(*arguments)]
    assert [finish(driver)[0] for driver in drivers] == [0, 0]
    _assert_as_undisturbed(arguments, tmp_path)


def test_an_interrupt_ends_with_130_and_the_job_continues(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 60)
    arguments = job(source, fake_artifact(slow(0.3)).path, tmp_path / "out", "--workers", "2")
    process = start(*arguments)
    wait_for_part(tmp_path / "out", 0, process)
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    assert (code, out) == (130, "")
    assert here(main, "label", *arguments).code == 0


def test_a_full_disk_ends_with_6_and_the_job_continues(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 60), fake_artifact().path
    arguments = job(source, artifact, tmp_path / "out", "--shard", "30", "--top", "10")
    assert here(main, "label", *job(source, artifact, tmp_path / "whole", "--shard", "30", "--top", "10")).code == 0
    size_bytes = (tmp_path / "whole" / part_name(0)).stat().st_size
    code, _, errors = finish(start(*arguments, limit_bytes=size_bytes - 1))
    assert (code, error_codes(errors)) == (6, ["file-access-failed"])
    assert sorted(os.listdir(tmp_path / "out")) == ["_job.json", "_listing"]
    assert here(main, "label", *arguments).code == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
