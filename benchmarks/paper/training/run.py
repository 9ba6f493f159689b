"""A training run on disk: begun, gone on with, finished; and what it leaves.

``run.json``               what it is a run of, and at its end what came out
``curve.jsonl``            a line for each point of the curve
``checkpoint.safetensors`` all that a run needs to go on, to the bit; removed at the end
``weights.safetensors``    the trained network, which ``rexport onnx --weights`` takes
``states/``                the network on its way, where that was asked for: ``ITERATION.safetensors``
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from benchmarks.machine.environment import environment
from benchmarks.paper.training.recipe import Recipe
from benchmarks.paper.training.step import Arithmetic
from benchmarks.records.findings import FILE_LIMIT_BYTES, read_record
from exporter.models.variants import VARIANTS, Shortcut, Variant
from exporter.weights import checkpoint
from runtimes import codec, files
from runtimes.errors import ArtifactError, IntegrityError, UsageError, quote

RUN, CURVE, CHECKPOINT, WEIGHTS = "run.json", "curve.jsonl", "checkpoint.safetensors", "weights.safetensors"
STATES = "states"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunIdentity:
    """What makes a run the same run: all that decides its weights but for what rounding does to them.

    The ``variant`` has the data's classes and size; ``corpus`` is the SHA-256 of images and targets.
    """

    variant: Variant
    recipe: Recipe
    seed: int
    corpus: str

    @property
    def option(self) -> Shortcut | None:
        """The shortcut option, if it is not the variant's own."""
        row = VARIANTS.get(self.variant.name)
        return None if row is None or row.shortcut == self.variant.shortcut else self.variant.shortcut

    @property
    def name(self) -> str:
        """For messages: network, shortcut option if there is one to tell, and seed."""
        option = "" if self.option is None else f" option {self.option}"
        return f"{self.variant.name}{option}, seed {self.seed}"


@dataclass(frozen=True)
class TrainingSegment:
    """What computed the updates from iteration ``since`` on: arithmetic, PyTorch's threads, processor or GPU, versions.

    A run that goes on under the same ones ends in the same bits on a CPU; else the same mathematics is rounded
    otherwise.
    """

    since: int
    arithmetic: Arithmetic
    threads: int
    machine: str
    versions: dict[str, str]


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve. Errors are top-1 fractions; ``train_error`` and ``loss`` are means over the updates since the
    point before, on augmented images, as the network was then; the others are of all images in evaluation mode."""

    iteration: int
    epoch: float
    learning_rate: float
    loss: float
    train_error: float
    validation_error: float | None
    test_error: float
    elapsed_s: float


@dataclass(frozen=True)
class FinalErrors:
    """Errors of the finished network in evaluation mode, without augmentation; top-1 fractions."""

    train_error: float
    validation_error: float | None
    test_error: float


@dataclass(frozen=True)
class Run:
    """What ``run.json`` holds.

    Attributes:
        data, classes, images: the corpus's name, its classes, and its images by part.
        mean, std: what images were normalised with, one a channel, as shares of 255.
        sittings: what computed the run, in order; a single one where all was computed alike.
        step_s: seconds of one update, alone on the device, measured at the end; ``None`` until then.
        input_share: the share of that which making the batch takes; on a GPU at the most.
        elapsed_s: seconds of training and evaluating, all sittings together.
        outcome: ``None`` until the run is finished.
    """

    identity: RunIdentity
    data: str
    classes: tuple[str, ...]
    images: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sittings: tuple[TrainingSegment, ...]
    step_s: float | None = None
    input_share: float | None = None
    elapsed_s: float = 0.0
    outcome: FinalErrors | None = None
    run: int = SCHEMA_VERSION


@dataclass(frozen=True)
class TrainingProgress:
    """The part of a checkpoint that is no tensor. ``since`` counts the updates since the last point."""

    iteration: int
    warm: bool
    since: int
    elapsed_s: float
    points: tuple[CurvePoint, ...]


def open_run(folder: Path) -> Run:
    """The run in a folder. Raises what ``read_record`` raises."""
    return read_record(Run, folder / RUN, "run", SCHEMA_VERSION, "rbench paper train makes such a folder")


def state_of(folder: Path) -> tuple[int, dict[str, Tensor]]:
    """The iteration that a run has come to, and its network's state dict there: of its end, or of its checkpoint.
    Raises ``RexportError`` if the run has neither, or they cannot be read."""
    run = open_run(folder)
    if run.outcome is not None or not (folder / CHECKPOINT).exists():
        return run.identity.recipe.iterations, checkpoint.read(folder / WEIGHTS).tensors
    _, progress, tensors = read_checkpoint(folder / CHECKPOINT)
    return progress.iteration, model_state(tensors)


def model_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's state dict, of all that a step changes."""
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}


