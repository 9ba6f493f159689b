"""A run on a busy machine ranks nothing, prints no interval wider than its value, and says that it is invalid."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.ranking import headlines
from benchmarks.machine.monitor import Conditions
from benchmarks.records.plan import Plan
from benchmarks.records.samples import ProcessSamples
from benchmarks.report.document import run_document
from benchmarks.worker.timer import TimedCall
from exporter.document.terminal import as_text
from runtimes import Artifact
from tests.benchmarks.doubles import Now, Paced
from tests.benchmarks.results import EMPTY, QUIET, REFERENCE, change_facts

PLAN = Plan(max_samples=400, window_s=0.01, warmup_limit_s=1.0)
ROUNDS = 10
SPEEDS_S = {"pytorch": 0.0025, "onnxruntime": 0.0004, "openvino": 0.0005}

SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""


def wide_intervals(text: str) -> list[str]:
    """The times and ratios with a margin larger than themselves, whose interval is wider than the value. Changes of
    accuracy have a sign, unless they are 0."""
    pairs = re.findall(r"(?<![\d.,+-])([\d.,]+)x? ± ([\d.,]+)", text)
    found = [(float(value.replace(",", "")), float(margin.replace(",", ""))) for value, margin in pairs]
    return [f"{value} ± {margin}" for value, margin in found if value and margin > value]


def scripted_run(busy: bool) -> tuple[Figures, ...]:
    """Three backends in three processes each, timed on a virtual clock. On the busy machine a neighbour takes the CPU
    for a while, at random, in the processes of all three."""
    random = np.random.default_rng(0)
    conditions = replace(QUIET, foreign_cores=1.5, processors=2) if busy else QUIET
    sides: dict[str, list[ProcessSamples]] = {backend: [] for backend in SPEEDS_S}
    for number in range(3):
        for backend, speed_s in SPEEDS_S.items():
            level = random.uniform(1, 40) if busy else random.normal(1, 0.002)
            sides[backend].append(scripted_process(speed_s * level, number, busy, random, conditions))
    results = [
        change_facts(EMPTY, backend=backend, samples=tuple(taken), predictions=None) for backend, taken in sides.items()
    ]
    return Figures.of_all(results)


def scripted_process(
    speed_s: float, number: int, busy: bool, random: np.random.Generator, conditions: Conditions
) -> ProcessSamples:
    """The samples of one process of a scripted session, whose calls the neighbour makes up to twenty times as long."""
    now = Now()
    delays_s = (speed_s * (random.uniform(1, 20) if busy else random.normal(1, 0.01)) for _ in itertools.count())
    session = Paced(now, delays_s)
    feeds = {"input": np.zeros((1, 3, 8, 8), np.float32)}
    timed = TimedCall(lambda: session.run(feeds), PLAN, now)
    timed.warm_up()
    for _ in range(ROUNDS):
        timed.turn(0.02)
    series = timed.series()
    starts_s = tuple(float(number * ROUNDS + turn) for turn in range(ROUNDS))
    first = REFERENCE.result.samples[0]
    return replace(first, starts_s=starts_s, latency=series, compute=series, conditions=conditions)


def test_a_scripted_idle_machine_gives_a_ranking_and_a_valid_run() -> None:
    rows = scripted_run(busy=False)
    text = as_text(run_document(rows))
    (headline,) = headlines(rows)
    assert [each.result.identity.backend for each in headline.best] == ["onnxruntime"]
    assert "ResNet-20: ONNX Runtime is 6.2x faster than PyTorch" in text
    assert "too noisy" not in text.lower()
    assert text.splitlines()[-1] == "VALID: the machine was idle"


def test_a_scripted_busy_machine_gives_no_ranking() -> None:
    rows = scripted_run(busy=True)
    text = as_text(run_document(rows))
    (headline,) = headlines(rows)
    assert headline.best == ()
    assert "Too noisy to rank ResNet-20: other processes used 75 % of the CPUs; run again on an idle machine" in text
    assert "faster" not in text
    assert "too noisy" in text
    assert wide_intervals(text) == []
    assert text.splitlines()[-1].startswith("INVALID: other processes used 75 % of the CPUs; results unreliable")


def test_noise_of_an_unknown_cause_gives_no_ranking() -> None:
    rows = [
        change_facts(each.result, samples=tuple(replace(process, conditions=QUIET) for process in each.result.samples))
        for each in scripted_run(busy=True)
    ]
    text = " ".join(as_text(run_document(Figures.of_all(rows))).split())
    assert "Too noisy to rank ResNet-20: latency varies between processes (" in text
    assert "run again with more processes" in text


def test_a_wide_interval_would_be_found() -> None:
    assert wide_intervals("a  191 ± 2,641  6.10x ± 7.00  0.410 ± 0.006  -0.12 ± 0.17  0.00 ± 7.38") == [
        "191.0 ± 2641.0",
        "6.1 ± 7.0",
    ]


@contextlib.contextmanager
def busy_loops() -> Iterator[None]:
    """A busy loop on each CPU that this process may use."""
    loops = []
    try:
        for processor in sorted(os.sched_getaffinity(0)):
            words = [sys.executable, "-c", SPIN, str(processor)]
            loops.append(subprocess.Popen(words, stdout=subprocess.PIPE))
            assert loops[-1].stdout is not None
            loops[-1].stdout.readline()
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_really_busy_machine_gives_no_ranking(tmp_path: Path, onnx_artifact: Artifact) -> None:
    for library in ("onnxruntime", "openvino"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    words = ("run", str(onnx_artifact.path), "--backend", "onnxruntime", "--backend", "openvino")
    short = ("--limit", "20", "--processes", "3", "--rounds", "2", "--duration", "0.02", "--no-roofline")
    with busy_loops():
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cli", *words, *short, "-o", str(tmp_path / "out")],
            capture_output=True,
            text=True,
            timeout=580,
        )
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert re.search(r"Too noisy to rank ResNet-20: other processes used \d+ % of the CPUs; run again on", text)
    assert "faster than" not in text
    assert not re.search(r"^> ", done.stdout, re.MULTILINE)
    assert wide_intervals(done.stdout) == []
    assert re.search(r"INVALID: other processes used \d+ % of the CPUs; results unreliable", text)
    markdown = (tmp_path / "out" / "results.md").read_text()
    assert "faster than" not in markdown
    assert "INVALID" in markdown
    assert wide_intervals(markdown) == []
