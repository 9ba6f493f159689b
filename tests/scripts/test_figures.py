from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from click.testing import CliRunner

from scripts.figures import __main__ as figures
from scripts.figures import preprocessing, training
from scripts.figures.setting import Figure, FigureSettings, ratio, time_interleaved


def test_calls_are_interleaved_after_an_uncounted_first_round() -> None:
    calls: list[str] = []
    samples = time_interleaved((lambda: calls.append("a"), lambda: calls.append("b")), 3)
    assert "".join(calls) == "baabbaab"
    assert [len(each) for each in samples] == [3, 3]


@pytest.mark.parametrize(("bound", "holds"), [(1.5, False), (2.5, True)])
def test_a_ratio_holds_within_its_bound_alone(bound: float, holds: bool) -> None:
    figure = ratio("twice", [0.2, 0.2, 0.2], [0.1, 0.1, 0.1], bound)
    assert figure.value.startswith("2.000 x [2.000, 2.000], medians 200.0 ms against 100.0 ms, 3 pairs")
    assert figure.holds is holds


@pytest.mark.parametrize(("ours_s", "holds"), [(0.3, True), (0.5, False)])
def test_training_must_be_fast_enough(ours_s: float, holds: bool) -> None:
    figure = training.throughput([1.0] * 5, [ours_s] * 5)
    assert figure.holds is holds
    assert f"{512 / ours_s:,.0f} against 512 images/s, 5 pairs of 4 updates" in figure.value


@pytest.mark.parametrize(("holds", "code", "word"), [(True, 0, "holds   it"), (False, 1, "MISSED  it")])
def test_a_missed_figure_fails_the_command(holds: bool, code: int, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def figure(setting: FigureSettings) -> Iterator[Figure]:
        yield Figure("it", f"{setting.rounds}", "<= 3", holds)

    monkeypatch.setitem(figures.FIGURES, "help", figure)
    result = CliRunner().invoke(figures.main, ["help", "--rounds", "4"])
    assert result.output == f"{word}: 4 (<= 3)\n"
    assert result.exit_code == code


@pytest.mark.parametrize("name", figures.NEED_SHARED)
def test_some_figures_ask_for_their_files(name: str) -> None:
    result = CliRunner().invoke(figures.main, [name])
    assert f"{name} needs --shared" in str(result.exception)


def test_one_other_prediction_is_a_missed_figure() -> None:
    loop = np.array([1, 2, 3])
    assert preprocessing._figure("rbench", loop, loop, 0.5).holds
    missed = preprocessing._figure("rbench", np.array([1, 2, 4]), loop, 0.5)
    assert not missed.holds
    assert missed.value.startswith("2 of 3 ")


def test_the_cost_of_help_is_measured_on_real_processes() -> None:
    result = CliRunner().invoke(figures.main, ["help", "--rounds", "3"])
    assert "rexport --help: " in result.output
    assert "rbench --help: " in result.output
