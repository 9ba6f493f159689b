"""What training by the paper's recipe costs beside the loop that one would write first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from benchmarks.paper.training.batches import Data, Feed, on_device
from benchmarks.paper.training.corpus import SAMPLE_NAME, Source, load
from benchmarks.paper.training.recipe import PAPER
from benchmarks.paper.training.step import Arithmetic, Stepper
from benchmarks.stats.comparison import compare_unpaired
from benchmarks.stats.intervals import quantile
from exporter.models.resnet import build, initialise
from exporter.models.variants import variant
from scripts.figures.setting import Figure, FigureSettings, time_interleaved

NAME, BATCH, THREADS = "resnet20", 128, 2
STEPS = 4
"""Of a turn: a single one is too short a look."""

LEAST = 2.5
MOST_INPUT = 0.10


def training(setting: FigureSettings) -> Iterator[Figure]:
    """Images/s of updates of ResNet-20 in bf16, compiled, augmentation included, over eager fp32 on ready tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield from _training(setting)
    finally:
        torch.set_num_threads(before)


def _training(setting: FigureSettings) -> Iterator[Figure]:
    row = variant(NAME)
    arithmetic = Arithmetic("cpu", "bf16", compiled=True)
    corpus = load(Source(SAMPLE_NAME), PAPER.held_out, BATCH)
    data = on_device(corpus, PAPER, row, arithmetic.device)
    stepper = _stepper(data, arithmetic)
    bare, ours = time_interleaved((_times(_plain(data)), _times(_rounds(stepper))), setting.rounds)
    yield throughput(bare, ours)
    seconds = quantile(ours, 0.5) / STEPS
    stepper.feed.begin(0)
    taken = stepper.time_of(stepper.feed.next, stepper.feed.steps - 1) / seconds
    yield Figure("the input's share of an update", f"{taken:.1%}", f"<= {MOST_INPUT:.0%}", taken <= MOST_INPUT)


def throughput(bare: list[float], ours: list[float]) -> Figure:
    """From the seconds of turns of ``STEPS`` updates, side by side."""
    compared = compare_unpaired([[bare]], [[ours]])
    ratio, (low, high) = compared.ratio, compared.interval
    rates = [BATCH * STEPS / quantile(turns, 0.5) for turns in (ours, bare)]
    value = (
        f"{ratio:.2f} x [{low:.2f}, {high:.2f}], {rates[0]:,.0f} against {rates[1]:,.0f} images/s, "
        f"{len(ours)} pairs of {STEPS} updates"
    )
    name = f"training {NAME}, bf16 and compiled with augmentation, over plain eager fp32, {THREADS} threads"
    return Figure(name, value, f">= {LEAST} x", ratio >= LEAST)


def _stepper(data: Data, arithmetic: Arithmetic) -> Stepper:
    model = build(variant(NAME)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    initialise(model, 0)
    stepper = Stepper(model.train(), Feed(data.train, BATCH, 0), PAPER, arithmetic)
    stepper.set_rate(PAPER.learning_rate)
    return stepper


def _rounds(stepper: Stepper) -> Callable[[], None]:
    taken = 0

    def step() -> None:
        nonlocal taken
        if taken % stepper.feed.steps == 0:
            stepper.feed.begin(taken)
        taken += 1
        stepper.step()

    return step


def _plain(data: Data) -> Callable[[], None]:
    """What one would write first: tensors in memory, no augmentation, eager, fp32, PyTorch's defaults."""
    images, targets = next(data.train.crop_centres())
    images, targets = images[:BATCH].contiguous(), targets[:BATCH].contiguous()
    images = images.to(memory_format=torch.contiguous_format)
    model = build(variant(NAME))
    initialise(model, 0)
    model.train()
    optimiser = torch.optim.SGD(
        model.parameters(), lr=PAPER.learning_rate, momentum=PAPER.momentum, weight_decay=PAPER.weight_decay
    )

    def step() -> None:
        loss = F.cross_entropy(model(images), targets)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _times(step: Callable[[], None]) -> Callable[[], None]:
    def several() -> None:
        for _ in range(STEPS):
            step()

    return several
