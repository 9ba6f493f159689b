"""Networks of our own runs and of files, looked into on the bundled images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.paper.experiments import inspection
from benchmarks.paper.experiments.constructed_solution import SAID_SOLVER
from benchmarks.paper.experiments.gradients import SAID_IDENTITY
from benchmarks.paper.experiments.inspection import IMAGENET_MOMENTS, Inspection, load_networks
from benchmarks.paper.experiments.study import export_command, fit_variant
from benchmarks.paper.training.batches import on_device
from benchmarks.paper.training.corpus import SAMPLE_NAME, Source, load
from benchmarks.paper.training.loop import Pace, Training, TrainingJob, drive
from benchmarks.paper.training.recipe import PAPER
from benchmarks.paper.training.run import CHECKPOINT, WEIGHTS, RunIdentity, open_run, states_of
from benchmarks.paper.training.step import Arithmetic
from exporter.data.opening import BUNDLED_NAME, open_dataset
from exporter.models.resnet import build, initialise
from runtimes.errors import ModelMismatchError, ResourceError, UsageError
from scripts.figures.setting import SILENT
from tests.refusals import refuses

RECIPE = dataclasses.replace(PAPER, iterations=6, batch=16, milestones=(4, 5))
SOURCE = Source(SAMPLE_NAME, limit=40)
INSPECTION = Inspection(SOURCE, IMAGENET_MOMENTS, "typed", SILENT)
NAMES = ("plain20", "plain32", "resnet20")
CLASSES = open_dataset(BUNDLED_NAME).classes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished ones that kept two states on their way, and ``left``, which was left at its checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = load(SOURCE, RECIPE.held_out, RECIPE.batch)
    data = on_device(corpus, RECIPE, fit_variant("plain20", 10, 32), "cpu")
    jobs = [
        TrainingJob(folder / name, RunIdentity(fit_variant(name, 10, 32), RECIPE, 0, corpus.digest), Arithmetic())
        for name in NAMES
    ]
    drive(jobs, data, SILENT, Pace(states=2))
    longer = dataclasses.replace(RECIPE, iterations=30)
    identity = RunIdentity(fit_variant("resnet20", 10, 32), longer, 0, corpus.digest)
    left = Training(TrainingJob(folder / "left", identity, Arithmetic()), data, Pace())
    left.advance()
    left.checkpoint()
    return {path.name: path for path in folder.iterdir()}


def specs(runs: dict[str, Path], *names: str) -> list[str]:
    return [str(runs[name]) for name in names]


def test_states_are_kept_at_the_beginning_and_on_the_way(runs: dict[str, Path]) -> None:
    kept = dict(states_of(runs["plain20"]))
    assert list(kept) == [0, 4, 6]  # the first end of a stride behind 3 and 6; an epoch of two updates ends one
    fresh = build(fit_variant("plain20", 10, 32))
    initialise(fresh, 0)
    assert torch.equal(kept[0]["conv1.weight"], fresh.get_parameter("conv1.weight"))
    end = load_file(runs["plain20"] / WEIGHTS)
    assert all(torch.equal(end[name], tensor) for name, tensor in kept[6].items())


def test_a_run_is_loaded_as_it_was_normalised(runs: dict[str, Path]) -> None:
    (network,), seen = INSPECTION.load(specs(runs, "plain20"))
    run = open_run(runs["plain20"])
    assert network.moments == (run.mean, run.std)
    assert (network.name, len(seen)) == ("plain20, seed 0", 40)
    wrong = 0
    with torch.no_grad():
        for images, targets in seen.images[network.moments].crop_centres():
            wrong += int((network.model(images).argmax(1) != targets).sum())
    assert run.outcome is not None
    assert run.outcome.test_error == wrong / 40


def test_an_unfinished_run_is_loaded_from_its_checkpoint(runs: dict[str, Path]) -> None:
    (network,), _ = INSPECTION.load(specs(runs, "left"))
    assert network.name == "resnet20, seed 0, at 2 of 30"
    assert INSPECTION.provenance("x", 8, [network]).until == 2
    (runs["left"] / CHECKPOINT).rename(runs["left"] / "elsewhere")
    try:
        with pytest.raises(ResourceError, match=WEIGHTS):
            INSPECTION.load(specs(runs, "left"))
    finally:
        (runs["left"] / "elsewhere").rename(runs["left"] / CHECKPOINT)


def test_a_file_is_named_with_its_variant(runs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(load_file(runs["resnet20"] / WEIGHTS), file)
    mine, theirs = load_networks([f"resnet20={file}", str(runs["resnet20"])], CLASSES, 32, IMAGENET_MOMENTS)
    assert (mine.name, mine.moments) == ("resnet20, mine.safetensors", IMAGENET_MOMENTS)
    for name, tensor in theirs.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, mine.model.state_dict()[name])


@pytest.mark.parametrize("spec", ["nowhere", "resnet20=", "resnet20"])
def test_a_spec_of_no_network_is_refused(spec: str) -> None:
    with refuses(UsageError, "no-training-run", repr(spec), "VARIANT=FILE"):
        load_networks([spec], CLASSES, 32, IMAGENET_MOMENTS)


def test_runs_on_other_data_and_repeated_ones_are_refused(runs: dict[str, Path]) -> None:
    with refuses(ModelMismatchError, "trained-on-other-classes", "plain20", "T-shirt/top", "a, b", "--data"):
        load_networks(specs(runs, "plain20"), ("a", "b"), 32, IMAGENET_MOMENTS)
    with refuses(ModelMismatchError, "trained-on-other-size", "plain20", 64, "--size 32"):
        load_networks(specs(runs, "plain20"), CLASSES, 64, IMAGENET_MOMENTS)
    with refuses(UsageError, "network-named-twice", "plain20, seed 0"):
        load_networks(specs(runs, "plain20", "plain20"), CLASSES, 32, IMAGENET_MOMENTS)


def test_responses_are_measured_over_all_test_images(runs: dict[str, Path]) -> None:
    found = inspection.layer_responses(specs(runs, "plain20", "resnet20"), INSPECTION)
    assert [check.source for check in found.checks] == ["section 4.2, Figure 7"]
    assert {row[2] for row in found.tables[0].rows} == {"40"}
    assert found.provenance.command == "typed"


def test_gradients_are_measured_along_training(runs: dict[str, Path]) -> None:
    found = inspection.layer_gradients(specs(runs, "plain20", "resnet20"), ("plain20",), 1, 8, INSPECTION)
    assert SAID_IDENTITY in [check.said for check in found.checks]
    text = " ".join(cell for table in found.tables for row in table.rows for cell in row)
    assert "plain20" in text
    assert "resnet20" in text
    assert "8 test images" in found.notes[0]
    assert found.provenance.images == {"test": 8}


def test_gradients_need_no_trained_network() -> None:
    found = inspection.layer_gradients((), ("plain20",), 2, 4, INSPECTION)
    assert found.provenance.seeds == (0, 1)
    assert found.panels


def test_gradients_take_the_images_that_there_are() -> None:
    found = inspection.layer_gradients((), ("plain20",), 1, None, INSPECTION)
    assert found.provenance.images == {"test": 40}


def test_gradients_of_too_many_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with refuses(UsageError, "images-too-many", "40 test images", "41", "--images 40"):
        inspection.layer_gradients((), ("plain20",), 1, 41, INSPECTION)
    monkeypatch.setattr("exporter.models.memory.available_bytes", lambda: 300 << 20)  # enough to build the network
    with refuses(ResourceError, "memory-insufficient", "--images"):
        inspection.layer_gradients((), ("resnet110",), 1, 40, INSPECTION)


def test_a_built_network_is_compared_with_the_trained_one(runs: dict[str, Path]) -> None:
    found = inspection.examine_construction(specs(runs, "plain20", "plain32", "resnet20"), INSPECTION)
    built = {(row[0], row[1]): row[3] for row in found.tables[0].rows}
    assert built == {("plain32", "plain20"): "0", ("plain44", "plain32"): "0", ("resnet32", "resnet20"): "0"}
    assert found.checks[-1].said == SAID_SOLVER
    assert "plain32 as trained" in found.checks[-1].found


def test_the_command_that_exports_a_run_can_be_copied(runs: dict[str, Path]) -> None:
    command = export_command(Path("my runs\x1b[31m"), open_run(runs["plain20"]))
    assert command.startswith(r"rexport onnx plain20 --weights 'my runs\x1b[31m/")


def test_the_batch_is_the_same_each_time_and_of_all_classes() -> None:
    _, seen = dataclasses.replace(INSPECTION, source=Source(SAMPLE_NAME)).load([f"resnet20={_bundled()}"])
    first, again = (seen.draw_batch(64) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    assert len(set(first.targets.tolist())) == 10
    with refuses(UsageError, "images-too-many", "10,000", "20,000"):
        seen.draw_batch(20_000)


def _bundled() -> Path:
    from exporter.weights.sources import BUNDLED_FOLDER

    return BUNDLED_FOLDER / "resnet20-fashion-mnist.safetensors"