def states_of(folder: Path) -> tuple[tuple[int, dict[str, Tensor]], ...]:
    """The iterations and state dicts that a run kept of its network on the way, in order."""
    paths = sorted((folder / STATES).glob("*.safetensors"))
    return tuple((int(path.stem), checkpoint.read(path).tensors) for path in paths)


def curve(folder: Path) -> tuple[CurvePoint, ...]:
    """The points of the run's curve so far. Raises ``ArtifactError`` where a line is damaged."""
    path = folder / CURVE
    lines = files.read_bounded(path, FILE_LIMIT_BYTES).splitlines()
    try:
        return tuple(codec.loads(CurvePoint, line) for line in lines)
    except ArtifactError as error:
        raise ArtifactError(error.what, code=error.code, path=path) from error


def machine(arithmetic: Arithmetic) -> str:
    """What computes, in words."""
    if arithmetic.device == "cuda":
        return torch.cuda.get_device_name()
    here = environment()
    return f"{here.cpu}{', AMX' if any(name.startswith('amx') for name in here.instruction_sets) else ''}"


def versions() -> dict[str, str]:
    """The versions of Python and PyTorch."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def check_same(folder: Path, old: RunIdentity, new: RunIdentity) -> None:
    """Raises ``UsageError`` where the runs differ; the message names in what."""
    differing = [
        f"{field.name} {_short(getattr(old, field.name))}, not {_short(getattr(new, field.name))}"
        for field in dataclasses.fields(RunIdentity)
        if getattr(old, field.name) != getattr(new, field.name)
    ]
    if differing:
        what, hint = "; ".join(differing), "name a new folder, or the same options"
        raise UsageError(f"it holds another run: {what}", code="folder-of-another-run", path=folder, hint=hint)


def _short(value: object) -> str:
    if isinstance(value, Variant):
        return f"{value.name} ({value.classes} classes, shortcut {value.shortcut})"
    if isinstance(value, Recipe):
        return f"{value.name} of {value.iterations:,} iterations"
    text = str(value)
    return text if len(text) < 20 else f"{text[:12]}…"


def read_checkpoint(path: Path) -> tuple[RunIdentity, TrainingProgress, dict[str, Tensor]]:
    """What a checkpoint holds. Raises ``IntegrityError`` if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        identity = codec.loads(RunIdentity, metadata.get("identity", ""))
        return identity, codec.loads(TrainingProgress, metadata.get("progress", "")), tensors
    except (SafetensorError, ArtifactError) as error:
        raise IntegrityError(
            f"a damaged checkpoint: {quote(error)}",
            code="checkpoint-damaged",
            path=path,
            hint="remove it to begin again",
        ) from error


def write_curve(folder: Path, points: Sequence[CurvePoint]) -> None:
    """Writes the points of a run's curve, a line each."""
    with files.write_atomically(folder / CURVE) as temporary:
        temporary.write_text("".join(f"{codec.dumps(point)}\n" for point in points), encoding="utf-8")
