"""Training on a GPU: recorded updates against those of a processor, and runs that take turns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.paper.training.batches import on_device
from benchmarks.paper.training.loop import Pace, TrainingJob, drive
from benchmarks.paper.training.recipe import PAPER
from benchmarks.paper.training.run import RunIdentity, curve, open_run
from benchmarks.paper.training.step import Arithmetic
from runtimes.errors import CheckFailedError
from scripts.figures.setting import SILENT
from tests.benchmarks.paper.corpora import corpus, network
from tests.refusals import refuses

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]

RECIPE = replace(PAPER, iterations=45, batch=16, milestones=(30, 40), learning_rate=0.05)


def trained(folder: Path, arithmetic: Arithmetic, pace: Pace | None = None) -> list[float]:
    """Two seeds side by side; the losses of the first one's curve."""
    data = on_device(corpus(train=400), RECIPE, network(), arithmetic.device)
    jobs = [
        TrainingJob(folder / str(seed), RunIdentity(network(), RECIPE, seed, "0" * 64), arithmetic) for seed in range(2)
    ]
    drive(jobs, data, SILENT, pace or Pace())
    assert all(open_run(folder / str(seed)).outcome is not None for seed in range(2))
    return [point.loss for point in curve(folder / "0")]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # both in the compiler itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_recorded_updates_are_those_of_a_processor(compiled: bool, tmp_path: Path) -> None:
    ours = trained(tmp_path / "gpu", Arithmetic("cuda", compiled=compiled))
    theirs = trained(tmp_path / "cpu", Arithmetic())
    assert ours == pytest.approx(theirs, rel=0.1)


def test_runs_that_were_left_go_on(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", Arithmetic("cuda"))
    with refuses(CheckFailedError, "training-time-over"):
        trained(tmp_path / "left", Arithmetic("cuda"), Pace(stop_after_s=0.0))
    assert trained(tmp_path / "left", Arithmetic("cuda")) == pytest.approx(whole, rel=0.1)
