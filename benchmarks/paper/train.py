"""Trains the bundled ResNet-20 on Fashion-MNIST: ``python -m benchmarks.paper.train -o DIR``.

The run is a function of its recipe and seed. It continues from the last finished epoch after an interruption, and
the last epoch's weights are the result: the test error in the log chooses nothing.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from benchmarks.paper import fashion
from exporter import terminal
from exporter.resnet import ResNet, build, initialise
from exporter.variants import variant
from runtimes.errors import UsageError
from runtimes.files import check_writable, write_atomically


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. Images enter as 28x28 greys on a black 32x32 canvas, three times."""

    variant: str = "resnet20"
    epochs: int = 18
    batch: int = 128
    peak_learning_rate: float = 0.2
    warmup_epochs: float = 2.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    canvas: int = 32
    mean: float = 0.286
    std: float = 0.353
    seed: int = 0

    def learning_rate(self, epoch: float) -> float:
        """At a fractional epoch: a straight line up, then half a cosine down to zero."""
        if epoch < self.warmup_epochs:
            return self.peak_learning_rate * epoch / self.warmup_epochs
        share = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.peak_learning_rate * (1 + math.cos(math.pi * share)) / 2


def placed(images: Tensor, top: Tensor, left: Tensor, canvas: int) -> Tensor:
    """Images (n, h, w) uint8 on black canvases, row ``top[i]`` and column ``left[i]`` being where image i begins."""
    margin = canvas - images.shape[1]
    padded = F.pad(images, (margin, margin, margin, margin))
    rows = (margin - top)[:, None] + torch.arange(canvas)  # (n, canvas)
    columns = (margin - left)[:, None] + torch.arange(canvas)
    return padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def augmented(images: Tensor, canvas: int, generator: torch.Generator) -> Tensor:
    """Each image somewhere on its canvas with nothing cut off, and mirrored with a chance of one half."""
    free = canvas - images.shape[1] + 1
    top, left = (torch.randint(free, (len(images),), generator=generator) for _ in range(2))
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    result = placed(images, top, left, canvas)
    return torch.where(mirrored[:, None, None], result.flip(2), result)


