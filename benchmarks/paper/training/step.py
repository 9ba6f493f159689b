"""One update of a network's parameters, as fast as the device allows: the same mathematics on each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.paper.training.batches import DeviceImages, Feed
from benchmarks.paper.training.recipe import Recipe
from exporter.models.resnet import BLOCKS, ResNet

TrainingPrecision = Literal["fp32", "bf16"]

SETTLING = 3
"""Updates before one is recorded as a CUDA graph: libraries choose their kernels in them. They are then undone."""

_MOST_SHAPES = 64
"""Shapes of networks, and of blocks, that one process compiles."""

_CPU_OPTIONS: dict[str, str | int | bool] = {"cpp.use_two_step_variance_threshold": 1 << 40}
"""Batch-norm's variance in two passes, which vectorise, and not by Welford's update."""


@dataclass(frozen=True)
class Arithmetic:
    """How a network is computed. Not part of the recipe, but it decides the last bits of the weights.

    ``compiled``: by TorchInductor. ``bf16``: convolutions and what follows them, by autocast; parameters, their updates
    and the loss stay float32.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: TrainingPrecision = "fp32"
    compiled: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        # Each weight is used once in a step, and a cache of casts would outlive the step that is recorded.
        return torch.autocast(self.device, torch.bfloat16, cache_enabled=False)


class Stepper:
    """Takes one batch after the other from a feed and updates the network by it, in place.

    ``sums`` (2,) float64 on the device grows by each step's mean loss and its share of wrong answers.
    """

    def __init__(self, model: ResNet, feed: Feed, recipe: Recipe, arithmetic: Arithmetic) -> None:
        self.model = model
        self.feed = feed
        self.arithmetic = arithmetic
        self.device = feed.images.padded.device
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        on_gpu = arithmetic.device == "cuda"
        self.optimiser = torch.optim.SGD(
            model.parameters(),
            lr=torch.tensor(0.0, device=self.device) if on_gpu else 0.0,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            fused=True,
        )
        for parameter in model.parameters():
            self.optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        if arithmetic.compiled:
            compile_in_place(model, on_gpu)
        self._stream = torch.cuda.Stream(self.device) if on_gpu else None  # type: ignore[no-untyped-call]
        self.rate = 0.0
        self._graph: torch.cuda.CUDAGraph | None = None

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps to come."""
        if rate == self.rate:
            return
        self.rate = rate
        (group,) = self.optimiser.param_groups
        if isinstance(group["lr"], Tensor):
            with self.queue():
                group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def step(self) -> None:
        """One update. On a GPU it is only begun when this returns."""
        if self._graph is None:
            self._update()
        else:
            with self.queue():
                self._graph.replay()

    def queue(self) -> AbstractContextManager[object]:
        """What is called under it comes after the steps so far, and before those to come."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def record(self) -> None:
        """From now on a step is a replayed CUDA graph. The state is as it was before."""
        if self._stream is None:
            return
        torch.cuda.synchronize(self.device)
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        with self.queue():
            for _ in range(SETTLING):
                self.feed.begin(0)
                self._update()
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._update()
        self._graph = graph
        self.restore(before)

    def state(self) -> dict[str, Tensor]:
        """All that a step changes, by name: parameters, batch-norm's statistics, momenta, sums. Not copied."""
        momenta = {
            f"momentum.{name}": self.optimiser.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
        }
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        return {**weights, **momenta, "sums": self.sums}

    def state_on_host(self) -> dict[str, Tensor]:
        """What ``state`` gives, on the host. Waits for the device."""
        with self.queue():
            return {name: tensor.contiguous().cpu() for name, tensor in self.state().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Sets what ``state`` gave, tensor by tensor and in place."""
        with torch.no_grad(), self.queue():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])

    def _update(self) -> None:
        images, targets = self.feed.next()
        with self.arithmetic.autocast():
            logits = self.model(images).float()
        loss = F.cross_entropy(logits, targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        wrong = (logits.detach().argmax(1) != targets).double().mean()
        self.sums += torch.stack((loss.detach().double(), wrong))

    def error(self, images: DeviceImages) -> float:
        """Top-1 error on all images in evaluation mode, a fraction; ``nan`` of none."""
        with (
            evaluation_mode(self.model),
            self.queue(),
            torch.inference_mode(),
            torch.compiler.set_stance("force_eager"),
        ):
            wrong = torch.zeros((), dtype=torch.int64, device=self.device)
            for some, targets in images.crop_centres():
                with self.arithmetic.autocast():
                    logits = self.model(some)
                wrong += (logits.argmax(1) != targets).sum()
            return int(wrong) / len(images) if len(images) else float("nan")

    def time_of(self, work: Callable[[], object], times: int) -> float:
        """Seconds of a call at the epoch's first step, the mean of many, until the device has finished; after one that
        is not counted."""
        wait = torch.cuda.synchronize if self._stream is not None else torch.cpu.synchronize
        with self.queue():
            self.feed.rewind()
            work()
            wait(self.device)
            start = time.perf_counter()
            for _ in range(times):
                self.feed.rewind()
                work()
            wait(self.device)
            return (time.perf_counter() - start) / times


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """The networks are in evaluation mode in the block, and then in their own modes again."""
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def compile_in_place(model: nn.Module, on_gpu: bool) -> None:
    """Has TorchInductor compile the network when it is first called; names and parameters stay.

    On a GPU block by block, each shape of block once, however deep the network is: a recorded step has no cost between
    blocks. On a CPU as a whole, which is faster there, in a time that grows with the depth.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SHAPES)
    if not on_gpu:
        model.compile(dynamic=False, options=_CPU_OPTIONS)
        return
    for module in model.modules():
        if isinstance(module, tuple(BLOCKS.values())):
            module.compile(dynamic=False)
