from __future__ import annotations

import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.paper.training.batches import Data, on_device
from benchmarks.paper.training.loop import Pace, Training, TrainingJob, take_turns
from benchmarks.paper.training.recipe import PAPER, Recipe
from benchmarks.paper.training.run import CHECKPOINT, CURVE, RUN, WEIGHTS, RunIdentity, curve, open_run
from benchmarks.paper.training.step import Arithmetic
from exporter.export_request import ExportListener
from runtimes.errors import ArtifactError, CheckFailedError, CompatibilityError, IntegrityError, UsageError
from tests.benchmarks.paper.corpora import CLASSES, corpus, network
from tests.refusals import refuses

ROOT = Path(__file__).parents[4]

RECIPE = dataclasses.replace(PAPER, iterations=45, batch=16, milestones=(30, 40), learning_rate=0.05)


@pytest.fixture(scope="module")
def data() -> Data:
    return on_device(corpus(train=400), RECIPE, network(), "cpu")  # epochs of 25 updates, strides of 10


def identity(recipe: Recipe = RECIPE, seed: int = 0) -> RunIdentity:
    return RunIdentity(network(), recipe, seed, "0" * 64)


def begin(folder: Path, one: RunIdentity, data: Data, every_s: float = 30.0) -> Training:
    return Training(TrainingJob(folder, one, Arithmetic()), data, Pace(checkpoint_every_s=every_s))


def finish(training: Training) -> Training:
    while not training.complete:
        training.advance()
    training.finish()
    return training


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / WEIGHTS))


