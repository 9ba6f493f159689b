from __future__ import annotations

import io
import os

import pytest

from benchmarks.process.job import FINISH, REFUSALS, HungUpError, Pipes, TurnPlan, detach_stdout, encode_turn, status_of
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    ModelMismatchError,
    ResourceError,
    RexportError,
    UsageError,
)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (CheckFailedError, "failed"),
        (CompatibilityError, "skipped"),
        (ModelMismatchError, "skipped"),
        (BackendUnavailableError, "skipped"),
        (UsageError, "error"),
        (ArtifactError, "error"),
        (ResourceError, "error"),
    ],
)
def test_each_kind_of_error_has_a_status(kind: type[RexportError], status: str) -> None:
    assert status_of(kind("it broke")) == status


def test_what_counts_as_a_refusal_can_be_said() -> None:
    assert status_of(CompatibilityError("it broke"), (BackendUnavailableError,)) == "error"
    assert status_of(UsageError("it broke"), (*REFUSALS, UsageError)) == "skipped"
    assert status_of(CheckFailedError("it broke"), (CheckFailedError,)) == "failed"
    assert status_of(RuntimeError("it broke")) == "error"


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def test_the_worker_says_its_steps_and_waits_to_go_on() -> None:
    heard, said = io.StringIO("call\nwarm\nturn 0.25 3 100\nturn 1e-06 1 1\nfinish\nnever read\n"), io.StringIO()
    pipes = Pipes(heard, said)
    pipes.step("open")
    pipes.wait_for_start()
    pipes.report_open(1 << 40)
    pipes.ready(0.1 + 0.2)
    turns = []
    for turn in pipes.turns():
        turns.append(turn)
        pipes.report_turn(1e-7)
    assert turns == [TurnPlan(0.25, 3, 100), TurnPlan(1e-6, 1, 1)]
    lines = ["open", "\x01opened 1099511627776", "\x01ready 0.30000000000000004", *["\x01turned 1e-07"] * 2]
    assert said.getvalue().splitlines() == lines
    assert heard.readline() == "never read\n"


@pytest.mark.parametrize("turn", [TurnPlan(0.2, 1, 5000), TurnPlan(1 / 3, 2, 2), TurnPlan(1e-9, 1, 1)])
def test_a_turn_arrives_as_it_was_said(turn: TurnPlan) -> None:
    assert list(Pipes(io.StringIO(f"{encode_turn(turn)}\n{FINISH}\n"), io.StringIO()).turns()) == [turn]


@pytest.mark.parametrize("left", ["", "turn 0.2 1", "finish"])
def test_a_parent_that_has_gone_is_found_where_it_is_waited_for(left: str) -> None:
    """Half a line is what it had time to write."""
    with pytest.raises(HungUpError):
        Pipes(io.StringIO(left), io.StringIO()).wait_for_start()
    with pytest.raises(HungUpError):
        Pipes(io.StringIO(left), io.StringIO()).report_open(1)
    with pytest.raises(HungUpError):
        list(Pipes(io.StringIO(left), io.StringIO()).turns())


def test_a_parent_that_has_gone_is_found_where_it_is_spoken_to() -> None:
    with pytest.raises(HungUpError):
        Pipes(io.StringIO(), Broken()).step("accuracy")
    assert not issubclass(HungUpError, Exception)  # it is not to be taken for an error of the work


def test_what_is_printed_goes_elsewhere_from_then_on(capfd: pytest.CaptureFixture[str]) -> None:
    kept = os.dup(1)
    try:
        pipes = detach_stdout()
        pipes.step("open")
        os.write(1, b"printed by a library\n")
        pipes._messages.close()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    out, err = capfd.readouterr()
    assert (out, err.split()[0]) == ("open\n", "printed")
