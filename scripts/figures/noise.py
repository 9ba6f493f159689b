"""Configurations on a machine that is not there, with the noise of real ones, on a clock that only they move.

What the statistics and the harness promise is tried on it, since the truth is known: how much faster the one is than
the other. The kinds of noise are those that latencies are known for: skewed jitter in which a call leans on the one
before (Kalibera and Jones 2013), an offset of each process for where its memory lies (Mytkowicz et al. 2009), processes
that land in one of two modes, rare stalls with a heavy tail, neighbours that meet one turn and not the next, all the
time or in gusts, and what meets all at the same time: a slow drift and a step of the frequency.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass

from benchmarks.stats.comparison import Verdict, compare_paired
from benchmarks.stats.intervals import Processes


@dataclass(frozen=True)
class Noise:
    """How much of each kind. Spreads are standard deviations of a duration's logarithm: 0.01 is one percent.

    Attributes:
        jitter: of a call. correlation: of the jitter with that of the call before, 0..1.
        layout: between processes.
        mode, mode_share: how much longer calls take in a process of the slow mode, and the share of such processes.
        turn: between the turns of one process.
        stall, stall_times: the chance that a call stalls, and how many usual calls the least stall takes; the longer
            are Pareto's, with a tail of index 1.5.
        gust: between the turns while a neighbour is hard at work; gust_share: of the time.
        drift: how much longer a call takes at the horizon than at the beginning.
        step: how much longer from the middle on.
    """

    jitter: float = 0.03
    correlation: float = 0.5
    layout: float = 0.01
    mode: float = 0.0
    mode_share: float = 0.0
    turn: float = 0.005
    stall: float = 0.002
    stall_times: float = 4.0
    gust: float = 0.0
    gust_share: float = 0.0
    drift: float = 0.0
    step: float = 0.0


USUAL = Noise(drift=0.03, step=0.05)

NOISES: dict[str, Noise] = {
    "usual": USUAL,
    "still": Noise(jitter=0.005, correlation=0.0, layout=0.002, turn=0.001, stall=0.0),
    "independent": Noise(layout=0.0, correlation=0.0, turn=0.0),
    "jittery": Noise(jitter=0.10, correlation=0.8, drift=0.03, step=0.05),
    "stalling": Noise(stall=0.02, stall_times=20.0, drift=0.03),
    "drifting": Noise(drift=0.30),
    "stepping": Noise(step=0.30),
    "crowded": Noise(turn=0.03, drift=0.03, step=0.05),
    "gusty": Noise(gust=0.15, gust_share=0.3),
    "two modes": Noise(mode=0.03, mode_share=0.3),
    "wide layout": Noise(layout=0.02),
}
"""What to try a method on. It must work under ``usual``; of what follows, each overdoes or leaves out one kind."""


@dataclass(frozen=True)
class Design:
    """How a comparison is measured."""

    processes: int = 10
    rounds: int = 10
    per_round: int = 10


GUSTS = 40
"""Stretches of the horizon, each of which is a gust or is not."""


class Clockwork:
    """A clock, and configurations whose calls move it. Nothing else does: between the calls no time passes.

    Attributes:
        now_s: the time, from 0.
    """

    def __init__(self, medians_s: tuple[float, ...], noise: Noise, horizon_s: float, seed: int = 0) -> None:
        """``medians_s``: what a call of each configuration takes, were there no noise. ``horizon_s`` is how long the
        whole is expected to take: drift and step are laid out over it."""
        self.now_s = 0.0
        self._medians_s = medians_s
        self._noise = noise
        self._horizon_s = horizon_s
        self._random = random.Random(seed)
        gusts = random.Random(f"gusts {seed}")
        self._gusty = [gusts.random() < noise.gust_share for _ in range(GUSTS)]
        self._offsets = [0.0] * len(medians_s)
        self._jitters = [0.0] * len(medians_s)
        self._turn: tuple[int, float] | None = None
        for configuration in range(len(medians_s)):
            self.start(configuration)

    def clock(self) -> float:
        """``now_s``, as the harness asks a clock."""
        return self.now_s

    def start(self, configuration: int) -> None:
        """The configuration runs in a fresh process from now on."""
        noise, draw = self._noise, self._random
        slow = noise.mode if draw.random() < noise.mode_share else 0.0
        self._offsets[configuration] = draw.gauss(0.0, noise.layout) + math.log1p(slow)
        self._jitters[configuration] = draw.gauss(0.0, noise.jitter)
        self._turn = None

    def call(self, configuration: int) -> float:
        """Moves the clock by one call, and gives its duration in seconds. A turn ends when another configuration is
        called."""
        noise, draw = self._noise, self._random
        if self._turn is None or self._turn[0] != configuration:
            stretch = int(GUSTS * self.now_s / self._horizon_s) % GUSTS
            self._turn = configuration, draw.gauss(0.0, noise.gust if self._gusty[stretch] else noise.turn)
        shock = draw.gauss(0.0, noise.jitter) * math.sqrt(1 - noise.correlation**2)
        self._jitters[configuration] = noise.correlation * self._jitters[configuration] + shock
        level = self._offsets[configuration] + self._jitters[configuration] + self._turn[1] + self._shared()
        duration_s = self._medians_s[configuration] * math.exp(level)
        if draw.random() < noise.stall:
            duration_s += self._medians_s[configuration] * noise.stall_times * draw.paretovariate(1.5)
        self.now_s += duration_s
        return duration_s

    def _shared(self) -> float:
        """What meets all alike, by the time of the clock."""
        share = self.now_s / self._horizon_s
        return math.log1p(self._noise.drift * share) + (math.log1p(self._noise.step) if share > 0.5 else 0.0)


def simulate(
    gap: float, noise: Noise = USUAL, design: Design | None = None, seed: int = 0
) -> tuple[Processes, Processes]:
    """The samples of a reference and of one that is faster by ``gap``: their true ratio is 1 + ``gap``.

    In each sitting both run in a fresh process, and take their turns in shuffled order.
    """
    design = design or Design()
    medians_s = ((1 + gap) * 1e-3, 1e-3)
    horizon_s = sum(medians_s) * design.processes * design.rounds * design.per_round
    clockwork, order = Clockwork(medians_s, noise, horizon_s, seed), random.Random(f"order {seed}")
    processes: tuple[list[list[list[float]]], ...] = ([], [])
    for _ in range(design.processes):
        for configuration in (0, 1):
            clockwork.start(configuration)
            processes[configuration].append([])
        for _ in range(design.rounds):
            for configuration in order.sample((0, 1), 2):
                samples = [clockwork.call(configuration) for _ in range(design.per_round)]
                processes[configuration][-1].append(samples)
    return processes[0], processes[1]


def verdicts(gap: float, noise: Noise = USUAL, design: Design | None = None, runs: int = 100) -> Counter[Verdict]:
    """How often each verdict comes out of so many paired runs, with seeds from 0 on."""
    return Counter(compare_paired(*simulate(gap, noise, design, seed), seed=seed).verdict for seed in range(runs))