@pytest.fixture(scope="module")
def whole(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(begin(folder, identity(), data))
    return folder


def test_a_run_leaves_its_record_its_curve_and_its_weights(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == sorted([RUN, CURVE, WEIGHTS])
    run, points = open_run(whole), curve(whole)
    assert (run.data, run.classes, run.images["train"]) == ("squares", CLASSES, 400)
    assert run.identity == identity()
    assert [point.iteration for point in points] == [25, 45]
    assert [point.learning_rate for point in points] == pytest.approx([0.05, 0.0005])
    assert points[-1].loss < points[0].loss / 2
    assert run.outcome is not None
    assert run.outcome.test_error == points[-1].test_error < 0.3
    assert run.input_share is not None
    assert 0 < run.input_share < 1
    assert run.step_s is not None


def test_the_outcome_is_that_of_the_weights(whole: Path, data: Data) -> None:
    from exporter.models.resnet import build

    model = build(network())
    model.load_state_dict(weights(whole))
    wrong = 0
    with torch.no_grad():
        for images, targets in data.train.crop_centres():
            wrong += int((model(images).argmax(1) != targets).sum())
    outcome = open_run(whole).outcome
    assert outcome is not None
    assert outcome.train_error == wrong / 400


@pytest.mark.parametrize("strides", [1, 2, 4])
def test_a_run_that_was_left_anywhere_ends_in_the_same_bits(
    strides: int, whole: Path, data: Data, tmp_path: Path
) -> None:
    left = begin(tmp_path, identity(), data, 0.0)
    for _ in range(strides):
        left.advance()
    del left
    again = finish(begin(tmp_path, identity(), data))
    first, second = weights(whole), weights(tmp_path)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    steady = [dataclasses.replace(point, elapsed_s=0.0) for point in curve(whole)]
    assert steady == [dataclasses.replace(point, elapsed_s=0.0) for point in again.points]
    assert not (tmp_path / CHECKPOINT).exists()


def test_other_arithmetic_goes_on_and_is_written_down(data: Data, tmp_path: Path) -> None:
    left = begin(tmp_path, identity(), data, 0.0)
    for _ in range(3):
        left.advance()
    bf16 = Arithmetic(precision="bf16")
    finish(Training(TrainingJob(tmp_path, identity(), bf16), data, Pace()))
    assert [(one.since, one.arithmetic) for one in open_run(tmp_path).sittings] == [
        (0, Arithmetic()),
        (left.iteration, bf16),
    ]


def test_the_same_arithmetic_is_one_segment(data: Data, tmp_path: Path) -> None:
    left = begin(tmp_path, identity(), data, 0.0)
    left.advance()
    begin(tmp_path, identity(), data)
    (only,) = open_run(tmp_path).sittings
    assert (only.since, only.threads) == (0, torch.get_num_threads())


def test_a_run_is_named_by_network_option_and_seed() -> None:
    plain, other = network("plain20"), dataclasses.replace(network(), shortcut="B")
    names = [dataclasses.replace(identity(seed=3), variant=row).name for row in (network(), other, plain)]
    assert names == ["resnet20, seed 3", "resnet20 option B, seed 3", "plain20, seed 3"]


def test_another_seed_gives_other_weights(whole: Path, data: Data, tmp_path: Path) -> None:
    finish(begin(tmp_path, identity(seed=1), data))
    assert not torch.equal(weights(tmp_path)["conv1.weight"], weights(whole)["conv1.weight"])


def test_a_finished_run_is_left_as_it_is(whole: Path, data: Data) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    again = begin(whole, identity(), data)
    assert again.finished
    assert again.complete
    again.finish()
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_a_folder_keeps_to_one_run(whole: Path, data: Data) -> None:
    with refuses(UsageError, "folder-of-another-run", "seed 0, not 1"):
        begin(whole, identity(seed=1), data)
    other = dataclasses.replace(RECIPE, iterations=50)
    with refuses(UsageError, "folder-of-another-run", "45 iterations", "50 iterations"):
        begin(whole, identity(other), data)


def test_a_damaged_checkpoint_is_named(data: Data, tmp_path: Path) -> None:
    training = begin(tmp_path, identity(), data)
    training.advance()
    training.checkpoint()
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with refuses(IntegrityError, "checkpoint-damaged", CHECKPOINT):
        begin(tmp_path, identity(), data)


@pytest.mark.parametrize(("name", "reader"), [(RUN, open_run), (CURVE, curve)])
def test_damaged_records_are_named(name: str, reader: object, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"iteration": 1}\n')
    with pytest.raises(ArtifactError, match=name):
        reader(tmp_path)  # type: ignore[operator]


def test_a_run_of_a_newer_version_is_refused(whole: Path, tmp_path: Path) -> None:
    text = (whole / RUN).read_text()
    (tmp_path / RUN).write_text(text.replace('"run": 1', '"run": 2, "what is new": 3'))
    with refuses(CompatibilityError, "record-schema-newer", "run.json", "version 2", "up to 1"):
        open_run(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run(data: Data, tmp_path: Path) -> None:
    wild = dataclasses.replace(RECIPE, learning_rate=1e9)
    with refuses(CheckFailedError, "loss-not-finite", "resnet20, seed 0"):
        finish(begin(tmp_path, identity(wild), data))


DEEP = dataclasses.replace(RECIPE, warmup_layers=2, warmup_rate=0.003, milestones=())


def test_a_deep_net_begins_warm_until_it_has_learnt(data: Data, tmp_path: Path) -> None:
    training = begin(tmp_path, identity(dataclasses.replace(DEEP, warmup_error=0.7)), data)
    rates = []
    while not training.complete:
        training.advance()
        rates.append(training.learning_rate)
    first = rates.index(0.05)
    assert 0 < first < len(rates) - 1
    assert rates == [0.003] * first + [0.05] * (len(rates) - first)
    assert training.points[-1].learning_rate == 0.05


@pytest.mark.parametrize(("error", "rate"), [(0.0, 0.003), (1.01, 0.05)])
def test_the_warm_up_ends_where_the_recipe_says(error: float, rate: float, data: Data, tmp_path: Path) -> None:
    training = finish(begin(tmp_path, identity(dataclasses.replace(DEEP, warmup_error=error)), data))
    assert training.points[-1].learning_rate == rate


def test_a_run_that_was_left_while_warm_ends_in_the_same_bits(data: Data, tmp_path: Path) -> None:
    deep = identity(dataclasses.replace(DEEP, warmup_error=0.7))
    whole = finish(begin(tmp_path / "whole", deep, data))
    left = begin(tmp_path / "left", deep, data, 0.0)
    left.advance()
    assert left.learning_rate == 0.003
    again = finish(begin(tmp_path / "left", deep, data))
    assert [point.loss for point in again.points] == [point.loss for point in whole.points]
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "left")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_without_a_checkpoint_begins_a_new_segment(data: Data, tmp_path: Path) -> None:
    begin(tmp_path, identity(), data).advance()
    bf16 = Arithmetic(precision="bf16")
    Training(TrainingJob(tmp_path, identity(), bf16), data, Pace())
    assert [(one.since, one.arithmetic) for one in open_run(tmp_path).sittings] == [(0, bf16)]


def side_by_side(folder: Path, recipes: dict[str, Recipe], data: Data, pace: Pace) -> list[str]:
    """The notices of runs that are driven as a GPU does, on this CPU."""
    notices: list[str] = []
    jobs = [TrainingJob(folder / name, identity(recipe), Arithmetic()) for name, recipe in recipes.items()]
    take_turns(
        [Training(job, data, pace) for job in jobs],
        ExportListener(step=lambda _: None, notice=lambda line: notices.append(str(line))),
        time.monotonic() + (math.inf if pace.stop_after_s is None else pace.stop_after_s),
    )
    return notices


def test_runs_side_by_side_end_as_each_alone(whole: Path, data: Data, tmp_path: Path) -> None:
    shorter = dataclasses.replace(RECIPE, iterations=12, milestones=())
    notices = side_by_side(tmp_path, {"a": RECIPE, "b": shorter}, data, Pace())
    alone = weights(whole)
    assert all(torch.equal(alone[name], tensor) for name, tensor in weights(tmp_path / "a").items())
    assert open_run(tmp_path / "b").outcome is not None
    assert all(" left" in line for line in notices)


def test_runs_side_by_side_are_kept_when_the_time_is_over(whole: Path, data: Data, tmp_path: Path) -> None:
    recipes = {"a": RECIPE, "b": dataclasses.replace(RECIPE, iterations=10, milestones=())}
    with refuses(CheckFailedError, "training-time-over", "resnet20, seed 0 at 10"):
        side_by_side(tmp_path, recipes, data, Pace(stop_after_s=0.0))
    assert open_run(tmp_path / "b").outcome is not None
    assert (tmp_path / "a" / CHECKPOINT).exists()
    side_by_side(tmp_path, recipes, data, Pace())
    alone = weights(whole)
    assert all(torch.equal(alone[name], tensor) for name, tensor in weights(tmp_path / "a").items())


def test_a_run_that_fails_leaves_the_others_their_checkpoints(data: Data, tmp_path: Path) -> None:
    with refuses(CheckFailedError, "loss-not-finite"):
        side_by_side(tmp_path, {"good": RECIPE, "wild": dataclasses.replace(RECIPE, learning_rate=1e9)}, data, Pace())
    assert (tmp_path / "good" / CHECKPOINT).exists()


def test_a_loss_that_is_not_finite_is_not_kept(data: Data, tmp_path: Path) -> None:
    training = begin(tmp_path, identity(dataclasses.replace(RECIPE, learning_rate=1e9)), data)
    training.advance()
    with refuses(CheckFailedError, "loss-not-finite", "iteration 10"):
        training.checkpoint()
    assert not (tmp_path / CHECKPOINT).exists()


def noise_images(folder: Path) -> Path:
    """CLASS/IMAGE.png of 8 pixels, for both splits."""
    random = np.random.default_rng(0)
    for split, count in (("train", 1000), ("test", 5)):
        for name in ("cat", "dog"):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


@pytest.mark.slow
def test_a_run_killed_at_random_steps_ends_in_the_same_bits(tmp_path: Path) -> None:
    """The real command, a real SIGKILL: 77 updates of ResNet-20 on small images, 14 an epoch, killed twice."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = (
        *(sys.executable, "-m", "benchmarks.cli", "paper", "train", "resnet20", "--size", "8", "--scale", "0.0012"),
        *("--data", str(noise_images(tmp_path / "data")), "--checkpoint-every", "0.3", "--threads", "1", "-o"),
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, str(whole)], check=True, capture_output=True, cwd=ROOT, env=environment)
    chance, kills = random.Random(0), 0
    for _ in range(2):
        before = _age(broken / CHECKPOINT)
        process = subprocess.Popen([*command, str(broken)], stderr=subprocess.DEVNULL, cwd=ROOT, env=environment)
        while process.poll() is None and _age(broken / CHECKPOINT) == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2
    assert not (broken / WEIGHTS).exists()
    done = subprocess.run(
        [*command, str(broken)], check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.stdout == f"{broken / WEIGHTS}\n"
    first, second = weights(whole), weights(broken)
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