def normalised(canvases: Tensor, recipe: Recipe) -> Tensor:
    """(n, h, w) uint8 to (n, 3, h, w) float32."""
    grey = (canvases.float() / 255 - recipe.mean) / recipe.std
    return grey[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def error_on(model: nn.Module, images: Tensor, targets: Tensor, recipe: Recipe) -> float:
    """Top-1 error, a fraction, with every image in the middle of its canvas."""
    middle = torch.full((500,), (recipe.canvas - images.shape[1]) // 2)
    wrong = 0
    model.eval()
    with torch.inference_mode():
        for some, wanted in zip(torch.split(images, 500), torch.split(targets, 500), strict=True):
            canvases = placed(some, middle[: len(some)], middle[: len(some)], recipe.canvas)
            wrong += int((model(normalised(canvases, recipe)).argmax(1) != wanted).sum())
    return wrong / len(targets)


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    recipe: Recipe,
    epoch: int,
) -> tuple[float, float]:
    """One pass in place; mean loss and error over it. The order and the augmentation follow from seed and epoch."""
    images, targets = data
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = torch.randperm(len(images), generator=generator)
    steps = len(images) // recipe.batch
    losses = wrong = 0.0
    model.train()
    for step in range(steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        batch = normalised(augmented(images[chosen], recipe.canvas, generator), recipe)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate(epoch + step / steps)
        logits = model(batch)
        loss = F.cross_entropy(logits, targets[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses += float(loss.detach())
        wrong += int((logits.argmax(1) != targets[chosen]).sum())
    return losses / steps, wrong / (steps * recipe.batch)


@dataclass
class Run:
    """A training run on disk: ``checkpoint.pt`` after each epoch, ``log.jsonl`` with a line each."""

    folder: Path
    model: ResNet
    optimiser: torch.optim.Optimizer
    limit: int | None
    lines: list[str]

    @classmethod
    def start(cls, folder: Path, recipe: Recipe, limit: int | None) -> Run:
        """A fresh run, or the one in ``folder`` at its last finished epoch.

        Raises:
            UsageError: that one has another recipe, seed or limit.
        """
        model = build(variant(recipe.variant)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialise(model, recipe.seed)
        optimiser = torch.optim.SGD(
            model.parameters(),
            lr=recipe.peak_learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        run = cls(folder, model, optimiser, limit, [])
        checkpoint = folder / "checkpoint.pt"
        if checkpoint.exists():
            saved = torch.load(checkpoint, weights_only=True)
            if (saved["recipe"], saved.get("limit")) != (asdict(recipe), limit):
                raise UsageError("it holds a run of another recipe, seed or limit", path=folder, hint="name a new one")
            model.load_state_dict(saved["model"])
            optimiser.load_state_dict(saved["optimiser"])
            run.lines = saved["lines"]
        return run

    def keep(self, recipe: Recipe, line: dict[str, float]) -> None:
        """Adds an epoch's line and writes the checkpoint and the log, whole or not at all."""
        self.lines.append(json.dumps(line))
        state = {
            "recipe": asdict(recipe),
            "limit": self.limit,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "lines": self.lines,
        }
        with write_atomically(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)
        with write_atomically(self.folder / "log.jsonl") as temporary:
            temporary.write_text("".join(f"{one}\n" for one in self.lines))


def tensors(data: tuple[NDArray[np.uint8], NDArray[np.int64]], limit: int | None) -> tuple[Tensor, Tensor]:
    """The first ``limit`` images and targets as tensors of their own."""
    return torch.tensor(data[0][:limit]), torch.tensor(data[1][:limit])


def train(recipe: Recipe, folder: Path, data: Path, limit: int | None = None) -> ResNet:
    """Runs the recipe to its end in ``folder`` and returns the trained network.

    Leaves ``weights.safetensors``, ``recipe.json`` and ``log.jsonl``. ``limit`` takes the first images of each split.

    Raises:
        UsageError: ``folder`` holds another run, or ``limit`` leaves less than a batch.
        RexportError: as ``fashion.read``; the disk.
    """
    check_writable(folder)
    training, test = tensors(fashion.read("train", data), limit), tensors(fashion.read("t10k", data), limit)
    if len(training[0]) < recipe.batch:
        raise UsageError(f"{len(training[0])} images, fewer than a batch of {recipe.batch}", hint="a larger --limit")
    run = Run.start(folder, recipe, limit)
    for epoch in range(len(run.lines), recipe.epochs):
        start = time.monotonic()
        loss, error = train_epoch(run.model, run.optimiser, training, recipe, epoch)
        elapsed = time.monotonic() - start
        test_error = error_on(run.model, *test, recipe)
        line = {"epoch": epoch + 1, "loss": loss, "error": error, "test_error": test_error, "elapsed_s": elapsed}
        run.keep(recipe, line)
        click.echo(
            f"epoch {epoch + 1:2d}/{recipe.epochs}  loss {loss:.4f}  error {error:.2%}  test error {test_error:.2%}"
            f"  {elapsed:.0f} s",
            err=True,
        )
    run.model.eval()
    with write_atomically(folder / "weights.safetensors") as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in run.model.state_dict().items()}))
    with write_atomically(folder / "recipe.json") as temporary:
        temporary.write_text(json.dumps(asdict(recipe) | {"torch": torch.__version__}, indent=2) + "\n")
    return run.model


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option("--data", type=click.Path(path_type=Path), default=fashion.DEBIAN_FOLDER, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=Recipe.epochs, show_default=True)
@click.option("--seed", type=int, default=Recipe.seed, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Take only the first images of each split (for a trial).")
def main(out: Path, data: Path, epochs: int, seed: int, limit: int | None) -> None:
    """Train the bundled ResNet-20 on Fashion-MNIST. Run it again to go on after an interruption."""
    train(Recipe(epochs=epochs, seed=seed), out, data, limit)
    click.echo(out / "weights.safetensors")


if __name__ == "__main__":
    terminal.run(main)
