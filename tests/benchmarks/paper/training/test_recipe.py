from __future__ import annotations

import dataclasses

import pytest

from benchmarks.paper.training.recipe import BUNDLED, PAPER, Recipe, count_layers
from exporter.models.variants import variant
from runtimes.errors import UsageError
from tests.refusals import refuses


def test_the_papers_numbers_stand_as_in_section_4_2() -> None:
    assert dataclasses.astuple(PAPER)[:7] == ("paper", 64_000, 128, "steps", 0.1, (32_000, 48_000), 0.1)
    assert (PAPER.momentum, PAPER.nesterov, PAPER.weight_decay) == (0.9, False, 1e-4)
    assert (PAPER.warmup_rate, PAPER.warmup_error, PAPER.padding, PAPER.held_out) == (0.01, 0.8, 4, 0.1)


@pytest.mark.parametrize(
    ("iteration", "rate"), [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)]
)
def test_the_rate_drops_at_the_milestones_and_not_before(iteration: int, rate: float) -> None:
    assert PAPER.rate(iteration, warm=False) == pytest.approx(rate)
    assert PAPER.rate(iteration, warm=True) == 0.01


def test_only_the_deepest_nets_begin_warm() -> None:
    begins = {
        name
        for name in ("resnet20", "resnet56", "resnet110", "plain110", "resnet1202", "resnet152")
        if PAPER.begins_warm(variant(name))
    }
    assert begins == {"resnet110", "plain110", "resnet1202", "resnet152"}


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 20), ("plain56", 56), ("resnet50", 50), ("resnet34", 34)])
def test_layers_are_counted_as_the_names_say(name: str, layers: int) -> None:
    assert count_layers(variant(name)) == layers


def test_a_cosine_rises_and_falls() -> None:
    recipe = Recipe(schedule="cosine", iterations=180, ramp=20, learning_rate=0.2, milestones=())
    rates = [recipe.rate(iteration, warm=False) for iteration in (0, 10, 20, 100, 180)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.1, 0])


def test_a_scale_shortens_the_whole_schedule() -> None:
    tenth = PAPER.stretch(0.1)
    assert (tenth.iterations, tenth.milestones, tenth.scale) == (6400, (3200, 4800), 0.1)
    assert "0.1 of" in tenth.describe()
    assert "6,400 iterations" in tenth.describe()
    assert "64,000 iterations" in PAPER.describe()
    assert BUNDLED.stretch(0.5).ramp == 468
    assert "cosine" in BUNDLED.describe()


def test_a_scale_that_leaves_nothing_is_refused() -> None:
    with refuses(UsageError, "scale-leaves-nothing", "1e-06", "64,000"):
        PAPER.stretch(1e-6)
